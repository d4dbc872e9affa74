"""RFC 3927 as frames on the wire: tests each requirement on a claimant in a guest.

`rows`: the requirements, a row each. `claimants`: our guests, and other programs inside guests.
`wire`: a guest's wire, as another host of its link sees it. `subject`: a claimant, the guest that
it claims for, and that guest's wire. `trial`: what is done to a claimant, and how it must react.
`judge`: runs claimants side by side on one bridge of a running lab.

A trial plays another host of the link. It hears the guest's port before the guard does, and puts
frames on the guest's wire: under same-node as another guest of the node, otherwise as the node
itself. It judges what the guest sends and when. The only thing asked of the claimant is to start
again.
"""
