"""RFC 3927 for guests, and the node's side of address conflict detection.

How a guest comes by its 169.254/16 address without being told one, keeps it, defends it and
yields it; and how a node sees to it that no two of its guests end with the same one.

- `addresses`: the range, and the pseudo-random candidates of a MAC
- `timing`:    the constants of RFC 3927 section 9, under one multiplier
- `arp`:       ARP on Ethernet, read and written
- `claimant`:  the host's state machine, one for each interface
- `oracle`:    the node's answer to probes, and its bindings, first come, first served
- `bpf`:       socket filters, so that a process wakes only for frames that concern it
- `shell`:     the only module here that opens a socket or looks at a clock

Everything but the shell is pure: time comes in as `now` (seconds, monotonic), randomness as a
`random.Random`; frames and other effects come out, and the next `deadline` stands on the object.
Addresses are integers (169.254.1.0 is 0xA9FE0100), MACs are six bytes.

What this room never does: touch the guard's rules or a guest's addresses (it says what should be
done, the lab does it), log, or know of labs, names and namespaces.
"""
