"""Isolation conformance: the catalogue of attacks as crafted frames, and what was seen of them.

- `row`:     one attack as a value: what is sent, and the verdict that each policy expects
- `rows`:    the catalogue, a file a family
- `stage`:   the places of an attack, a process in each, and taps open; `labstage`: on a running
             lab; `external`: on bridges of the user's own; `roles`: who is who; `signing`: how
             frames are recognised
- `inside`:  the process in a place, which knows no rows; `taps`: the frames that it sends and
             hears; `connections`: its ordinary sockets; `probe`: the other end, which calls it
- `suite`:   plays rows on a stage, with the honest control during and after each
- `prove`:   plays them in labs without protections (`weakened`): a row that cannot fail is a
             defect; `baselines`: plays them on other rule sets
- `report`:  tables, JSON, JUnit, HTML, SVG, captures
- `rfc3927`: another suite: what a claimant of addresses does on the wire
- `agent`:   another suite: what an agent does that watches for maintenance
- `crafting`: scapy without its cache

Runs in the user's process, apart from `inside`. A verdict rests on what observers saw, never on the
attacker's silence. This is the only room that imports scapy. It sends only inside the namespaces of
a lab, or on the bridges that `external` was given.
"""
