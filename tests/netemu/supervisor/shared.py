"""One machine of a lab whose store is a fake: its membership, its places and its store."""

import asyncio
from collections.abc import Callable
from typing import Any

from netemu.supervisor.control.membership import Membership, Part
from netemu.supervisor.control.places import Places
from netemu.supervisor.control.shared_store import SharedStore
from netemu.supervisor.control.store import Store
from netemu.topology import Lab
from tests.netemu.supervisor.fake_etcd import FakeEtcd


class Shared:
    """It may be heard until `heard`; `returned` is how often it has come back."""

    def __init__(
        self, etcd: FakeEtcd, part: Part, lab: Lab, local: Store, told: Callable[[str], None]
    ) -> None:
        self.heard, self.returned = 0.0, 0
        client: Any = etcd
        self.membership = Membership(client, part)
        self.places = Places(lab, client, self.membership)
        self.store = SharedStore(client, part, self.membership, self.places, local, told)

    async def begin(self) -> None:
        await self.membership.begin()

    async def run(self) -> None:
        stay = self.membership.stay(self.store.tell, self._hear, self.come_back)
        await asyncio.gather(stay, self.places.run(self.store.tell), self.store.run())

    def _hear(self, until: float) -> None:
        self.heard = until

    async def come_back(self) -> None:
        self.returned += 1

    async def end(self) -> None:
        await self.membership.end()
