"""What is known of an agent under test: how it is started, and how it says what it does. Pure."""

import re
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from hostagent.times import seconds
from netemu.errors import BadInput
from netemu.topology.document import Document

Cloud = Literal["azure", "ec2", "gce"]
Kind = Literal["freeze", "reboot", "redeploy", "preempt", "terminate"]
Adapter = tuple[str, str]
"""A word of WORDS, and its argument."""

WORDS: Final = {
    "exit": "", "file": "PATH", "http": "URL", "log": "REGEX", "call": "NAME [REGEX]", "mark": ""
}  # fmt: skip
NONE: Final = "none"

_HANDLES: Final[dict[str, tuple[Kind, ...]]] = {
    "azure": ("reboot", "redeploy", "freeze", "preempt", "terminate"),
    "ec2": ("preempt",),
    "gce": ("freeze", "preempt"),
}
LONGEST_POLL: Final = 60.0
"""Seconds. A row waits some polls at several places: with a longer pause it takes hours."""


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent is started, and where: in all guests of a set, or in the event's own."""

    run: str | list[str]
    restart: Literal["no", "on-failure", "always"] = "no"
    members: Literal["all", "one"] = "all"
    cloud: Cloud = "azure"
    version: str = ""
    source: str = ""


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What is fair to ask of it."""

    approves: bool | Literal["never"] = True
    return_after: list[Literal["freeze", "cancel", "reboot", "redeploy"]] = msgspec.field(
        default_factory=lambda: ["freeze", "cancel", "reboot", "redeploy"]
    )
    keeps_one: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    agent: Run
    drained: str
    returned: str = NONE
    handles: list[Kind] | None = None
    poll: str | float | None = None
    needs: Needs = msgspec.field(default_factory=Needs)


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent under test. `poll` is in seconds; None: it is measured."""

    run: Run
    drained: Adapter
    returned: Adapter
    handles: frozenset[Kind]
    poll: float | None
    needs: Needs
    directory: str

    @property
    def returns(self) -> bool:
        """Whether it says when it is back."""
        return self.returned[0] != NONE


def read(text: str, source: str, directory: Path) -> Agent:
    """Read an AGENT.yaml; its command is started in `directory`. Raises BadInput."""
    return made(Document(text, source).value, source, directory)


def made(value: Any, source: str, directory: Path) -> Agent:
    """Make an agent of what an AGENT.yaml holds. Raises BadInput."""
    try:
        file = msgspec.convert(value, _File)
    except msgspec.ValidationError as error:
        raise BadInput(f"{source}: {error}") from None
    if not file.agent.run:
        raise BadInput(f"{source}: agent.run: is empty; say the agent's command")
    drained = _adapter(file.drained, f"{source}: drained")
    if drained[0] == NONE:
        raise BadInput(f"{source}: drained: is needed; one of {_words()}")
    returned = _adapter(file.returned, f"{source}: returned")
    if returned[0] == "exit":
        raise BadInput(f"{source}: returned: an agent that has ended cannot say that it is back")
    return Agent(
        run=file.agent,
        drained=drained,
        returned=returned,
        handles=frozenset(file.handles or _HANDLES[file.agent.cloud]),
        poll=_poll(file.poll, source),
        needs=file.needs,
        directory=str(directory),
    )


def _words() -> str:
    return ", ".join(f"{word} {argument}".strip() for word, argument in WORDS.items())


def _adapter(text: str, place: str) -> Adapter:
    word, _, argument = text.strip().partition(" ")
    argument = argument.strip()
    if word == NONE and not argument:
        return NONE, ""
    if word not in WORDS:
        raise BadInput(f"{place}: {text!r} is none of {_words()}")
    if bool(argument) is not bool(WORDS[word]):
        wanted = f"{word} {WORDS[word]}".strip()
        raise BadInput(f"{place}: {text!r}: write it as {wanted!r}")
    pattern = argument if word == "log" else argument.partition(" ")[2] if word == "call" else ""
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{place}: {pattern!r} is not a regular expression: {error}") from None
    if word == "call" and "/" in argument.partition(" ")[0]:
        raise BadInput(f"{place}: {text!r}: NAME is a command's name, without a directory")
    return word, argument


def _poll(given: str | float | None, source: str) -> float | None:
    if given is None:
        return None
    try:
        poll = seconds(given) if isinstance(given, str) else float(given)
    except ValueError as error:
        raise BadInput(f"{source}: poll: {error}") from None
    if not 0 < poll <= LONGEST_POLL:
        raise BadInput(
            f"{source}: poll: {given} is not above 0 and at most {LONGEST_POLL:g} s; have the agent"
            " ask more often while it is judged"
        )
    return poll
