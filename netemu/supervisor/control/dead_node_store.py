"""What the agent of a dead node has left on its disk: it is read, and it can be added to.

Only once the agent has surely ended: it holds its repository for itself while it lives.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

import msgspec

from hostagent.channel.messages import Adopt, Failed, Placed
from hostagent.commands import answered, execute
from hostagent.model import sees
from hostagent.repository import Repository, RepositoryError
from netemu.errors import NotSo
from netemu.supervisor.control.agents import Known
from netemu.supervisor.nodes.node_services import NodeServices


def last_known(host: NodeServices) -> Known:
    """What the agent knew. Raises NotSo if its repository is damaged."""
    with _repository(host) as repository:
        return Known(repository.clock_offset, repository.guests(), repository.events())


def withdrawn(host: NodeServices, command_id: str) -> Mapping[str, tuple[int, int]]:
    """The incarnation and edits of the guests that a command took off the node, if it did.

    Raises NotSo if its repository is damaged.
    """
    with _repository(host) as repository:
        done = answered(repository, command_id)
        return {} if done is None else done.left


def bring(host: NodeServices, guest: Placed, known: Known) -> None:
    """Have the agent know of a guest, and what was `known` of it elsewhere, once it is read again.

    Raises NotSo if its repository is damaged, or cannot take it.
    """
    command = Adopt(
        command_id=str(uuid4()),
        clock_offset=known.clock_offset,
        guests=(guest,),
        events=tuple(event for event in known.events if sees(guest.guest, event)),
    )
    with _repository(host) as repository, repository.transaction():
        answer, _ = execute(repository, command, time.time())
    if isinstance(answer, Failed):
        raise NotSo(
            f"{host.name}: its repository does not take {guest.guest.name}: {answer.reason}"
        )


@contextmanager
def _repository(host: NodeServices) -> Iterator[Repository]:
    try:
        repository = Repository(host.repository)
        try:
            yield repository
        finally:
            repository.close()
    except (RepositoryError, sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        raise NotSo(f"{host.name}: its repository cannot be read: {error}") from None
