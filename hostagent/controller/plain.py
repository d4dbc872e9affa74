"""The controller without asyncio: every call blocks. Runs in the caller's process."""

import socket
import time
from pathlib import Path
from typing import TypeVar

from hostagent.channel.messages import Answer, Welcome
from hostagent.channel.requests import Command, Query
from hostagent.controller import conversation
from hostagent.controller.calls import Call, Verbs
from hostagent.verb import Blocking

T = TypeVar("T")


class SyncController(Verbs, Blocking):
    """Commands one node's agent; every call blocks until its answer or its timeout."""

    def __init__(self, path: Path | str, timeout: float = conversation.TIMEOUT) -> None:
        """Use the agent whose command socket is at `path`; `connect` also opens the connection."""
        self.path = Path(path)
        self.timeout = timeout
        self.node = ""
        self._conversation = conversation.Conversation()
        self._socket: socket.socket | None = None

    @classmethod
    def connect(cls, path: Path | str, timeout: float = conversation.TIMEOUT) -> "SyncController":
        """Connect, and learn the node's name; raises AgentUnreachable, CommandRefused."""
        controller = cls(path, timeout)
        try:
            controller._open(time.monotonic() + timeout)
        except OSError as error:  # TimeoutError is one
            controller.close()
            raise conversation.AgentUnreachable(path, error) from error
        except conversation.CommandRefused:
            controller.close()
            raise
        return controller

    def close(self) -> None:
        """Close the connection. A later call opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "SyncController":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def make(self, call: Call[T]) -> T:
        """Ask what the call asks; returns what it reads from the answers."""
        return call.read([self._ask(question) for question in call.questions()])

    def _open(self, deadline: float) -> None:
        self._conversation = conversation.Conversation()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_left(deadline))
        self._socket.connect(str(self.path))
        (welcome,) = conversation.check(self._exchange(conversation.GREETING, deadline))
        assert isinstance(welcome, Welcome)
        self.node = welcome.node

    def _exchange(self, question: conversation.Question, deadline: float) -> list[Answer | Welcome]:
        assert self._socket is not None
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(self._conversation.ask(question))
        while True:
            self._socket.settimeout(_left(deadline))
            answers = self._conversation.feed(self._socket.recv(conversation.CHUNK))
            if answers is not None:
                return answers

    def _ask(self, request: Command | Query) -> list[Answer | Welcome]:
        deadline = time.monotonic() + self.timeout
        problem: OSError = TimeoutError("no answer in time")
        sent = in_doubt = False
        while True:
            try:
                if self._socket is None:
                    self._open(deadline)
                sent = True
                return conversation.check(self._exchange(request, deadline))
            except TimeoutError as error:
                self.close()
                raise conversation.AgentUnreachable(self.path, problem) from error
            except OSError as error:
                problem = error
            except conversation.CommandRefused as error:
                if not (in_doubt and error.of_connection):
                    raise
                problem = ConnectionAbortedError(str(error))
            except BaseException:  # it leaves the connection out of step
                self.close()
                raise
            in_doubt = sent
            self.close()
            time.sleep(min(conversation.RETRY_DELAY, max(deadline - time.monotonic(), 0.0)))


def _left(deadline: float) -> float:
    """Return the seconds until the deadline; raises TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
