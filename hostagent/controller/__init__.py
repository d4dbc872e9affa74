"""The client side of the agent's command socket, for programs and command lines.

`Controller` is for asyncio, on any event loop; `SyncController` blocks and needs no loop. Both
offer the same calls. Each call carries a command id. If the connection breaks before the answer,
the same command is sent again on a new one until the call times out; the agent applies it once.

Errors: CommandRefused if the agent refuses. Nothing has changed then, with one exception: a command
refused with code `repository` may turn out to be applied if the agent ends at that moment.
AgentUnreachable if no answer came in time: the command may or may not have been applied. In both
cases send it again with the same `command_id` to find out.

`Watch` follows a node over its agent's feed socket. It sends no commands.
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
