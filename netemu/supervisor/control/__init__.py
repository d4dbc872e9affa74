"""What happens to guests and nodes: events carried out, guests placed, moved and healed.

Runs in the sandbox. It speaks to the nodes' agents, and touches wires and processes only through
`netemu.supervisor.guests` and `netemu.supervisor.nodes`.
"""
