"""The responder: a process that answers the guests of its node over HTTP.

- `knowledge`: the node's state as the agent has sent it, and the view of one guest. Pure.
- `feed`: follows the agent's feed, across restarts of the agent.
- `approvals`: guests' approvals on their way to the agent.
- `connection`: one guest's connection while it is held.
- `waiting`: requests that are answered later.
- `answers`: makes answers.
- `reply_cache`: keeps them for repeated requests.
- `faults`: what faults on command do to answers. Pure.
- `poll_log`: what each guest has asked and been told, bounded.
- `server`: accepts connections, identifies callers, and sends answers.

It identifies a caller by the mark of the accepted socket, never by what the caller sends. It needs
no privilege and stores nothing. It sends the agent no commands but approvals in the guest's name,
and tells it how many requests a fault has met, and, if it is asked, what a guest has asked.
"""
