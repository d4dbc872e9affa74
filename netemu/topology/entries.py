"""The structure of a lab file as its author writes it, and the words for errors in it. Pure."""

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from netemu.errors import BadInput
from netemu.impairment import plan
from netemu.topology.document import Document
from netemu.topology.lab import MAX_GUESTS_PER_NODE, MAX_HOP_LIMIT, SOFT, Policy
from netemu.topology.machine import MachineEntry

# Every node has two processes of its own: a greater number is a typing error.
MAX_NODES = 256
# One bridge joins all guests that have a tenant interface.
MAX_TENANTS = MAX_GUESTS_PER_NODE
# Addresses of one guest on the tenant network: for a client that stands for many.
MAX_TENANT_ADDRESSES = 64
# Processes of one node's responder: the responder's own limit.
MAX_PROCESSES = 64
# Requests a second of one guest: a higher limit never takes effect.
MAX_RATE = 1_000_000
# Directories that guests may write to; each is a mount of every guest's.
MAX_SHARED = 16
# The kernel's PATH_MAX, less its NUL.
MAX_PATH = 4095
MAX_EVENTS_DELAY = 600.0
# Entries; a guest has fewer.
MAX_FAULTS = 1024
# A namespace is a file name, a host name and a label in a picture: RFC 1123's 63 characters, and
# dots and underscores because hosts have them.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
NAME_RULE = "1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"

Name = Annotated[str, Meta(description=NAME_RULE, pattern=f"^{NAME.pattern}$")]
Domain = Annotated[int, Meta(ge=0, le=255, description="A small number, as clouds count them.")]
# Their values are texts, as they are written: `Document` sees to that, `labfile` to the rest.
Properties = Annotated[
    dict[str, Any],
    Meta(
        description="What the metadata service tells of guests, by dotted key: vm_size, tags.team. "
        "A guest's go before its node's, a node's before the lab's; an empty one is the default.",
        extra_json_schema={
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]}
        },
    ),
]


Run = Annotated[
    str | Annotated[list[str], Meta(min_length=1)] | None,
    Meta(
        description="What the guest runs at boot: a shell's command line, or a list of words. It "
        "starts in the lab file's directory; 'netemu logs GUEST' shows what it says."
    ),
]
Tenant = Annotated[
    bool | Annotated[int, Meta(ge=1, le=MAX_TENANT_ADDRESSES)] | None,
    Meta(
        description="Whether the guest has an interface eth1 on the lab's tenant network, "
        "198.18.0.0/15; a number is how many addresses it has there."
    ),
]


MAX_GRACE = 3600.0
Shutdown = Annotated[
    Literal["soft", "hard"] | Annotated[float, Meta(ge=0, le=MAX_GRACE)] | None,
    Meta(
        description="How the guest is shut down: 'soft' asks its programs to end and kills those"
        f" that are left after {SOFT:g} seconds, a number after so many; 'hard' cuts its power."
        " Default: as its node's first dialect's cloud does, by type and source of the event."
    ),
]


class AzureEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Options of Azure's service; that any is given switches it on."""

    rate: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_RATE)] | None,
        Meta(description="Requests a second that one guest may make; 0 is any number."),
    ] = None
    events_delay: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_EVENTS_DELAY)] | None,
        Meta(
            description="Seconds that a first request for scheduled events waits, as does the first"
            " after a day without any; 0 by default, up to two minutes in Azure."
        ),
    ] = None
    incarnation_restarts: Annotated[
        bool | None,
        Meta(
            description="Whether DocumentIncarnation starts again when a guest changes its node;"
            " false by default."
        ),
    ] = None


class Ec2Entry(msgspec.Struct, forbid_unknown_fields=True):
    """Options of EC2's service; that any is given switches it on."""

    imdsv1: Annotated[
        bool | None, Meta(description="Whether requests without a token are answered.")
    ] = None
    hop_limit: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_HOP_LIMIT)] | None,
        Meta(description="The IP TTL with which a token leaves."),
    ] = None


class DialectsEntry(msgspec.Struct, forbid_unknown_fields=True, rename={"azure_v1": "azure-v1"}):
    """The clouds whose service the responder speaks: all but OpenStack, unless they are false."""

    azure_v1: Annotated[bool | None, Meta(description="Azure's service of 2015.")] = None
    azure: Annotated[bool | AzureEntry | None, Meta(description="Azure's IMDS.")] = None
    ec2: Annotated[bool | Ec2Entry | None, Meta(description="EC2's IMDS.")] = None
    gce: Annotated[bool | None, Meta(description="GCE's metadata server.")] = None
    openstack: Annotated[
        bool | None, Meta(description="OpenStack's metadata, which is off by default.")
    ] = None


Link = Annotated[
    dict[str, Any] | None,
    Meta(
        description="What is wrong with the wire once the lab is up, in netem's words: delay, "
        "loss, rate and more, for both directions, or in 'to:' and 'from:' the guest. 'seed:' is "
        "where its random numbers begin, 'schedule:' a list of changes with 'at:', 'for:', "
        "'every:', 'times:'.",
        extra_json_schema={"properties": plan.schema()},
    ),
]


Dhcp = Annotated[
    bool | None,
    Meta(
        description="Whether the node leases the guest its address by DHCP, as clouds do. Default: "
        "false, for a lab is RFC 3927's."
    ),
]


class GuestsEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the file may say of one guest, or of all guests of a node."""

    run: Run = None
    tenant: Tenant = None
    link: Link = None
    tenant_link: Link = None
    shutdown: Shutdown = None
    dhcp: Dhcp = None
    properties: Properties = {}


class GuestEntry(GuestsEntry, forbid_unknown_fields=True, kw_only=True):
    """One guest, where more than its name is to be said."""

    name: Annotated[Name, Meta(description=f"The guest's name: {NAME_RULE}.")]
    update_domain: Annotated[
        Domain | None, Meta(description="Default: the node's, else the guest's place in the list.")
    ] = None
    fault_domain: Annotated[Domain | None, Meta(description="Default: the node's.")] = None
    availability_set: Annotated[
        Name | None, Meta(description="Guests of one set see each other's events.")
    ] = None
    last_address: Annotated[
        str | None,
        Meta(description="The 169.254/16 address it had before: its first candidate now."),
    ] = None
    machine: Annotated[
        MachineEntry | None,
        Meta(description="A machine with a kernel of its own, emulated by QEMU; else a namespace."),
    ] = None


class NodeEntry(GuestsEntry, forbid_unknown_fields=True, kw_only=True):
    """One node and its guests."""

    guests: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_GUESTS_PER_NODE)] | list[Name | GuestEntry],
        Meta(description="A list of guests, or how many: they are then called NODE-1, NODE-2, …"),
    ]
    machine: Annotated[
        Name | None,
        Meta(description="Of a lab on several machines, that which the node is on; see 'join'."),
    ] = None
    fault_domain: Annotated[
        Domain | None, Meta(description="Default: the node's place in the file.")
    ] = None
    update_domain: Annotated[
        Domain | None, Meta(description="Default: each guest its own, by its place on the node.")
    ] = None
    availability_set: Annotated[
        Name | None, Meta(description="That of the node's guests, but for those with another.")
    ] = None
    processes: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_PROCESSES)],
        Meta(description="Processes of the node's responder, which share its guests: one a core."),
    ] = 1
    dialects: DialectsEntry = msgspec.field(default_factory=DialectsEntry)


Length = float | str
"""Seconds, or a text such as 10s."""


class FaultEntry(msgspec.Struct, forbid_unknown_fields=True, rename={"lasting": "for"}):
    """How the metadata service misbehaves towards guests."""

    guests: Annotated[
        Name | list[Name] | None, Meta(description="Whose requests meet it; default: all guests'.")
    ] = None
    path: Annotated[str | None, Meta(description="Of requests, as a shell's pattern.")] = None
    method: Annotated[str | list[str] | None, Meta(description="Of requests; default: any.")] = None
    at: Annotated[Length | None, Meta(description="When it begins, from the lab's start on.")] = (
        None
    )
    lasting: Annotated[Length | None, Meta(description="How long it lasts.")] = None
    times: Annotated[int | None, Meta(description="How many requests meet it.")] = None
    status: Annotated[int | None, Meta(description="The answer is this, 400 to 599.")] = None
    throttle: Annotated[Length | None, Meta(description="429 above this rate: 1, 5/s, 30/m.")] = (
        None
    )
    stale: Annotated[bool, Meta(description="Answers are as of when it began.")] = False
    expired: Annotated[bool, Meta(description="Credentials have expired.")] = False
    clock: Annotated[Length | None, Meta(description="The service's clock is so far ahead.")] = None
    garble: Annotated[bool, Meta(description="Bodies are garbage.")] = False
    truncate: Annotated[int | None, Meta(description="Bodies end after so many bytes.")] = None
    delay: Annotated[Length | None, Meta(description="Answers come so much later.")] = None
    reset: Annotated[bool, Meta(description="The connection is reset.")] = False
    hang: Annotated[bool, Meta(description="There is no answer.")] = False
    playbook: Annotated[bool, Meta(description="The eight that a client has to ride out.")] = False


class LabFile(msgspec.Struct, forbid_unknown_fields=True):
    """A lab for netemu: nodes (emulated hosts) and guests (emulated VMs)."""

    nodes: Annotated[dict[Name, NodeEntry], Meta(min_length=1, max_length=MAX_NODES)]
    name: Annotated[Name, Meta(description="What the lab is called while it runs.")] = "lab"
    policy: Annotated[
        Policy,
        Meta(description="Whom a guest may reach: its responder only, or its node's guests too."),
    ] = Policy.RESPONDER_ONLY
    dhcp: Dhcp = None
    ipv6: Annotated[
        bool,
        Meta(
            description="Whether a guest's link speaks IPv6 with its responder, and with nobody"
            " else; false by default."
        ),
    ] = False
    dialects: DialectsEntry = msgspec.field(default_factory=DialectsEntry)
    properties: Properties = {}
    faults: Annotated[
        list[FaultEntry],
        Meta(max_length=MAX_FAULTS, description="Faults of the metadata service."),
    ] = []
    share: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]],
        Meta(
            max_length=MAX_SHARED,
            description="Directories, from the lab file's own, in which guests may write.",
        ),
    ] = []


def schema() -> dict[str, Any]:
    """The JSON schema of the lab file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netemu lab file",
        **msgspec.json.schema(LabFile),
    }


def read(document: Document) -> LabFile:
    """The document as a lab file, or BadInput with the place of what does not fit."""
    try:
        return msgspec.convert(document.value, LabFile)
    except msgspec.ValidationError as error:
        raise _explained(error, document) from None


def _explained(error: msgspec.ValidationError, document: Document) -> BadInput:
    """msgspec's error, with its path turned into a place in the file and a hint added."""
    text, place = _parted(error)
    if "[...]" not in place and not place.startswith("key"):
        return _worded(text, place, "", LabFile, document)
    nodes = document.value.get("nodes")
    for name, value in nodes.items() if isinstance(nodes, dict) else ():
        try:  # msgspec does not name the key
            msgspec.convert(name, Name)
            msgspec.convert(value, NodeEntry)
        except msgspec.ValidationError as inner:
            text, place = _parted(inner)
            return _worded(text, place, f"nodes.{name}", NodeEntry, document)
    return _worded(text, place.partition("[...]")[0], "", LabFile, document)


def _parted(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and where."""
    text, _, path = str(error).partition(" - at `")
    return text, path.rstrip("`").removeprefix("$").removeprefix(".")


def _worded(
    text: str, place: str, above: str, kind: type[msgspec.Struct], document: Document
) -> BadInput:
    """The error in a lab file's words: what is at `place` within an entry of this `kind`."""
    whole = ".".join(filter(None, (above, place)))
    if match := re.search(_UNKNOWN, text):
        fields = _fields(_LEVELS.get(re.sub(r"\[.*?\]", "", place), kind))
        return document.error(".".join(filter(None, (whole, match[1]))), _unknown(match[1], fields))
    for pattern, words in _WORDS:
        if match := re.search(pattern, text):
            return document.error(whole, words(match))
    return document.error(whole, f"{text[0].lower()}{text[1:]}")


_UNKNOWN = r"^Object contains unknown field `(.*)`"
# What is below a lab or a node, each by the keys that lead to it.
_LEVELS: dict[str, type[msgspec.Struct]] = {
    "guests": GuestEntry,
    "dialects": DialectsEntry,
    "dialects.azure": AzureEntry,
    "dialects.ec2": Ec2Entry,
    "guests.machine": MachineEntry,
}


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    return sorted(field.encode_name for field in msgspec.structs.fields(kind))


def _unknown(key: str, fields: list[str]) -> str:
    close = difflib.get_close_matches(key, fields, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key; {meant}known here are {', '.join(fields)}"


# What msgspec calls types, and what a YAML file's author calls them.
_TYPES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "float": "a number",
    "null": "nothing",
    "bytes": "binary data",
    "datetime": "a time",
    "date": "a date",
}


def _wrong_type(match: re.Match[str]) -> str:
    expected = " or ".join(_TYPES.get(name, name) for name in match[1].split(" | "))
    return f"{expected} is expected here, this is {_TYPES.get(match[2], 'a ' + match[2])}"


_WORDS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"^Expected `([^`]*)`, got `([^`]*)`", _wrong_type),
    (r"matching regex", lambda _: f"this cannot name a namespace: it takes {NAME_RULE}"),
    (r"^Object missing required field `(.*)`", lambda match: f"{match[1]!r} is missing here"),
    (
        r"^Invalid enum value (.*)",
        lambda match: f"{match[1]} is not a policy; it is {' or '.join(Policy)}",
    ),
    (
        rf"<= {MAX_GUESTS_PER_NODE}$",
        lambda _: f"a bridge takes at most {MAX_GUESTS_PER_NODE} guests",
    ),
    (
        r"`array` of length >= 1",
        lambda _: "a program is a command line, or a list of at least one word",
    ),
    (r"of length >= 1", lambda _: "a lab needs at least one node"),
    (r"of length <= ", lambda _: f"a lab takes at most {MAX_NODES} nodes"),
]
