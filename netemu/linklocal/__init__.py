"""RFC 3927 for guests, and the node's side of address conflict detection.

How a guest comes by its 169.254/16 address without being told one, keeps it, defends it and
yields it; and how a node sees to it that no two of its guests end with the same one.

- `addresses`: the range, and the pseudo-random candidates of a MAC
- `timing`:    the constants of RFC 3927 section 9, under one multiplier
- `arp`:       ARP on Ethernet, read and written
- `claimant`:  the host's state machine, one for each interface
- `oracle`:    the node's answer to probes, and its bindings, first come, first served
- `bpf`:       socket filters, so that a process wakes only for frames that concern it
- `turns`:     turns that timers and sockets take in one event loop
- `shell`:     the only module here that opens sockets

Everything but the last two is pure: time comes in as `now` (seconds, monotonic), randomness as a
`random.Random`; frames and other effects come out, and the next `deadline` stands on the object.
Addresses are integers (169.254.1.0 is 0xA9FE0100), MACs are six bytes.

The shell carries out what the pure modules decide: it is the only one that logs.

What this room never does: let a guest or a port do without its machine (no address is used that
was not claimed, no binding made that was not asked for), build namespaces or wires, write the
guard's rules, or know of lab files.
"""
