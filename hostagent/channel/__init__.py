"""The channel between controllers, the agent and the responder: msgpack over stream sockets.

- `frames`: encodes and decodes length-bounded frames.
- `messages`: the typed message set; errors name the member that is wrong.
- `replica`: what a subscriber of the feed knows of the node.

Used in all three processes. Nothing here does I/O. Input from a peer raises FrameError or
MessageError and nothing else.
"""
