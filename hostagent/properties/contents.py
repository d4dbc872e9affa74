"""Properties that are bytes, kept as text: user data. Pure."""

from base64 import b64decode, b64encode
from typing import Final

_DATA: Final = "data:;base64,"  # RFC 2397


def content(text: str) -> bytes:
    """Return the bytes of a text that may be a data URL: what user data is."""
    if text.startswith(_DATA):
        return b64decode(text[len(_DATA) :], validate=True)
    return text.encode()


def data_url(raw: bytes) -> str:
    """Return bytes as a property's value: text if they are, or a data URL."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if text and "\0" not in text and not text.startswith(_DATA):
        return text
    return _DATA + b64encode(raw).decode() if raw else ""


def is_content(text: str) -> bool:
    """Whether the text stands for bytes: it is one, or a whole data URL."""
    try:
        content(text)
    except ValueError:
        return False
    return True
