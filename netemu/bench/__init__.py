"""Benchmarks: what is measured, against whom, and how much of it is the kernel's own.

Every number is a ratio of two things measured in turn in one run (A B A B …), given as a median
with its least and its greatest, with CPU time beside wall time. Peers are what a person would use
instead; one that is not installed is named as not measured.

- `rounds`, `report`, `plot`: measuring in turn, and telling it (terminal, JSON, SVG)
- `build`, `floor`:           labs going up and down, beside the kernel's own part and Mininet
- `claim`:                    from wired to all bound, and the CPU that a claim costs
- `stage`, `servers`, `responder`, `load`: servers on nodes of a lab, and guests that ask them
- `events`:                   from a controller's acknowledgement to the last guest that knows
- `theory`, `link`, `simulation`: RFC 3927 in virtual time, held against its formulas; pure

What this room never does: run anything outside a lab's sandbox but the peers' own installers'
programs, or leave something running. Nothing else imports it, and it imports matplotlib only to
draw.
"""
