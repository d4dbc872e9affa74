"""RFC 3927 as frames on the wire: each requirement against whoever claims in a guest.

- `rows`:      the requirements, a row each
- `claimants`: our guests, and programs from elsewhere inside guests
- `wire`:      a guest's wire as another host of its link has it
- `subject`:   a claimant, the guest that it claims for, and that guest's wire
- `trial`:     what is done to a claimant, and what it has to do then
- `judge`:     claimants side by side on one bridge of a running lab

A trial plays another host of the link: it hears the port of the guest before the guard does, and
puts frames on its wire, as another guest of the node under same-node, else as the node itself, as
the guard lets it. It judges by what the guest sends and when; nothing is asked of the claimant but
to begin anew.
"""
