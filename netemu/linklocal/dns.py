"""A name server's messages (RFC 1035): the one question of a query, and the answer to it. Pure.

It knows a few names, each with one address, and refuses all others: it asks nobody.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

PORT: Final = 53
# Seconds for which an answer may be kept.
TTL: Final = 300
# The longest message over UDP without EDNS, which is not supported.
LONGEST: Final = 512

_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!3HIH4s")
_A, _ANY, _INTERNET = 1, 255, 1
_RESPONSE, _AUTHORITY, _RECURSION_WANTED = 0x8000, 0x0400, 0x0100
_OPERATION: Final = 0x7800
_REFUSED: Final = 5
_LONGEST_LABEL: Final = 63
# The question's name, where it stands: a pointer to the byte after the header.
_THE_NAME: Final = 0xC000 | _HEADER.size


class Query(NamedTuple):
    """A query: its number and flags, its name in lower case without the last dot, what of it is
    asked, and the question as it was sent.
    """

    number: int
    flags: int
    name: str
    kind: int
    question: bytes


def parse(data: bytes) -> Query | None:
    """Read a query of one question; None if it is not one."""
    if not _HEADER.size < len(data) <= LONGEST:
        return None
    number, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if flags & (_RESPONSE | _OPERATION) or (questions, answers, authorities) != (1, 0, 0):
        return None
    labels: list[bytes] = []
    at = _HEADER.size
    while at < len(data) and (length := data[at]):
        if length > _LONGEST_LABEL or at + 1 + length >= len(data):
            return None
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5  # the name's last byte, what is asked, and the class
    if end > len(data) or not labels:
        return None
    kind, internet = struct.unpack_from("!2H", data, at + 1)
    if internet not in (_INTERNET, _ANY):
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Query(number, flags, name, kind, data[_HEADER.size : end])


def answer(query: Query, names: Mapping[str, bytes]) -> bytes:
    """The answer: the address of a name that is known, nothing else of such a name, or a refusal.

    `names` are in lower case, with addresses of four bytes.
    """
    address = names.get(query.name)
    flags = _RESPONSE | query.flags & _RECURSION_WANTED
    if address is None:
        return _HEADER.pack(query.number, flags | _REFUSED, 1, 0, 0, 0) + query.question
    flags |= _AUTHORITY
    if query.kind not in (_A, _ANY):
        return _HEADER.pack(query.number, flags, 1, 0, 0, 0) + query.question
    record = _RECORD.pack(_THE_NAME, _A, _INTERNET, TTL, 4, address)
    return _HEADER.pack(query.number, flags, 1, 1, 0, 0) + query.question + record
