"""DER, as far as signed documents need it (ITU-T X.690). Pure."""

from base64 import b64decode, encodebytes
from collections.abc import Iterator
from typing import Final

INTEGER, BITS, OCTETS, NULL, OID = 0x02, 0x03, 0x04, 0x05, 0x06
TEXT, UTC_TIME, TIME, SEQUENCE, SET = 0x0C, 0x17, 0x18, 0x30, 0x31
CONTEXT: Final = 0xA0
"""Tag [0]; [1] and so on follow."""


class DerError(ValueError):
    """The bytes are not DER, or not the structure that is expected."""


def made(tag: int, *parts: bytes) -> bytes:
    """Return one value."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(number: int) -> bytes:
    """Return a number that is not negative."""
    return made(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def values(raw: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Return the values that follow each other: tag, content, and the whole. Raises DerError."""
    while raw:
        if len(raw) < 2:
            raise DerError("cut off")
        size, start = raw[1], 2
        if size >= 0x80:
            start += size - 0x80
            size = int.from_bytes(raw[2:start], "big")
        if len(raw) < start + size:
            raise DerError("cut off")
        yield raw[0], raw[start : start + size], raw[: start + size]
        raw = raw[start + size :]


def below(raw: bytes, *path: int) -> list[tuple[int, bytes, bytes]]:
    """Return the values below a value: of its first value, then by the path. Raises DerError."""
    listed = list(values(raw))
    for place in (0, *path):
        if place >= len(listed):
            raise DerError("it is shorter than expected")
        listed = list(values(listed[place][1]))
    return listed


def pem(label: str, der: bytes) -> bytes:
    """Return DER as PEM (RFC 7468)."""
    lines = encodebytes(der).replace(b"\n", b"")
    rows = [lines[start : start + 64] for start in range(0, len(lines), 64)]
    name = label.encode()
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, b"\n".join(rows), name)


def from_pem(label: str, text: bytes) -> bytes:
    """Return the DER of the first part with the label. Raises DerError."""
    name = label.encode()
    _, begin, rest = text.partition(b"-----BEGIN %b-----" % name)
    body, end, _ = rest.partition(b"-----END %b-----" % name)
    if not begin or not end:
        raise DerError(f"there is no {label}")
    try:
        return b64decode(b"".join(body.split()), validate=True)
    except ValueError as error:
        raise DerError(f"{label}: {error}") from error
