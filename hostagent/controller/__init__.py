"""The client side of the agent's command socket, for programs and command lines.

`Controller` is for asyncio, on whatever loop; `SyncController` is plain and needs no loop.
Both offer the same calls. Each call carries a command id, and when the connection breaks before the
answer has come, the same command is sent again on a new one until the call's time is up: the agent
applies it once.

Errors: CommandRefused when the agent says no (nothing has changed then, except that a command that
was refused for the `repository` may still be found applied if the agent ends at that moment; send
it again with the same `command_id`). AgentUnreachable when no answer came in time (the command may
or may not have been applied; send it again with the same `command_id` to find out).

`Watch` follows a node over its agent's feed socket. It learns everything and can command nothing.
"""

from hostagent.controller.asynchronous import Controller
from hostagent.controller.conversation import AgentUnreachable, CommandRefused, ControllerError
from hostagent.controller.plain import SyncController
from hostagent.controller.watch import Watch

__all__ = [
    "AgentUnreachable",
    "CommandRefused",
    "Controller",
    "ControllerError",
    "SyncController",
    "Watch",
]
