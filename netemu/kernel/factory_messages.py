"""The questions to the factory, and its answers. Pure: `descriptor_link` sends them.

They are plain tuples, not msgspec's: that would double the memory of the factory, which is forked
for each guest. The descriptors that belong to a question travel beside it.
"""

from typing import Any, Final, NamedTuple


class Nodes(NamedTuple):
    """Make so many network namespaces."""

    number: int


class Guests(NamedTuple):
    """Make so many network namespaces, each owned by a user namespace of its own."""

    number: int


class Boot(NamedTuple):
    """Start a guest's first process. `command` may be empty: then it runs no program.

    A program that `emulates` a machine may map so many bytes, and read but its `files`: see
    `emulator`. With `carries`, the last two descriptors are not the program's: see `frame_carrier`.
    """

    guest: str
    hostname: str
    resolver: str
    shared: list[str]
    readable: dict[str, str]
    command: list[str]
    directory: str
    environment: dict[str, str]
    emulates: int
    files: list[str]
    carries: bool


class Freeze(NamedTuple):
    """Hold all processes of a guest."""


class End(NamedTuple):
    """Ask the programs of a guest to end, and report after `grace` seconds at most."""

    grace: float


class Hold(NamedTuple):
    """Hold descriptors until the lab ends."""


class Done(NamedTuple):
    """The answer: what was asked for is beside it; `process` is the one that holds descriptors."""

    process: int = 0


class Failed(NamedTuple):
    """Why it could not be done."""

    reason: str


Question = Nodes | Guests | Boot | Freeze | End | Hold
Answer = Done | Failed

_KINDS: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (Nodes, Guests, Boot, Freeze, End, Hold, Done, Failed)
}


def written(message: Question | Answer) -> list[Any]:
    """The message as msgpack can carry it: its kind, and its fields."""
    return [type(message).__name__, *message]


def read(told: list[Any]) -> Any:
    """The message that was written so. Raises ValueError if it is none."""
    try:
        kind, *fields = told
        return _KINDS[kind](*fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a message of the factory: {told!r}") from error
