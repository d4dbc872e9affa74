"""Asks the store what a lab is that another machine joins. Runs in the user's process."""

import asyncio
from typing import Final

import msgspec

from netemu.errors import NotSo
from netemu.etcd import Client
from netemu.etcd.http import Endpoint, context
from netemu.topology.labfile import check_name
from netemu.wire.order import Begun
from netemu.wire.store_address import StoreAddress

_WITHIN: Final = 8.0


def begun(name: str, address: StoreAddress) -> tuple[Begun, StoreAddress]:
    """The lab of a name that has begun elsewhere, and the address by which it is joined.

    Raises NotSo: there is none, or the store does not answer; and BadInput.
    """
    check_name(name, "NAME")
    return asyncio.run(_begun(name, address))


async def _begun(name: str, address: StoreAddress) -> tuple[Begun, StoreAddress]:
    tls = context(address.ca, address.cert, address.key)
    endpoints = [Endpoint(*one) for one in address.servers]
    async with Client(endpoints, tls=tls, within=_WITHIN) as client:
        activity = await client.get(f"/netemu/{name}/activity")
        run = "" if activity is None else activity.value.decode()
        told = await client.get(f"/netemu/{name}/{run}/lab")
    if told is None:
        raise NotSo(f"{name}: no such lab has begun in {address}; 'netemu up' begins one")
    try:
        begun = msgspec.json.decode(told.value, type=Begun)
    except msgspec.MsgspecError as error:
        raise NotSo(f"{name}: is of another version of netemu: {error}") from None
    return begun, msgspec.structs.replace(address, activity=run)
