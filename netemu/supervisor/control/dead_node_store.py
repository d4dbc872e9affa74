"""Reads what the agent of a dead node has left on disk, and adds to it. Runs in the supervisor.

It is for agents that have ended: a running agent holds its repository alone.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hostagent.channel.messages import Done, Failed
from hostagent.channel.requests import Command
from hostagent.commands import answered, execute
from hostagent.repository import Repository, RepositoryError
from netemu.errors import NotSo
from netemu.supervisor.control.store import DeadNode, Known


class _Disk:
    def __init__(self, node: str, repository: Repository) -> None:
        self._node = node
        self._repository = repository

    def snapshot(self) -> Known:
        one = self._repository
        return Known(one.clock_offset, one.guests(), one.events())

    def answer(self, command_id: str) -> Done | None:
        return answered(self._repository, command_id)

    def append(self, command: Command) -> None:
        with self._repository.transaction():
            answer, _ = execute(self._repository, command, time.time())
        if isinstance(answer, Failed):
            raise NotSo(f"{self._node}: its repository does not take it: {answer.reason}")


@contextmanager
def opened(node: str, path: Path) -> Iterator[DeadNode]:
    """Open the node's repository. Raises NotSo if it is damaged, then or later."""
    try:
        repository = Repository.open(path)
        try:
            yield _Disk(node, repository)
        finally:
            repository.close()
    except (RepositoryError, sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        raise NotSo(f"{node}: its repository cannot be read: {error}") from None
