"""A lab as SVG, in the style of the README's picture. Pure.

Nodes stand side by side, each with agent, responder and bridge above its guests. Few guests are
drawn with their ports; many as tiles with name, address and event; very many as coloured dots with
their names as tooltips and a list of those that have an event or are away.
"""

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil
from typing import Final, NamedTuple

from netemu.drawing.scene import METADATA, Guest, Node, Scene
from netemu.interfaces import BRIDGE

_INK, _FAINT, _PALE = "#1c2733", "#5b6b7b", "#8898a8"
_MONO: Final = 'font-family="monospace"'
# Fill, line, and the colour of the text.
_COLOURS: Final = {
    "well": ("#f7f9fb", "#b4c1cd", "#8898a8"),
    "warned": ("#fff6e0", "#e0a100", "#966400"),
    "struck": ("#fde4df", "#c8442b", "#a83218"),
    "away": ("#e9edf1", "#8898a8", "#5b6b7b"),
}
_MARGIN, _GAP, _INNER = 20, 20, 20
_HEAD: Final = 64  # the lab's name and caption
# In a node: its name, agent and responder stand above the bridge.
_BRIDGE_TOP, _BRIDGE_HEIGHT = 88, 40


class Grid(NamedTuple):
    """How guests are laid out: size, distance, and how many fit in a row."""

    width: int
    height: int
    step_x: int
    step_y: int
    columns: int
    most: int  # guests on a node; more are drawn smaller
    rows_of_nodes: int  # nodes side by side, at most


_WIRED: Final = Grid(120, 66, 130, 66, 4, 4, 2)
_TILES: Final = Grid(122, 48, 130, 56, 6, 48, 2)
_DOTS: Final = Grid(12, 12, 17, 17, 40, 100_000, 2)
_WIRE_LENGTH: Final = 92
# Lines of text below the dots, for guests that have an event or are away.
_NOTES: Final = 12
_NOTE_HEIGHT: Final = 17
# A node is wide enough for its agent and its responder.
_LEAST_WIDTH: Final = 390
_SERVICES_WIDTH: Final = 330
# Characters shown of a node's name and of a note.
_LONGEST_NAME, _LONGEST_NOTE = 30, 100


def svg(scene: Scene) -> str:
    """Return the scene as SVG. Its own light background keeps it legible on dark pages."""
    most = max((len(node.guests) for node in scene.nodes), default=0)
    grid = next(one for one in (_WIRED, _TILES, _DOTS) if most <= one.most)
    columns = max(1, min(grid.columns, most))
    longest = max((len(node.name) for node in scene.nodes), default=0)
    least = max(_LEAST_WIDTH, _SERVICES_WIDTH + 9 * min(longest, _LONGEST_NAME))
    inner = max(least, columns * grid.step_x - (grid.step_x - grid.width))
    width = inner + 2 * _INNER
    side_by_side = max(1, min(grid.rows_of_nodes, len(scene.nodes)))
    if grid is not _DOTS and width * 3 < 1500:
        side_by_side = max(1, min(3, len(scene.nodes)))
    if len(scene.nodes) == 4 and side_by_side == 3:
        side_by_side = 2  # two and two
    body: list[str] = []
    top = _HEAD
    for first in range(0, len(scene.nodes), side_by_side):
        row = scene.nodes[first : first + side_by_side]
        height = max(_node_height(node, grid, inner) for node in row)
        for place, node in enumerate(row):
            left = _MARGIN + place * (width + _GAP)
            body += _node(node, grid, left, top, inner, height)
        top += height + _GAP
    whole = 2 * _MARGIN + side_by_side * width + (side_by_side - 1) * _GAP
    bottom = top - _GAP + _MARGIN
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {bottom}" '
        f'width="{whole}" height="{bottom}" font-family="Helvetica, Arial, sans-serif" role="img">',
        f"<title>{escape(scene.name)}: {escape(scene.caption)}</title>",
        f'<rect width="{whole}" height="{bottom}" rx="12" fill="#ffffff"/>',
        _rect(6, 6, whole - 12, bottom - 12, 10, "#f5f7fa", "#9fb0c0", 'stroke-dasharray="6 5"'),
        _text(_MARGIN + 4, 40, scene.name, 20, bold=True),
        _text(whole - _MARGIN - 4, 40, scene.caption, 13, _FAINT, anchor="end"),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _node_height(node: Node, grid: Grid, inner: int) -> int:
    rows = ceil(len(node.guests) / _columns(grid, inner))
    guests = rows * grid.step_y - (grid.step_y - grid.height) if rows else 0
    notes = _NOTE_HEIGHT * len(_notes(node)) + 14 if grid is _DOTS and _notes(node) else 0
    return _guests_top(grid) + guests + notes + 18


def _columns(grid: Grid, inner: int) -> int:
    return max(1, (inner + grid.step_x - grid.width) // grid.step_x)


def _guests_top(grid: Grid) -> int:
    below = _BRIDGE_TOP + _BRIDGE_HEIGHT
    return below + (_WIRE_LENGTH if grid is _WIRED else 18)


def _node(node: Node, grid: Grid, left: int, top: int, inner: int, height: int) -> Iterator[str]:
    line = "#c8442b" if node.failed else "#c5d0db"
    yield _rect(left, top, inner + 2 * _INNER, height, 10, "#ffffff", line)
    yield _text(left + 16, top + 24, _short(node.name, _LONGEST_NAME), 15, bold=True)
    yield _services(node, left + _INNER, top, inner)
    middle = left + _INNER + inner / 2
    y = top + _BRIDGE_TOP
    yield _rect(left + _INNER, y, inner, _BRIDGE_HEIGHT, 8, "#e9edf1", "#8898a8")
    yield _text(middle, y + 18, f"bridge {BRIDGE}", 13, bold=True, anchor="middle")
    yield _text(middle, y + 33, METADATA, 11, anchor="middle", more=_MONO)
    draw = {_WIRED: _wired, _TILES: _tile, _DOTS: _dot}[grid]
    columns = _columns(grid, inner)
    across = min(columns, len(node.guests)) * grid.step_x - (grid.step_x - grid.width)
    start = left + _INNER + (inner - across) / 2 if grid is _WIRED else left + _INNER
    for place, guest in enumerate(node.guests):
        row, column = divmod(place, columns)
        x = start + column * grid.step_x
        yield from draw(guest, x, top + _guests_top(grid) + row * grid.step_y)
    if grid is _DOTS:
        rows = ceil(len(node.guests) / columns)
        y = top + _guests_top(grid) + rows * grid.step_y + 14
        for place, note in enumerate(_notes(node)):
            yield _text(
                left + _INNER, y + place * _NOTE_HEIGHT, _short(note, _LONGEST_NOTE), 11.5, _FAINT
            )


def _services(node: Node, left: int, top: int, inner: int) -> str:
    """Draw agent and responder and their connections, or that the node has failed."""
    if node.failed:
        said = "failed: no agent, no responder"
        return _text(left + inner, top + 38, said, 14, "#c8442b", bold=True, anchor="end")
    agent, responder = left + inner - 316, left + inner - 136
    arrow = 'stroke="#6a9cc4" stroke-width="2"'
    up_down = 'stroke="#d6914a" stroke-width="2"'
    y = top + 14
    return "\n".join(
        (
            _rect(agent, y, 140, 36, 8, "#e3eef7", "#6a9cc4"),
            _text(agent + 70, y + 23, "host agent", 13, anchor="middle"),
            _rect(responder, y, 136, 36, 8, "#fdecd8", "#d6914a"),
            _text(responder + 68, y + 23, "responder :80", 13, anchor="middle"),
            f'<line x1="{agent + 140}" y1="{y + 18}" x2="{responder - 6}" y2="{y + 18}" {arrow}/>',
            _triangle(responder, y + 18, -7, 0, "#6a9cc4"),
            f'<line x1="{responder + 68}" y1="{y + 42}" x2="{responder + 68}" '
            f'y2="{top + _BRIDGE_TOP - 6}" {up_down}/>',
            _triangle(responder + 68, top + _BRIDGE_TOP, 0, -7, "#d6914a"),
            _triangle(responder + 68, y + 36, 0, 7, "#d6914a"),
        )
    )


def _wired(guest: Guest, x: float, y: float) -> Iterator[str]:
    """Draw a guest below its guarded port."""
    middle = x + _WIRED.width / 2
    dash = ' stroke-dasharray="3 4"' if guest.mood == "away" else ""
    yield (
        f'<line x1="{middle:g}" y1="{y - _WIRE_LENGTH:g}" x2="{middle:g}" y2="{y:g}" '
        f'stroke="{_FAINT}" stroke-width="2"{dash}/>'
    )
    yield _rect(middle - 46, y - 66, 92, 32, 6, "#e5f4e8", "#58a368")
    yield _text(middle, y - 46, f"guard  {guest.port}", 11, bold=True, anchor="middle")
    fill, line, said = _COLOURS[guest.mood]
    yield _rect(x, y, _WIRED.width, _WIRED.height, 8, fill, line, _stroke(guest))
    yield _text(middle, y + 21, _short(guest.name, 15), 14, bold=True, anchor="middle")
    yield _text(middle, y + 38, guest.address, 10.5, anchor="middle", more=_MONO)
    yield _text(middle, y + 55, _short(guest.says or "{}", 21), 10.5, said, anchor="middle")


def _tile(guest: Guest, x: float, y: float) -> Iterator[str]:
    """Draw a guest with its address, port and event."""
    fill, line, said = _COLOURS[guest.mood]
    yield f"<g><title>{escape(_whole(guest))}</title>"
    yield _rect(x, y, _TILES.width, _TILES.height, 6, fill, line, _stroke(guest))
    yield _text(x + 8, y + 15, _short(guest.name, 13), 12, bold=True)
    yield _text(x + _TILES.width - 8, y + 15, guest.port, 9.5, _PALE, anchor="end")
    yield _text(x + 8, y + 29, guest.address, 10, more=_MONO)
    if guest.says:
        yield _text(x + 8, y + 42, _short(guest.says, 21), 10, said)
    yield "</g>"


def _dot(guest: Guest, x: float, y: float) -> Iterator[str]:
    _, line, _ = _COLOURS[guest.mood]
    # A dot is too small for a pale fill: a guest that is not well has its line's colour.
    colour = "#dbe7df" if guest.mood == "well" else line
    edge = "#9dbfa6" if guest.mood == "well" else line
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{_DOTS.width}" height="{_DOTS.height}" rx="3" '
        f'fill="{colour}" stroke="{edge}"><title>{escape(_whole(guest))}</title></rect>'
    )


def _notes(node: Node) -> Sequence[str]:
    """Return a line for each event or state, with the guests that share it."""
    said: dict[str, list[str]] = {}
    for guest in node.guests:
        if guest.says:
            said.setdefault(guest.says, []).append(guest.name)
    notes = [
        f"{says}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for says, names in said.items()
    ]
    if len(notes) > _NOTES:
        return [*notes[: _NOTES - 1], f"… and {len(notes) - _NOTES + 1} more events"]
    return notes


def _whole(guest: Guest) -> str:
    return ", ".join(filter(None, (guest.name, guest.address, guest.port, guest.says)))


def _stroke(guest: Guest) -> str:
    return 'stroke-width="2"' if guest.mood in ("warned", "struck") else ""


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _rect(
    x: float, y: float, width: float, height: float, radius: int, fill: str, line: str,
    more: str = "",
) -> str:  # fmt: skip
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" '
        f'fill="{fill}" stroke="{line}"{f" {more}" if more else ""}/>'
    )


def _text(
    x: float, y: float, text: str, size: float, colour: str = _INK, *,
    bold: bool = False, anchor: str = "start", more: str = "",
) -> str:  # fmt: skip
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"'
        f"{weight}{f' {more}' if more else ''}>{escape(text)}</text>"
    )


def _triangle(x: float, y: float, back_x: float, back_y: float, colour: str) -> str:
    """Draw an arrowhead with its point at (x, y) and its base (back_x, back_y) behind it."""
    half_x, half_y = back_y * 0.6, back_x * 0.6
    base_x, base_y = x + back_x, y + back_y
    return (
        f'<path d="M{x:g} {y:g} L{base_x + half_x:g} {base_y + half_y:g} '
        f'L{base_x - half_x:g} {base_y - half_y:g} z" fill="{colour}"/>'
    )
