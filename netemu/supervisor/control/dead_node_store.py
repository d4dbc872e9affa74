"""What the agent of a dead node has left on its disk: it is read, and it can be added to.

Only once the agent has surely ended: it holds its repository for itself while it lives.
"""

import time
from uuid import uuid4

from hostagent.channel.messages import Adopt, Failed, Placed
from hostagent.commands import execute
from hostagent.model import sees
from hostagent.repository import Repository, RepositoryError
from netemu.errors import NotSo
from netemu.supervisor.control.placement import Known
from netemu.supervisor.nodes.node_services import NodeServices


def last_known(host: NodeServices) -> Known:
    """What the agent knew. Raises NotSo if its repository is damaged."""
    repository = _opened(host)
    try:
        return Known(repository.clock_offset, repository.guests(), repository.events())
    finally:
        repository.close()


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
    repository = _opened(host)
    try:
        with repository.transaction():
            answer, _ = execute(repository, command, time.time())
    finally:
        repository.close()
    if isinstance(answer, Failed):
        raise NotSo(
            f"{host.name}: its repository does not take {guest.guest.name}: {answer.reason}"
        )


def _opened(host: NodeServices) -> Repository:
    try:
        return Repository(host.repository)
    except RepositoryError as error:
        raise NotSo(f"{host.name}: its repository cannot be read: {error}") from None
