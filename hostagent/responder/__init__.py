"""The responder: a process that answers the guests of its node over HTTP.

- `knowledge`: the node's state as the agent has sent it, and the view of one guest. Pure.
- `feed`: follows the agent's feed, across restarts of the agent.
- `approvals`: guests' approvals on their way to the agent.
- `connection`: one guest's connection while it is held.
- `waiting`: requests that are answered later.
- `answers`: makes answers, and keeps them for repeated requests.
- `server`: accepts connections, identifies callers, and sends answers.

It identifies a caller by the mark of the accepted socket, never by what the caller sends. It needs
no privilege, stores nothing, and sends the agent no commands but approvals in the guest's name.
"""
