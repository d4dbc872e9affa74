"""Prints the catalogues of `netemu conformance`, and writes its reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.terminal.output import say, say_json

if TYPE_CHECKING:
    from netemu.conformance.report import Column, Rows


def listed(rows: "Rows", *, as_json: bool) -> None:
    """Print the rows, one a line."""
    from netemu.conformance import report

    if as_json:
        say_json([report.catalogued(family, row) for family, row in rows])
        return
    for family, row in rows:
        say(f"{row.id}  {family:9} {row.title} ({row.reference})")


def rendered(
    file: Path, rows: "Rows", columns: "Sequence[Column]", title: str, timelines: str = ""
) -> str:
    """Return a report in the format of the file's ending; a page ends with `timelines`."""
    from netemu.conformance import report

    match file.suffix.lower():
        case ".json":
            return report.as_json(columns)
        case ".xml":
            return report.as_junit(columns)
        case ".svg":
            return report.as_svg(rows, columns, title)
        case _:
            page = report.as_html(rows, columns, title)
            return page.replace("</body>", f"{timelines}</body>")
