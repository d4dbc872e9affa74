"""What the supervisor tells whoever waits for the lab to come up, over a pipe."""

import os
import select
from collections.abc import Iterator
from typing import Any, NamedTuple

from hostagent.channel.frames import Decoder, pack
from netemu.errors import NetemuError, NotSo, of_exit_code


class Step(NamedTuple):
    """`done` of `of` are there, in the phase that is called `phase`."""

    phase: str
    done: int
    of: int


class Progress:
    """The supervisor's end. When nobody is left to tell, the lab is not wanted: see `abandoned`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_inheritable(descriptor, False)

    def step(self, phase: str, done: int, of: int) -> None:
        """So much is done."""
        self._say({"phase": phase, "done": done, "of": of})

    def ready(self) -> None:
        """The lab is up: nothing more will be said."""
        self._say({"ready": True})
        self._close()

    def failed(self, error: NetemuError) -> None:
        """The lab will not come up."""
        try:
            self._say({"failed": str(error), "exit": error.exit_code})
        finally:
            self._close()

    def abandoned(self) -> bool:
        """Whether whoever waited has gone before the lab was up."""
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, 0)  # an error is always told: the reader is gone
        return bool(poll.poll(0))

    def _say(self, message: dict[str, Any]) -> None:
        if self._descriptor is not None:
            try:
                os.write(self._descriptor, pack(message))
            except BrokenPipeError:
                pass

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def steps(descriptor: int) -> Iterator[Step]:
    """The other end: every step until the lab is ready; raises what made it fail."""
    decoder = Decoder()
    while data := os.read(descriptor, 65536):
        for message in decoder.feed(data):
            if message.get("ready"):
                return
            if "failed" in message:
                raise of_exit_code(message["exit"], message["failed"])
            yield Step(message["phase"], message["done"], message["of"])
    raise NotSo("the lab ended before it was up")
