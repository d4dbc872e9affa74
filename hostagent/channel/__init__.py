"""The channel between controllers, the agent and the responder: msgpack over stream sockets.

- `frames`: length-bounded frames to plain objects and back, without I/O.
- `messages`: the typed message set; what does not fit it is refused with the place that is wrong.
- `replica`: what a subscriber of the feed knows of the node.

Nothing here opens a socket, and nothing that arrives from a peer raises anything but the two typed
errors, FrameError and MessageError.
"""
