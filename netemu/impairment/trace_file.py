"""Reads a trace from its file, for lab files and the command line."""

from pathlib import Path
from typing import Final

from netemu.errors import BadInput
from netemu.impairment import trace

# So many opportunities, of the longest numbers.
_MAX_BYTES: Final = 12 * trace.MAX_OPPORTUNITIES


def load(path: Path) -> bytes:
    """The trace in the file, packed. Raises BadInput."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise BadInput(f"{path}: is longer than {_MAX_BYTES:,} bytes")
        return trace.pack(trace.read(text.decode()))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not a trace: it is not UTF-8 text") from None
    except ValueError as error:  # a NUL in the path is one, too
        raise BadInput(f"{path}: is not a trace: {error}") from None
