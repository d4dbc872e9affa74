"""What a lab's control socket can be asked: a type for each question, which names its answer's.

The client sends one as a map with its verb and its fields; the supervisor checks it against the
type and calls the handler for it. Questions about events and faults: `event_questions`; about
wires: `link_questions`.
"""

from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from netemu.wire.framing import decoded
from netemu.wire.status import LabStatus, MachineSeen

A = TypeVar("A")
Happening: TypeAlias = dict[str, Any]
"""What has happened, as `netemu events --json` prints it: a map."""


class Question(msgspec.Struct, Generic[A], tag_field="verb", forbid_unknown_fields=True):
    """A question that is answered with an A; its class says what is asked."""

    @classmethod
    def answer(cls, body: bytes) -> A:
        """Decode an answer. Raises FrameError."""
        (question,) = cls.__orig_bases__  # type: ignore[attr-defined]
        answer: A = decoded(body, question.__args__[0])
        return answer


class Status(Question[LabStatus], tag="status"):
    """The state of the lab, its nodes and guests."""


class Seen(Question[list[MachineSeen]], tag="seen"):
    """The other machines of a lab that answer soon. With `here` it is this machine alone."""

    here: bool = False


class Wait(Question[None], tag="wait"):
    """Answered once the lab is up."""


class Enter(Question[list[str]], tag="enter"):
    """The namespaces of a guest, a node, or (None) the sandbox: their kinds, and descriptors beside
    them.
    """

    target: str | None


class Ran(msgspec.Struct, frozen=True):
    """How a command in a machine ended, and what it printed. `code` is None at the time limit."""

    code: int | None
    out: bytes
    err: bytes


class Run(Question[Ran], tag="run"):
    """Run a command in a guest with a kernel of its own, with `given` on its standard input."""

    guest: str
    command: list[str]
    given: bytes
    timeout: float


class Console(Question[None], tag="console"):
    """The console of a guest with a kernel of its own: a descriptor beside the answer."""

    guest: str


class Reboot(Question[None], tag="reboot"):
    """Reboot a guest. Its programs are asked to end first, unless it is a `hard` reboot."""

    guest: str
    hard: bool = False


class SetProperties(Question[dict[str, str]], tag="set"):
    """Change a guest's properties; an empty value removes one. Answered with those it has then."""

    guest: str
    properties: dict[str, str]


class Fail(Question[None], tag="fail"):
    """Have a node fail."""

    node: str


class Restore(Question[None], tag="restore"):
    """Have a failed node come back."""

    node: str


class Events(Question[list[Happening]], tag="events"):
    """What has happened in the lab, as far as it is kept."""


class Follow(Question[Happening], tag="follow"):
    """The same, and what happens from then on: a stream."""


class Certificate(Question[str], tag="certificate"):
    """The certificate that verifies the documents that the lab signs."""


class Keep(Question[None], tag="keep"):
    """Stay up when the owner ends."""


class Down(Question[None], tag="down"):
    """Go down."""
