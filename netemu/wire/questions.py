"""What a lab's control socket can be asked: a type for each question.

The client sends one as a map with its verb and its fields; the supervisor checks it against the
type and calls the handler for it. Questions about events and faults: `event_questions`.
"""

import msgspec


class Question(msgspec.Struct, tag_field="verb", forbid_unknown_fields=True):
    """A question; its class says what is asked."""


class Status(Question, tag="status"):
    """The state of the lab, its nodes and guests."""


class Wait(Question, tag="wait"):
    """Answered once the lab is up."""


class Enter(Question, tag="enter"):
    """Descriptors of the namespaces of a guest, a node, or (None) the sandbox."""

    target: str | None


class Reboot(Question, tag="reboot"):
    """Reboot a guest. Its programs are asked to end first, unless it is a `hard` reboot."""

    guest: str
    hard: bool = False


class SetProperties(Question, tag="set"):
    """Change a guest's properties; an empty value removes one. Answered with those it has then."""

    guest: str
    properties: dict[str, str]


class Fail(Question, tag="fail"):
    """Have a node fail."""

    node: str


class Restore(Question, tag="restore"):
    """Have a failed node come back."""

    node: str


class Events(Question, tag="events"):
    """What has happened in the lab, as far as it is kept."""


class Follow(Question, tag="follow"):
    """The same, and what happens from then on: a stream."""


class Certificate(Question, tag="certificate"):
    """The certificate that verifies the documents that the lab signs."""


class Keep(Question, tag="keep"):
    """Stay up when the owner ends."""


class Down(Question, tag="down"):
    """Go down."""
