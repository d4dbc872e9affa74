"""What is said to etcd's JSON gateway (v3.4 and later), as values. Pure.

Keys are text, values are bytes; the gateway has both in base64. Its 64-bit integers are texts, and
what is 0, false or empty is left out.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

Message: TypeAlias = dict[str, Any]


class Entry(NamedTuple):
    """A key as it is: its value, and the revisions at which it was made and last changed."""

    key: str
    value: bytes
    created: int
    modified: int
    lease: int = 0


class Change(NamedTuple):
    """What has become of a key: its entry, or None if it is gone; and the revision of that."""

    key: str
    entry: Entry | None
    revision: int


class Version(NamedTuple):
    """Compares the revision at which a key was last changed; 0 if the key does not exist."""

    key: str
    modified: int


class Held(NamedTuple):
    """Compares the value of a key. A key that is not there has none."""

    key: str
    value: bytes


class Put(NamedTuple):
    """Set a key. With a `lease`, it goes when that ends."""

    key: str
    value: bytes
    lease: int = 0


class Removal(NamedTuple):
    """Delete a key."""

    key: str


Comparison: TypeAlias = Version | Held
Operation: TypeAlias = Put | Removal


def put(one: Put) -> Message:
    return {"key": _text(one.key), "value": _bytes(one.value), "lease": str(one.lease)}


def one_key(key: str) -> Message:
    return {"key": _text(key)}


def under(prefix: str) -> Message:
    """All keys that begin so. The prefix is not empty, and does not end in the last character."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"key": _text(prefix), "range_end": _text(end)}


def transaction(comparisons: Iterable[Comparison], operations: Iterable[Operation]) -> Message:
    """Carry the operations out if all comparisons hold; nothing otherwise."""
    return {
        "compare": [_comparison(one) for one in comparisons],
        "success": [_operation(one) for one in operations],
    }


def watch(prefix: str, since: int) -> Message:
    return {"create_request": {**under(prefix), "start_revision": str(since)}}


def entries(answer: Mapping[str, Any]) -> list[Entry]:
    return [_entry(one) for one in answer.get("kvs", ())]


def changes(answer: Mapping[str, Any]) -> list[Change]:
    found = []
    for event in answer.get("events", ()):
        entry = _entry(event["kv"])
        gone = event.get("type") == "DELETE"
        found.append(Change(entry.key, None if gone else entry, entry.modified))
    return found


def succeeded(answer: Mapping[str, Any]) -> bool:
    """Whether a transaction was carried out."""
    return revision(answer) > 0 and answer.get("succeeded") is True


def revision(answer: Mapping[str, Any]) -> int:
    """The store's revision as of the answer."""
    return int(answer["header"]["revision"])


def _comparison(one: Comparison) -> Message:
    if isinstance(one, Held):
        return {"key": _text(one.key), "target": "VALUE", "value": _bytes(one.value)}
    return {"key": _text(one.key), "target": "MOD", "mod_revision": str(one.modified)}


def _operation(one: Operation) -> Message:
    if isinstance(one, Put):
        return {"request_put": put(one)}
    return {"request_delete_range": one_key(one.key)}


def _entry(told: Mapping[str, Any]) -> Entry:
    return Entry(
        key=b64decode(told["key"]).decode(),
        value=b64decode(told.get("value", "")),
        created=int(told.get("create_revision", 0)),
        modified=int(told.get("mod_revision", 0)),
        lease=int(told.get("lease", 0)),
    )


def _text(text: str) -> str:
    return _bytes(text.encode())


def _bytes(data: bytes) -> str:
    return b64encode(data).decode()
