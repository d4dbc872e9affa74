"""RFC 3927 for guests, and the node's side of address conflict detection.

A guest claims a 169.254/16 address, defends it and yields it. A node prevents two of its guests
from ending up with the same address. Runs in the lab's supervisor.

- `addresses`: the range, and the pseudo-random candidates of a MAC
- `timing`:    the constants of RFC 3927 section 9, under one multiplier
- `arp`:       reads and writes ARP on Ethernet; so do `dhcp` and `dns` for their protocols
- `ipv6`:      the addresses of a link that speaks IPv6
- `claimant`:  the host's state machine, one for each interface
- `oracle`:    the node's answer to probes, and its bindings, first come, first served
- `bpf`:       socket filters that wake a process only for frames that concern it
- `fair_timer`, `deadline`: let timers and sockets of one event loop take turns
- `guest_shell`, `node_shell`: run claimants and oracles; they alone open sockets

Everything is pure except the modules of the last two lines. Inputs are `now` (seconds, monotonic)
and a `random.Random`. Outputs are frames and other effects. The object's `deadline` says when to
call it next. Addresses are integers (169.254.1.0 is 0xA9FE0100), MACs are six bytes.

The shells carry out what the pure modules decide. Only they log.

This package never uses an address that was not claimed, never makes a binding that was not asked
for, builds no namespaces or wires, does not write the guard's rules, and knows no lab files.
"""
