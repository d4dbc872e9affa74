"""Benchmarks of this project beside alternatives, and the kernel's own share of each time.

Things are compared by measuring them in turn in one run (A B A B …). Results are medians with
minimum and maximum, and CPU time beside wall time. Peers are the usual alternatives; one that is
not installed is listed as not measured.

- `rounds`, `report`, `plot`: measuring in turn, and reporting (terminal, JSON, SVG)
- `build`, `kernel_baseline`: labs going up and down, beside the kernel's own part and Mininet
- `claim`:                    the time from wired to all bound, and the CPU time of a claim
- `stage`, `servers`, `responder`, `load`: servers on a lab's nodes, and load from its guests
- `events`:                   the delay from a command's acknowledgement to the last guest
- `theory`, `link`, `simulation`: RFC 3927 in virtual time, compared with its formulas; pure

Each measurement runs in a process of its own in a sandbox. This package leaves nothing running.
Nothing else imports it, and it imports matplotlib only to draw.
"""
