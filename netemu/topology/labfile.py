"""The lab file: YAML in, a validated `Lab` out, or one line that says what is wrong and where."""

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from netemu.errors import BadInput
from netemu.impairment import plan, trace_file
from netemu.impairment.plan import Plan
from netemu.impairment.terms import TermError
from netemu.interfaces import Mark
from netemu.linklocal import addresses
from netemu.topology import lab as content
from netemu.topology.document import MAX_CHARACTERS, Document
from netemu.topology.entries import (
    MAX_TENANTS,
    NAME,
    NAME_RULE,
    AzureEntry,
    DialectsEntry,
    Ec2Entry,
    GuestEntry,
    LabFile,
    NodeEntry,
    read,
)
from netemu.topology.lab import SOFT, Dialects, Guest, Lab, Node, mac_address
from netemu.topology.machine import MachineError, VirtualMachine
from netemu.topology.machine import read as read_machine

# What is longer in UTF-8 is longer than a document may be.
MAX_BYTES = 4 * MAX_CHARACTERS
DEMO = Path(__file__).with_name("demo.yaml")

# What is wrong with a guest's property of this key and value, or None. Who knows the properties
# that a guest can have is not this room: the caller says.
CheckProperty = Callable[[str, str], str | None]
# The text that is kept for a property's key and value, which may be bytes or stand in a file, by a
# path below the directory. Raises ValueError.
TakeProperty = Callable[[str, Any, Path], Any]


def load(
    path: Path,
    *,
    name: str | None = None,
    check_property: CheckProperty = lambda *_: None,
    take_property: TakeProperty = lambda _key, value, _directory: value,
    variables: Mapping[str, str] | None = None,
) -> Lab:
    """Read the lab file at `path`; `name` overrides the lab's. Raises BadInput."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        directory = path.absolute().parent
        if len(text) > MAX_BYTES:
            raise BadInput(f"{path}: is longer than {MAX_BYTES:,} bytes")
        return parse(
            text.decode(),
            source=str(path),
            name=name,
            check_property=check_property,
            take_property=take_property,
            directory=directory,
            variables=variables,
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: cannot be read: it is not UTF-8 text") from None
    except ValueError as error:  # a NUL in the path
        raise BadInput(f"{str(path)!r}: cannot be read: {error}") from None


def parse(
    text: str,
    *,
    source: str,
    name: str | None = None,
    check_property: CheckProperty = lambda *_: None,
    take_property: TakeProperty = lambda _key, value, _directory: value,
    directory: Path = Path("/"),
    variables: Mapping[str, str] | None = None,
) -> Lab:
    """Read a lab file's `text`; `source` is what errors call it. Raises BadInput.

    Guests' programs start in `directory`. `variables` are what ${NAME} in it may stand for; None
    leaves such text as it is.
    """
    document = Document(text, source, variables)
    entry = read(document)
    if name is not None:
        check_name(name, "--name")
        entry.name = name
    return _Expansion(entry, document, check_property, take_property).lab(str(directory))


def check_name(name: str, where: str) -> None:
    """Raise BadInput unless `name` can name a lab, a node or a guest."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{where}: {name!r} cannot name a namespace: it takes {NAME_RULE}")


class _Expansion:
    """Numbers and names everything, and refuses what only the whole file can show to be wrong."""

    def __init__(
        self, entry: LabFile, document: Document, check: CheckProperty, take: TakeProperty
    ) -> None:
        self._entry = entry
        self._document = document
        self._check = check
        self._take = take
        self._directory = Path("/")
        self._seen: dict[str, str] = {}  # nodes and guests share one space of names
        self._mark = 0
        # 198.18.0.0/15 is set apart for benchmarks of networks (RFC 2544): no machine routes it.
        self._tenant = ipaddress.IPv4Address("198.18.0.0")
        self._tenants = 0
        self._traces: dict[str, bytes] = {}

    def lab(self, directory: str) -> Lab:
        entry = self._entry
        self._directory = Path(directory)
        shared = self._properties(entry.properties, "properties")
        nodes = tuple(self._node(place, name, shared) for place, name in enumerate(entry.nodes))
        return Lab(
            name=entry.name,
            policy=entry.policy,
            ipv6=entry.ipv6,
            nodes=nodes,
            directory=directory,
            faults=self._faults(nodes),
            shared=tuple(os.path.normpath(os.path.join(directory, one)) for one in entry.share),
            traces=self._traces,
        )

    def _faults(self, nodes: Sequence[Node]) -> tuple[dict[str, Any], ...]:
        names = {guest.name for node in nodes for guest in node.guests}
        found = []
        for place, entry in enumerate(self._entry.faults):
            told = msgspec.to_builtins(entry)
            given = {key: value for key, value in told.items() if value not in (None, False)}
            guests = given.get("guests", [])
            given["guests"] = [guests] if isinstance(guests, str) else guests
            for guest in given["guests"]:
                if guest not in names:
                    raise self._document.error(f"faults[{place}].guests", f"no guest {guest}")
            found.append(given)
        return tuple(found)

    def _node(self, place: int, name: str, shared: Mapping[str, str]) -> Node:
        entry = self._entry.nodes[name]
        self._once(name, f"nodes.{name}")
        where = f"nodes.{name}.guests"
        named = list(_named(name, entry.guests))
        if len(named) > content.MAX_GUESTS_PER_NODE:
            raise self._document.error(
                where, f"{len(named)} guests: a bridge takes at most {content.MAX_GUESTS_PER_NODE}"
            )
        shared = {**shared, **self._properties(entry.properties, f"nodes.{name}.properties")}
        guests: list[Guest] = []
        for index, guest in enumerate(named):
            at = f"{where}[{index}]" if isinstance(entry.guests, list) else where
            self._once(guest.name, at)
            self._mark += 1
            own = self._properties(guest.properties, f"{at}.properties")
            tenant = self._tenancy(guest, entry, at)
            if guest.tenant_link is not None and not tenant:
                raise self._document.error(
                    f"{at}.tenant_link", "the guest has no tenant interface: 'tenant: true'"
                )
            guests.append(
                Guest(
                    name=guest.name,
                    mark=Mark(self._mark),
                    mac=mac_address(self._entry.name, guest.name),
                    update_domain=_first(guest.update_domain, entry.update_domain, index),
                    fault_domain=_first(guest.fault_domain, entry.fault_domain, place),
                    availability_set=guest.availability_set or entry.availability_set,
                    last_address=self._link_local(guest.last_address, at),
                    properties={key: value for key, value in {**shared, **own}.items() if value},
                    tenant=tenant,
                    link=self._plan("link", guest, entry, at),
                    tenant_link=self._plan("tenant_link", guest, entry, at) if tenant else None,
                    run=self._command(guest.run if guest.run is not None else entry.run, at),
                    shutdown=_grace(
                        guest.shutdown if guest.shutdown is not None else entry.shutdown
                    ),
                    machine=self._machine(guest, entry, at),
                    dhcp=bool(_given(guest.dhcp, entry.dhcp, self._entry.dhcp)),
                )
            )
        dialects = _dialects(self._entry.dialects, entry.dialects)
        if not dialects.names:
            raise self._document.error(
                f"nodes.{name}.dialects", "a node's responder speaks at least one dialect"
            )
        mac = mac_address(self._entry.name, name)
        return Node(
            name=name,
            mac=mac,
            guests=tuple(guests),
            fault_domain=_first(entry.fault_domain, None, place),
            processes=entry.processes,
            dialects=dialects,
            machine=entry.machine,
        )

    def _machine(self, guest: GuestEntry, node: NodeEntry, place: str) -> VirtualMachine | None:
        """The machine of a guest whose own system does what the lab does for others."""
        entry = guest.machine
        if entry is None:
            return None
        for key, instead in (
            ("run", "a machine runs what its own system starts"),
            ("tenant", "a machine has no tenant interface"),
            ("last_address", "a machine remembers its address by itself"),
        ):
            if getattr(guest, key) or getattr(node, key, None):
                raise self._document.error(f"{place}.{key}", instead)
        paths = {
            key: os.path.normpath(os.path.join(self._directory, given))
            for key in ("image", "kernel", "initrd")
            if (given := getattr(entry, key)) is not None
        }
        try:
            return read_machine(entry, paths)
        except MachineError as error:
            at = ".".join(filter(None, (place, "machine", error.place)))
            raise self._document.error(at, str(error)) from None

    def _tenancy(self, guest: GuestEntry, node: NodeEntry, place: str) -> tuple[str, ...]:
        """The guest's addresses on the tenant network, the next that are free."""
        count = int(guest.tenant if guest.tenant is not None else node.tenant or 0)
        if not count:
            return ()
        self._tenants += 1
        if self._tenants > MAX_TENANTS:
            raise self._document.error(
                place, f"the tenant network takes at most {MAX_TENANTS} guests"
            )
        first, self._tenant = self._tenant + 1, self._tenant + count
        return tuple(str(first + number) for number in range(count))

    def _plan(self, key: str, guest: GuestEntry, node: NodeEntry, place: str) -> Plan | None:
        """What is wrong with one of the guest's wires; its own word goes before its node's."""
        own, nodes = getattr(guest, key), getattr(node, key)
        if own is None and nodes is None:
            return None
        at = f"{place}.{key}" if own is not None else f"{place.partition('.guests')[0]}.{key}"
        try:
            made = plan.read(nodes if own is None else own)
        except TermError as error:
            raise self._document.error(f"{at}.{error.place}", str(error)) from None
        for name in made.traces - self._traces.keys():
            self._traces[name] = trace_file.load(self._directory / name)
        return made

    def _once(self, name: str, place: str) -> None:
        """`exec` takes the name of a node or of a guest: there may be only one of it."""
        if name in self._seen:
            raise self._document.error(
                place, f"the name {name!r} is already that of {self._seen[name]}; names must differ"
            )
        if not NAME.fullmatch(name):
            raise self._document.error(
                place, f"{name!r} cannot name a namespace: it takes {NAME_RULE}"
            )
        self._seen[name] = place

    def _properties(self, given: Mapping[str, Any], place: str) -> dict[str, str]:
        """Properties as given at one place: texts, and known ones; an empty text is the default."""
        taken: dict[str, str] = {}
        for key, raw in given.items():
            try:
                value = self._take(key, raw, self._directory)
            except ValueError as error:
                raise self._document.error(f"{place}.{key}", str(error)) from None
            if not isinstance(value, str):
                raise self._document.error(f"{place}.{key}", "a property's value is one text")
            if value and (wrong := self._check(key, value)):
                raise self._document.error(f"{place}.{key}", wrong)
            taken[key] = value
        return taken

    def _command(self, run: str | list[str] | None, place: str) -> tuple[str, ...]:
        if isinstance(run, str):
            return ("/bin/sh", "-c", run) if run.strip() else ()
        if run and not run[0]:
            raise self._document.error(f"{place}.run", "the first word, the program, is empty")
        return tuple(run or ())

    def _link_local(self, text: str | None, place: str) -> str | None:
        """RFC 3927 section 2.1: 169.254.1.0 to 169.254.254.255 can be claimed."""
        if text is None:
            return None
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            address = ipaddress.IPv4Address(0)
        if not addresses.claimable(int(address)):
            low, high = addresses.to_text(addresses.FIRST), addresses.to_text(addresses.LAST)
            raise self._document.error(
                f"{place}.last_address", f"{text!r} is not an address from {low} to {high}"
            )
        if int(address) == addresses.METADATA:
            raise self._document.error(
                f"{place}.last_address", f"{address} is the metadata service's, and no guest's"
            )
        return str(address)


def _given(*said: bool | None) -> bool | None:
    """The first value that is given."""
    return next((one for one in said if one is not None), None)


def _grace(shutdown: str | float | None) -> float | None:
    if isinstance(shutdown, str):
        return SOFT if shutdown == "soft" else 0.0
    return shutdown


def _named(node: str, guests: int | list[str | GuestEntry]) -> Iterator[GuestEntry]:
    if isinstance(guests, int):
        yield from (GuestEntry(name=f"{node}-{number}") for number in range(1, guests + 1))
    else:
        yield from (GuestEntry(name=one) if isinstance(one, str) else one for one in guests)


def _first(own: int | None, node: int | None, default: int) -> int:
    return next(one for one in (own, node, default) if one is not None)


def _dialects(lab: DialectsEntry, node: DialectsEntry) -> Dialects:
    """What is on at a node: the node's word goes before the lab's, option by option."""

    def on(name: str, default: bool = True) -> bool:
        said = [getattr(entry, name) for entry in (node, lab)]
        return next((one is not False for one in said if one is not None), default)

    def option(kind: type[AzureEntry] | type[Ec2Entry], name: str, key: str) -> Any:
        options = (getattr(entry, name) for entry in (node, lab))
        values = (getattr(one, key) for one in options if isinstance(one, kind))
        return next((value for value in values if value is not None), None)

    return Dialects(
        azure_v1=on("azure_v1"),
        azure=on("azure"),
        ec2=on("ec2"),
        gce=on("gce"),
        openstack=on("openstack", False),
        azure_rate=option(AzureEntry, "azure", "rate"),
        azure_events_delay=option(AzureEntry, "azure", "events_delay"),
        azure_incarnation_restarts=option(AzureEntry, "azure", "incarnation_restarts"),
        ec2_imdsv1=option(Ec2Entry, "ec2", "imdsv1"),
        ec2_hop_limit=option(Ec2Entry, "ec2", "hop_limit"),
    )
