"""Reports the results of rows: table, JSON, JUnit, HTML, SVG, captures.

A report has columns of results side by side: the two policies of one lab, the labs of a proof, or
the rule sets of a comparison.
"""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from scapy.layers.l2 import Ether
from scapy.utils import hexdump, wrpcap

from hostagent.terminal import table
from hostagent.terminal.output import Part, Styled
from hostagent.terminal.table import print_table
from netemu.conformance.row import Result, Row

# How much of a failing row is shown: frames, and lines of a decoded frame.
_FRAMES_SHOWN: Final = 4
_COLOURS: Final = {"ok": "#2e7d32", "wrong": "#c62828", "harm": "#ef6c00", "none": "#bdbdbd"}
_MEANING: Final = {
    "ok": "as the policy asks",
    "wrong": "another verdict",
    "harm": "right verdict, but the honest guest was not served",
    "none": "not played",
}


@dataclass(frozen=True, slots=True)
class Column:
    """Results under one heading, by the rows' numbers."""

    name: str
    results: Mapping[str, Result]


Rows = Sequence[tuple[str, Row]]


def mark(result: Result | None) -> str:
    """The class of a result: ok, wrong, harm or none."""
    if result is None:
        return "none"
    if result.ok:
        return "ok"
    return "harm" if result.observed == result.expected else "wrong"


def print_matrix(rows: Rows, columns: Sequence[Column]) -> None:
    """Print the matrix, with the expected verdicts beside it."""
    print_table(
        [
            table.Column("ROW"),
            table.Column("WHAT IS TRIED", rank=1, folds=True),
            table.Column("EXPECTED", rank=2),
            *(table.Column(column.name.upper()) for column in columns),
        ],
        _cells(rows, columns),
    )


def _cells(rows: Rows, columns: Sequence[Column]) -> Iterable[list[Part]]:
    styles = {"ok": "green", "wrong": "bold red", "harm": "yellow", "none": "dim"}
    family = ""
    for of_family, row in sorted(rows, key=lambda one: (_families(rows)[one[0]], one[1].id)):
        if of_family != family:
            family = of_family
            yield ["", Styled(family, "bold"), *[""] * (1 + len(columns))]
        results = [column.results.get(row.id) for column in columns]
        expected = sorted({result.expected for result in results if result})
        yield [
            row.id,
            row.title,
            " / ".join(expected),
            *(
                Styled(
                    f"{'✓' if mark(result) == 'ok' else '✗'} {result.observed}",
                    styles[mark(result)],
                )
                if result
                else Styled("-", "dim")
                for result in results
            ),
        ]


def _families(rows: Rows) -> dict[str, int]:
    return {family: place for place, family in enumerate(dict.fromkeys(one[0] for one in rows))}


def as_json(columns: Sequence[Column]) -> str:
    """`{"policy", "rows": [...]}`; with several columns, a list of such, each with its name."""
    told = [
        {
            "name": column.name,
            "policy": next((str(one.policy) for one in column.results.values()), None),
            "rows": [_row_as_json(result) for result in column.results.values()],
        }
        for column in columns
    ]
    return json.dumps(told[0] if len(told) == 1 else told, indent=2) + "\n"


def catalogued(family: str, row: Row) -> dict[str, Any]:
    """The catalogue's entry of a row, for JSON."""
    return {"id": row.id, "title": row.title, "reference": row.reference, "family": family}


def _row_as_json(result: Result) -> dict[str, Any]:
    return {
        **catalogued(result.family, result.row),
        "expected": result.expected,
        "observed": result.observed,
        "control": result.control,
        "ok": result.ok,
        "evidence": list(result.evidence),
        "seconds": round(result.seconds, 3),
    }


def as_junit(columns: Sequence[Column]) -> str:
    """JUnit's XML: a suite a column, a case a row."""
    root = ElementTree.Element("testsuites")
    for column in columns:
        results = list(column.results.values())
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"conformance.{column.name}",
            tests=str(len(results)),
            failures=str(sum(not one.ok for one in results)),
            time=f"{sum(one.seconds for one in results):.3f}",
        )
        for one in results:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"conformance.{one.family}",
                name=f"{one.row.id} {one.row.title}",
                time=f"{one.seconds:.3f}",
            )
            if not one.ok:
                said = f"expected {one.expected}, observed {one.observed}"
                failure = ElementTree.SubElement(case, "failure", message=said)
                failure.text = "\n".join(one.evidence)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


# Sizes in the picture: a square, a gap, a line of the legend, roughly a letter.
_SIDE, _GAP, _LEGEND_LINE, _LETTER = 15, 2, 16, 5.2
_LABEL: Final = 78


def as_svg(rows: Rows, columns: Sequence[Column], title: str) -> str:
    """The matrix as a picture: a square for each row, by family, and a block for each column."""
    families = list(_families(rows))
    longest = max(sum(one[0] == family for one in rows) for family in families)
    block = longest * (_SIDE + _GAP) + _LABEL + 14
    high = len(families) * (_SIDE + _GAP + 3) + 30
    across = 1 if len(columns) <= 2 else 2  # more than two stand side by side
    width = block * across
    top = 46 if title else 20
    bottom = top + -(-len(columns) // across) * high
    legend, lines = _legend(width, bottom)
    height = bottom + lines * _LEGEND_LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, column in enumerate(columns):
        x, y = number % across * block, top + number // across * high
        parts += _block(rows, families, column, x, y)
    return "\n".join([*parts, *legend, "</svg>", ""])


def _block(rows: Rows, families: Iterable[str], column: Column, x: int, y: int) -> list[str]:
    right = sum(one.ok for one in column.results.values())
    parts = [
        f'<text x="{x + 8}" y="{y}" font-weight="bold">{escape(column.name)}'
        f" ({right} of {len(column.results)})</text>"
    ]
    y += 8
    for family in families:
        parts.append(f'<text x="{x + 8}" y="{y + 12}">{family}</text>')
        own = [row for of_family, row in rows if of_family == family]
        for place, row in enumerate(own):
            result = column.results.get(row.id)
            at = x + _LABEL + place * (_SIDE + _GAP)
            seen = f": {result.observed}" if result else ""
            parts.append(
                f"<g><title>{row.id} {escape(row.title)}{escape(seen)}</title>"
                f'<rect x="{at}" y="{y}" width="{_SIDE}" height="{_SIDE}" rx="2" '
                f'fill="{_COLOURS[mark(result)]}"/>'
                f'<text x="{at + _SIDE / 2}" y="{y + 11}" font-size="8" fill="#ffffff" '
                f'text-anchor="middle">{row.id}</text></g>'
            )
        y += _SIDE + _GAP + 3
    return parts


def _legend(width: int, y: int) -> tuple[list[str], int]:
    """The legend of the colours, in as many lines as the width needs."""
    parts: list[str] = []
    x, lines = 8.0, 1
    for kind, meaning in _MEANING.items():
        needed = 30 + len(meaning) * _LETTER
        if x > 8 and x + needed > width:
            x, lines = 8.0, lines + 1
        at = y + (lines - 1) * _LEGEND_LINE
        parts.append(
            f'<rect x="{x:.0f}" y="{at}" width="10" height="10" fill="{_COLOURS[kind]}"/>'
            f'<text x="{x + 14:.0f}" y="{at + 9}" font-size="9">{meaning}</text>'
        )
        x += needed
    return parts, lines


_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 74em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border: 1px solid #ddd; padding: .25em .6em; text-align: left; vertical-align: top; }
td.ok { background: #e0f2e1; } td.wrong { background: #ffcdd2; font-weight: bold; }
td.harm { background: #ffe0b2; } td.none { background: #eee; }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 12px; }
details { margin: .6em 0; border-left: 3px solid #c62828; padding-left: 1em; }
h3 { margin-bottom: .2em; }
"""


def as_html(rows: Rows, columns: Sequence[Column], title: str) -> str:
    """One self-contained page: the matrix, and all details of each row that failed."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        as_svg(rows, columns, ""),
    ]
    headings = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    for family in _families(rows):
        parts.append(f"<h2>{escape(family)}</h2><table><tr><th></th><th>what is tried</th>")
        parts.append(f"<th>reference</th><th>expected</th>{headings}</tr>")
        for of_family, row in rows:
            if of_family == family:
                parts.append(_html_row(row, [column.results.get(row.id) for column in columns]))
        parts.append("</table>")
    failing = [
        (column, result)
        for column in columns
        for result in column.results.values()
        if not result.ok
    ]
    if failing:
        parts.append("<h2>What was not as it should be</h2>")
    parts += [_html_failure(column, result) for column, result in failing]
    return "\n".join([*parts, "</body></html>", ""])


def _html_row(row: Row, results: Iterable[Result | None]) -> str:
    told = list(results)
    expected = " / ".join(sorted({result.expected for result in told if result}))
    cells = "".join(
        f'<td class="{mark(result)}">{escape(result.observed) if result else ""}</td>'
        for result in told
    )
    head = f"<tr><td>{row.id}</td><td>{escape(row.title)}</td><td>{escape(row.reference)}</td>"
    return f"{head}<td>{escape(expected)}</td>{cells}</tr>"


def _html_failure(column: Column, result: Result) -> str:
    row = result.row
    evidence = "".join(f"<li>{escape(one)}</li>" for one in result.evidence)
    seen = "".join(
        f"<p>seen at <b>{escape(frame.place)}</b></p><pre>{escape(decoded(frame.data))}</pre>"
        for frame in result.frames[:_FRAMES_SHOWN]
    )
    sent = "".join(f"<pre>{escape(decoded(frame))}</pre>" for frame in result.sent[:_FRAMES_SHOWN])
    said = "".join(f"<pre>{escape(repr(one))}</pre>" for one in result.said[:_FRAMES_SHOWN])
    return (
        f"<details><summary><b>{escape(column.name)}: {row.id} {escape(row.title)}</b> "
        f"expected {escape(result.expected)}, observed {escape(result.observed)}</summary>"
        f"<p>{escape(row.reference)}</p><ul>{evidence}</ul>"
        f"<h3>Recipe</h3><pre>{escape(recipe(row))}</pre>"
        f"<h3>Seen</h3>{seen or '<p>no frame</p>'}<h3>Sent</h3>{sent}{said}</details>"
    )


def recipe(row: Row) -> str:
    """The source code of the row's recipe or play."""
    try:
        return inspect.getsource(row.recipe or row.play)
    except (OSError, TypeError):
        return row.title


def decoded(frame: bytes) -> str:
    """A frame as hexadecimal digits, and as its layers."""
    packet = Ether(frame)
    return f"{hexdump(packet, dump=True)}\n\n{packet.show(dump=True)}"


def captures(directory: Path, columns: Sequence[Column], *, everything: bool) -> int:
    """Write a capture file for each place, of the rows that failed or of all. Returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    written = 0
    for column in columns:
        for result in column.results.values():
            if result.ok and not everything:
                continue
            by_place: dict[str, list[bytes]] = {}
            if result.sent:
                by_place["sent"] = list(result.sent)
            for frame in result.capture:
                by_place.setdefault(frame.place, []).append(frame.data)
            for place, frames in by_place.items():
                name = f"{column.name}-{result.row.id}-{place}.pcap".replace(" ", "-")
                wrpcap(str(directory / name), [Ether(frame) for frame in frames])
                written += 1
    return written
