"""What would run on a real node: the host agent, its repository, and the metadata responder.

    controller ──msgpack──▶ agent ──msgpack──▶ responder ◀──HTTP── the guests of this node
                              │ repository

- `model`: guests, events and the table of an event's life. Pure.
- `properties`: what a guest is besides its maintenance: keys, defaults, what is possible. Pure.
- `rates`: how often somebody may do something. Pure.
- `repository`: the durable store of what controllers have commanded; `database`: its file, in which
  every row carries a checksum; `schema`: the tables, today's and those of older versions.
- `commands`: what each command does to the repository.
- `channel`: msgpack frames with a typed, validated message set.
- `agent`: takes commands, stores them, publishes them, lets them run out; `transactions`: its
  thread for the repository; `peers`: what each connection may say.
- `controller`: the client side, for a program (async and plain) or a command line.
- `subscription`: keeps up with an agent's feed.
- `http`, `dialects`: a strict request reader; one pure module for each cloud's API.
- `responder`: answers each guest with what concerns that guest.
- `terminal`: how a command line prints, reads numbers and durations, and ends.
- `workers`: several processes that serve as one.

This package does not know whether it is emulated: it imports neither `netemu` nor anything that
speaks to the network's configuration, and it never needs root. Importing it costs nothing; import
the module that you want.
"""
