"""What happens to guests and nodes: events carried out, guests placed, moved and healed.

Runs in the sandbox. It speaks to the nodes' agents, and touches wires and processes only through
`netemu.supervisor.guests` and `netemu.supervisor.nodes`.

`store` is the seam behind which commands are kept and nodes are told. In `agent_store` the agents
do both; `shared_store` keeps commands in etcd, for several machines, with `membership` and
`remote_node`. `agent_feeds` is what nodes tell, `lab_events` the events out of all that.
`maintenance` commands events, `impact` carries them out and `carried_out` records it. `placement`
tells each agent of its guests; `moves` brings guests to other nodes, as `impact` asks or
`relocation`, which fences and restores nodes; `healing` chooses where to.
"""
