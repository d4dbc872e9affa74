"""Tables that lose nothing: whole in a pipe, and fitted to a terminal column by column."""

import shutil
import sys
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from rich.cells import cell_len

from hostagent.terminal.output import Part, Styled, painted, say_painted, visible

_GAP: Final = "  "
# A column that is folded is at least so wide: a name or an address stays in one piece.
_LEAST_FOLD: Final = 16
# A beginning of an ID shorter than this looks like none.
_LEAST_ID: Final = 8


class Column(NamedTuple):
    """A column and what becomes of it on a terminal that is too narrow.

    Columns with a `rank` are left out, the highest first; those of rank 0 never. `folds` breaks
    long text into lines. `ids` are all known IDs: the cells become unique beginnings of them.
    """

    heading: str
    rank: int = 0
    right: bool = False
    folds: bool = False
    ids: Collection[str] | None = None


def beginning(whole: str, known: Collection[str]) -> str:
    """Return the shortest beginning of an ID, of eight characters or more, that no other has."""
    for length in range(_LEAST_ID, len(whole)):
        if not any(one != whole and one.startswith(whole[:length]) for one in known):
            return whole[:length]
    return whole


def print_table(columns: Iterable[Column], rows: Iterable[Iterable[Part]]) -> None:
    """Print a table on standard output."""
    for line in lines(columns, rows, width()):
        say_painted(line)


def width() -> int | None:
    """The columns of the terminal that is written to; None if it is none, and nothing is cut."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def lines(columns: Iterable[Column], rows: Iterable[Iterable[Part]], room: int | None) -> list[str]:
    """Lay a table out in so many columns of a terminal (None: any number).

    If even the columns that have to stay do not fit, their lines are longer than the terminal,
    which wraps them.
    """
    columns, body = list(columns), [[_safe(cell) for cell in row] for row in rows]
    left_out: list[str] = []
    if room is not None and _needed(columns, body) > room:
        body = [
            [
                Styled(beginning(cell.text, column.ids), cell.style) if column.ids else cell
                for column, cell in zip(columns, row, strict=True)
            ]
            for row in body
        ]
        while _needed(columns, body) > room and any(column.rank for column in columns):
            place = max(range(len(columns)), key=lambda one: (columns[one].rank, one))
            left_out.insert(0, columns.pop(place).heading)
            for row in body:
                row.pop(place)
    widths = [_width(column, place, body) for place, column in enumerate(columns)]
    if room is not None:
        widths = _folded(columns, widths, room)
    heading = [[Styled(column.heading, "bold") for column in columns]]
    made = [
        line for row in (*heading, *body) for line in _row(columns, row, widths, room is not None)
    ]
    if left_out:
        made.append(painted(Styled(f"(no room for {', '.join(left_out)})", "dim")))
    return made


def _safe(cell: Part) -> Styled:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Styled(visible(text), style)


def _width(column: Column, place: int, body: list[list[Styled]]) -> int:
    return max(cell_len(text) for text in (column.heading, *(row[place].text for row in body)))


def _needed(columns: list[Column], body: list[list[Styled]]) -> int:
    widths = (
        min(width, _LEAST_FOLD) if column.folds else width
        for column, width in (
            (column, _width(column, place, body)) for place, column in enumerate(columns)
        )
    )
    return sum(widths) + len(_GAP) * (len(columns) - 1)


def _folded(columns: list[Column], widths: list[int], room: int) -> list[int]:
    """The widths, with what is too much taken from the columns that fold."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    for place, column in enumerate(columns):
        if column.folds and excess > 0:
            taken = min(excess, max(0, widths[place] - _LEAST_FOLD))
            widths[place] -= taken
            excess -= taken
    return widths


def _row(columns: list[Column], row: list[Styled], widths: list[int], folding: bool) -> list[str]:
    """The lines of one row: several if a cell is folded."""
    pieces = [
        _fold(cell.text, width) if folding and column.folds else [cell.text]
        for column, cell, width in zip(columns, row, widths, strict=True)
    ]
    made = []
    for number in range(max(map(len, pieces))):
        parts: list[Part] = []
        pending = ""  # blanks that are written if anything comes after them
        for column, cell, width, texts in zip(columns, row, widths, pieces, strict=True):
            text = texts[number] if number < len(texts) else ""
            blank = " " * (width - cell_len(text))
            before, after = (blank, "") if column.right else ("", blank)
            if text:
                parts += [pending + before, Styled(text, cell.style)]
                pending = after + _GAP
            else:
                pending += blank + _GAP
        made.append(painted(*parts))
    return made


def _fold(text: str, width: int) -> list[str]:
    """Break a text between words into lines of this width; a longer word stays in one piece."""
    made = [""]
    for word in text.split(" "):
        joined = f"{made[-1]} {word}" if made[-1] else word
        if cell_len(joined) <= width or not made[-1]:
            made[-1] = joined
        else:
            made.append(word)
    return made
