"""The responder: tells each guest of this node what concerns it, over HTTP.

- `knowledge`: what the agent has told, and the view of it that one guest may have. Pure.
- `feed`: keeps the knowledge fed, over whatever happens to the agent.
- `approvals`: what guests approve of, on its way to the agent.
- `connection`: one guest's connection while it is held.
- `waiting`: requests that are answered later.
- `answers`: what is answered to whom; what was asked before is not made again.
- `server`: accepts, asks who it is, has it answered.

It knows its caller by the mark of the accepted socket, and by nothing that the caller says. It
needs no privilege, stores nothing, and commands nothing: that a guest approves of an event is all
that it passes on, in the name of that guest.
"""
