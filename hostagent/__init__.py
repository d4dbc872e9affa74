"""The processes of a real node: the host agent with its repository, and the metadata responder.

    controller ──msgpack──▶ agent ──msgpack──▶ responder ◀──HTTP── the guests of this node
                              │ repository

- `model`: guests, events and the table of an event's life. Pure.
- `properties`: a guest's properties: keys, defaults, allowed values; `regions`: those of clouds;
  `faults`: how the service misbehaves on command; `rates`: token buckets. Pure.
- `repository`: the durable store of guests and events; its parts are `command_record`, the commands
  applied, `node_state`, the clock and numbers, and `guest_rows`, a guest as it is stored;
  `database`: the file, in which every row carries a checksum; `schema`: the tables of this version
  and of older ones.
- `commands`: what each command does to the repository.
- `channel`: msgpack frames with a typed, validated message set.
- `agent`: takes commands, stores and publishes them, expires events; `transactions`: its thread for
  the repository; `peers`: what each connection may send.
- `controller`: the client side, for programs (async and blocking) and the command line.
- `subscription`: follows an agent's feed.
- `http`, `dialects`: a strict request reader; one pure module for each cloud's API.
- `responder`: answers each guest with the data that concerns it.
- `signing`: signed documents.
- `terminal`: output, numbers, durations and exit codes of a command line.
- `daemon`: how the two processes start and end; `privileges`, `confinement`: what they give up;
  `workers`: several responders that serve as one; `zygote`: forks daemons, to save their imports.

This package does not know that it is emulated: it imports neither `netemu` nor anything that
configures the network, and never needs root. Importing the package itself loads nothing else.
"""
