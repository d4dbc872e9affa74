"""Isolation conformance: the catalogue of attacks as crafted frames, and what was seen of them.

- `row`:     one attack as a value: what is sent, and the verdict that each policy expects
- `rows`:    the catalogue, a file a family
- `stage`:   a lab with a process in each of its places, and taps open; `cast`: who is who;
             `signing`: how frames are known again
- `inside`:  that process; knows nothing of rows. `taps`: the frames that it sends and hears
- `suite`:   plays rows on a stage, with the honest control during and after each
- `prove`:   plays them in labs without protections: a row that cannot fail is a defect
- `report`:  tables, JSON, JUnit, HTML, SVG, captures
- `rfc3927`: another suite: what a claimant of addresses does on the wire
- `crafting`: scapy without its cache

What decides is what observers saw, never the attacker's silence. This is the only room that
imports scapy. Nothing is ever sent but inside the namespaces of a lab.
"""
