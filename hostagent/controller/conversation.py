"""Shared by both controllers: their errors, and the protocol with the agent, without I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from hostagent.channel import requests
from hostagent.channel.frames import Decoder, FrameError
from hostagent.channel.messages import (
    VERSION,
    Answer,
    Clock,
    Done,
    Events,
    Failed,
    Guests,
    Hello,
    MessageError,
    Polls,
    Responders,
    Welcome,
    decode,
    encode,
)

TIMEOUT: Final = 10.0
"""Seconds for one call. A commit takes milliseconds; an agent that restarts, a second or two."""

RETRY_DELAY: Final = 0.1
"""Seconds between attempts to reach an agent after the connection broke during a call."""

CHUNK: Final = 65536


class ControllerError(Exception):
    """A call has failed."""


BAD_INPUT: Final = frozenset({"bad-message", "bad-frame", "bad-property", "clock"})
"""The codes of what any agent would refuse."""


class CommandRefused(ControllerError):
    """The agent has refused: `code` for programs, the text for people.

    `bad_input`: any agent would refuse that command. `of_connection`: it says nothing of the
    command, which may have been carried out if it was asked for on an earlier connection.
    """

    def __init__(self, code: str, reason: str, *, of_connection: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.of_connection = of_connection
        self.bad_input = code in BAD_INPUT


class AgentUnreachable(ControllerError):
    """No agent answers in time at that socket."""

    def __init__(self, path: Path | str, why: OSError) -> None:
        where = str(path).replace("\0", "@")  # an abstract name, as ss(8) shows it
        super().__init__(f"agent at {where}: {why.strerror or str(why) or 'no answer in time'}")


Question: TypeAlias = Hello | requests.Command | requests.Query
GREETING: Final = Hello(version=VERSION, role="controller")

_ANSWER_TO: Final[Mapping[type[Question], type[Answer | Welcome]]] = {
    Hello: Welcome,
    requests.Now: Clock,
    requests.ListEvents: Events,
    requests.ListGuests: Guests,
    requests.ListResponders: Responders,
    requests.ListPolls: Polls,
}
"""The answer's type by the question's type; a command is answered by Done with its own ID."""


def _fits(message: Answer | Welcome, question: Question) -> bool:
    """Whether a message answers the question; not so on a connection that is out of step."""
    own = getattr(question, "command_id", None)
    if isinstance(message, Failed):
        return message.command_id in (None, own)
    if isinstance(message, Done):
        return message.command_id == own
    return type(message) is _ANSWER_TO.get(type(question))


class Conversation:
    """One connection without I/O: returns bytes to send, and takes bytes received."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._question: Question = GREETING
        self._answers: list[Answer | Welcome] = []

    def ask(self, question: "Question") -> bytes:
        """Return the bytes to send; the next answer must be to this question.

        Raises CommandRefused if no frame can carry it.
        """
        try:
            frame = encode(question)
        except FrameError as error:
            raise CommandRefused("bad-frame", str(error)) from error
        self._question = question
        return frame

    def feed(self, data: bytes) -> list[Answer | Welcome] | None:
        """Return the whole answer once its last part has come; raises ConnectionError."""
        if not data:
            raise ConnectionResetError("the agent closed the connection")
        try:
            for obj in self._decoder.feed(data):
                message = decode(obj)
                if not isinstance(message, Answer | Welcome) or not _fits(message, self._question):
                    asked = type(self._question).__name__.lower()
                    kind = type(message).__name__.lower()
                    raise MessageError(f"{kind} is not an answer to {asked}")
                if self._answers and not self._awaits_more():
                    raise MessageError("a second answer to one question")
                self._answers.append(message)
        except (FrameError, MessageError) as error:
            raise ConnectionAbortedError(f"not understood: {error}") from error
        if self._awaits_more():
            return None
        answers, self._answers = self._answers, []
        return answers

    def _awaits_more(self) -> bool:
        return not self._answers or getattr(self._answers[-1], "more", False)


def check(answers: list[Answer | Welcome]) -> list[Answer | Welcome]:
    """Return the answers; raises CommandRefused if one is a refusal."""
    for answer in answers:
        if isinstance(answer, Failed):
            of_connection = answer.command_id is None
            raise CommandRefused(answer.code, answer.reason, of_connection=of_connection)
    return answers
