"""The lab file: YAML in, a validated `Lab` out, or one line that says what is wrong and where."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from netemu.errors import BadInput
from netemu.topology.lab import Guest, Lab, Node, Policy, mac_address

DEMO = Path(__file__).with_name("demo.yaml")

# The kernel numbers a bridge's ports in 10 bits and keeps 0 for itself (BR_MAX_PORTS).
MAX_GUESTS_PER_NODE = 1023
# Every node has two processes of its own; more than this is a slip of the pen, not a lab.
MAX_NODES = 256
# A namespace is a file name, a host name and a label in a picture: RFC 1123's 63 characters, and
# dots and underscores because hosts have them.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
NAME_RULE = "1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"

Name = Annotated[str, Meta(description=NAME_RULE, pattern=f"^{NAME.pattern}$")]
Domain = Annotated[int, Meta(ge=0, le=255, description="A small number, as clouds count them.")]


class GuestEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One guest, where more than its name is to be said."""

    name: Annotated[Name, Meta(description=f"The guest's name: {NAME_RULE}.")]
    update_domain: Annotated[
        Domain | None, Meta(description="Default: the node's, else the guest's place in the list.")
    ] = None
    fault_domain: Annotated[Domain | None, Meta(description="Default: the node's.")] = None
    last_address: Annotated[
        str | None,
        Meta(description="The 169.254/16 address it had before: its first candidate now."),
    ] = None


class NodeEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One node and its guests."""

    guests: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_GUESTS_PER_NODE)] | list[Name | GuestEntry],
        Meta(description="A list of guests, or how many: they are then called NODE-1, NODE-2, …"),
    ]
    fault_domain: Annotated[
        Domain | None, Meta(description="Default: the node's place in the file.")
    ] = None
    update_domain: Annotated[
        Domain | None, Meta(description="Default: each guest its own, by its place on the node.")
    ] = None


class LabFile(msgspec.Struct, forbid_unknown_fields=True):
    """A lab for netemu: nodes (emulated hosts) and guests (emulated VMs)."""

    nodes: Annotated[dict[Name, NodeEntry], Meta(min_length=1, max_length=MAX_NODES)]
    name: Annotated[Name, Meta(description="What the lab is called while it runs.")] = "lab"
    policy: Annotated[
        Policy,
        Meta(description="Whom a guest may reach: its responder only, or its node's guests too."),
    ] = Policy.RESPONDER_ONLY


def schema() -> dict[str, Any]:
    """The JSON schema of the lab file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netemu lab file",
        **msgspec.json.schema(LabFile),
    }


def load(path: Path, *, name: str | None = None) -> Lab:
    """Read the lab file at `path`; `name` overrides the lab's. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path}: cannot be read: {reason}") from None
    return parse(text, source=str(path), name=name)


def parse(text: str, *, source: str, name: str | None = None) -> Lab:
    """Read a lab file's `text`; `source` is what errors call it. Raises BadInput."""
    document = _Document(text, source)
    try:
        entry = msgspec.convert(document.value, LabFile)
    except msgspec.ValidationError as error:
        raise document.explain(error) from None
    if name is not None:
        check_name(name, "--name")
        entry.name = name
    return _expand(entry, document)


def check_name(name: str, where: str) -> None:
    """Raise BadInput unless `name` can name a lab, a node or a guest."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{where}: {name!r} cannot name a namespace: it takes {NAME_RULE}")


def _expand(entry: LabFile, document: "_Document") -> Lab:
    """Number and name everything, and refuse what only the whole file can show to be wrong."""
    seen: dict[str, str] = {}
    nodes: list[Node] = []
    mark = 0
    for place, (node_name, node) in enumerate(entry.nodes.items()):
        _once(node_name, f"nodes.{node_name}", seen, document)
        where = f"nodes.{node_name}.guests"
        named = list(_guests(node_name, node.guests))
        if len(named) > MAX_GUESTS_PER_NODE:
            raise document.error(
                where, f"{len(named)} guests: a bridge takes at most {MAX_GUESTS_PER_NODE}"
            )
        node_fault = place if node.fault_domain is None else node.fault_domain
        guests: list[Guest] = []
        for index, guest in enumerate(named):
            update = guest.update_domain
            fault = guest.fault_domain
            at = f"{where}[{index}]" if isinstance(node.guests, list) else where
            _once(guest.name, at, seen, document)
            mark += 1
            own_update = index if node.update_domain is None else node.update_domain
            guests.append(
                Guest(
                    name=guest.name,
                    mark=mark,
                    mac=mac_address(entry.name, guest.name),
                    update_domain=own_update if update is None else update,
                    fault_domain=node_fault if fault is None else fault,
                    last_address=_link_local(guest.last_address, at, document),
                )
            )
        nodes.append(
            Node(name=node_name, mac=mac_address(entry.name, node_name), guests=tuple(guests))
        )
    return Lab(name=entry.name, policy=entry.policy, nodes=tuple(nodes))


def _guests(node: str, guests: int | list[str | GuestEntry]) -> Iterator[GuestEntry]:
    if isinstance(guests, int):
        yield from (GuestEntry(name=f"{node}-{number}") for number in range(1, guests + 1))
    else:
        yield from (GuestEntry(name=one) if isinstance(one, str) else one for one in guests)


def _once(name: str, place: str, seen: dict[str, str], document: "_Document") -> None:
    """Nodes and guests share one space of names: `exec` takes either."""
    if name in seen:
        raise document.error(
            place, f"the name {name!r} is already that of {seen[name]}; names must differ"
        )
    if not NAME.fullmatch(name):
        raise document.error(place, f"{name!r} cannot name a namespace: it takes {NAME_RULE}")
    seen[name] = place


def _link_local(text: str | None, place: str, document: "_Document") -> str | None:
    """RFC 3927 section 2.1: 169.254.1.0 to 169.254.254.255 can be claimed."""
    if text is None:
        return None
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = ipaddress.IPv4Address(0)
    low, high = ipaddress.IPv4Address("169.254.1.0"), ipaddress.IPv4Address("169.254.254.255")
    if not low <= address <= high:
        raise document.error(
            f"{place}.last_address", f"{text!r} is not an address from {low} to {high}"
        )
    return str(address)


class _Document:
    """A YAML text with the line of every value in it, so that errors can point at one."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.lines: dict[str, int] = {}
        self.keys: dict[str, list[str]] = {}
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
                if root is None:
                    raise self.error("", "is empty: a lab needs at least 'nodes:'")
                self._note(root, "", set())
                self.value = loader.construct_document(root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f"line {mark.line + 1}: " if mark else ""
            raise BadInput(f"{source}: {line}not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"{source}: not YAML: {str(error).splitlines()[0]}") from None

    def _note(self, node: yaml.Node, place: str, above: set[int]) -> None:
        """Write down the line of each value; YAML lets a key stand twice, a lab file does not."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in above:
            raise self.error(place, "refers to itself")
        above = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            keys: dict[Hashable, int] = {}
            for key, value in node.value:
                name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
                inner = f"{place}.{name}" if place else name
                line = key.start_mark.line + 1
                if name in keys:
                    self.lines[inner] = line
                    raise self.error(
                        inner, f"stands twice (first on line {keys[name]}); names must differ"
                    )
                keys[name] = line
                self.lines[inner] = line
                self._note(value, inner, above)
            self.keys[place] = [str(key) for key in keys]
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._note(value, f"{place}[{index}]", above)

    def error(self, place: str, text: str) -> BadInput:
        """One line: file, line, place, and what is wrong there."""
        known = place
        while known and known not in self.lines:  # what is missing stands in what surrounds it
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        line = self.lines.get(known)
        parts = [self.source, *([f"line {line}"] if line else []), *([place] if place else [])]
        return BadInput(f"{': '.join(parts)}: {text}")

    def explain(self, error: msgspec.ValidationError) -> BadInput:
        """msgspec's error, with its path turned into a place in the file and a hint added."""
        text, _, path = str(error).partition(" - at `")
        place = path.rstrip("`").removeprefix("$").removeprefix(".")
        if "[...]" in place or place.startswith("key"):  # msgspec does not name the key
            return self._explain_nodes()
        return self._worded(text, place)

    def _explain_nodes(self) -> BadInput:
        for name, value in self.value["nodes"].items():
            try:
                msgspec.convert(name, Name)
                msgspec.convert(value, NodeEntry)
            except msgspec.ValidationError as error:
                text, _, path = str(error).partition(" - at `")
                return self._worded(text, f"nodes.{name}" + path.rstrip("`").removeprefix("$"))
        raise AssertionError("msgspec refused a node that it accepts alone")

    def _worded(self, text: str, place: str) -> BadInput:
        for pattern, words in _WORDS:
            if match := re.search(pattern, text):
                if pattern is _UNKNOWN:
                    place = f"{place}.{match[1]}" if place else match[1]
                return self.error(place, words(match))
        return self.error(place, f"{text[0].lower()}{text[1:]}")


_UNKNOWN = r"^Object contains unknown field `(.*)`"
_FIELDS = sorted(
    {
        field.encode_name
        for kind in (LabFile, NodeEntry, GuestEntry)
        for field in msgspec.structs.fields(kind)
    }
)
# What msgspec calls types, and what a YAML file's author calls them.
_TYPES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "float": "a number",
    "null": "nothing",
}


def _unknown(match: re.Match[str]) -> str:
    close = difflib.get_close_matches(match[1], _FIELDS, n=1)
    meant = f"did you mean {close[0]!r}?" if close else f"known ones are {', '.join(_FIELDS)}"
    return f"unknown key; {meant}"


def _wrong_type(match: re.Match[str]) -> str:
    expected = " or ".join(_TYPES.get(name, name) for name in match[1].split(" | "))
    return f"{expected} is expected here, this is {_TYPES.get(match[2], 'a ' + match[2])}"


_WORDS: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (_UNKNOWN, _unknown),
    (r"^Expected `(.*)`, got `(.*)`", _wrong_type),
    (r"matching regex", lambda _: f"this cannot name a namespace: it takes {NAME_RULE}"),
    (r"^Object missing required field `(.*)`", lambda match: f"{match[1]!r} is missing here"),
    (
        r"^Invalid enum value (.*)",
        lambda match: f"{match[1]} is no policy; it is {' or '.join(Policy)}",
    ),
    (
        rf"<= {MAX_GUESTS_PER_NODE}$",
        lambda _: f"a bridge takes at most {MAX_GUESTS_PER_NODE} guests",
    ),
    (r"of length >= 1", lambda _: "a lab needs at least one node"),
    (r"of length <= ", lambda _: f"a lab takes at most {MAX_NODES} nodes"),
]
