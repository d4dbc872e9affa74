"""Reports the outcomes of agents: as columns for `conformance.report`, and a timeline a row."""

from collections.abc import Sequence
from html import escape
from typing import Any, Final, cast

from netemu.conformance.agent.play import FAILED, Outcome
from netemu.conformance.agent.records import DRAINED, RETURNED, Record
from netemu.conformance.agent.row import Row
from netemu.conformance.agent.spec import Agent
from netemu.conformance.agent.watch import clock
from netemu.conformance.report import Column
from netemu.conformance.row import Result
from netemu.conformance.row import Row as TableRow
from netemu.topology import Policy

_FAMILIES: Final = {"azure": "Azure", "ec2": "EC2", "gce": "GCE"}
_WIDTH, _HEIGHT, _LEFT = 860, 74, 10
_COLOURS: Final = {
    "notice": "#1565c0", "told": "#00838f", "drained": "#2e7d32", "approval": "#6a1b9a",
    "effect": "#c62828", "over": "#ef6c00", "back": "#558b2f", "ended": "#000000",
    "killed": "#000000",
}  # fmt: skip


def table_rows(rows: Sequence[Row]) -> list[tuple[str, TableRow]]:
    """The rows as tables show them, each with its family."""
    return [(_FAMILIES[row.cloud], _table_row(row)) for row in rows]


def _table_row(row: Row) -> TableRow:
    # Reports print the source of what was played.
    return TableRow(row.id, row.title, row.reference, row.expected, play=cast(Any, row.play))


def column(name: str, outcomes: Sequence[Outcome]) -> Column:
    """The outcomes of one agent. A row that could not be played is one that the lab has spoilt."""
    return Column(name, {one.row.id: _result(one) for one in outcomes})


def _result(outcome: Outcome) -> Result:
    events = [] if outcome.record is None else [
        f"{clock(at)} {at - outcome.record.begun:+.1f} s {what}: {text}"
        for at, what, text in happened(outcome.record)
    ]  # fmt: skip
    return Result(
        row=_table_row(outcome.row),
        family=_FAMILIES[outcome.row.cloud],
        policy=Policy.RESPONDER_ONLY,
        expected=outcome.row.expected,
        observed=outcome.verdict,
        control=outcome.verdict != FAILED,
        evidence=(*outcome.evidence, *events),
        sent=(),
        said=(),
        frames=(),
        capture=(),
        seconds=outcome.seconds,
    )


def happened(record: Record) -> list[tuple[float, str, str]]:
    """What happened in a play, in order: (time, kind, text). Kinds are those of the timeline."""
    found: list[tuple[float, str, str]] = []
    for event in record.events.values():
        whom = ", ".join(event.guests)
        found.append((event.created, "notice", f"{event.label}, for {whom}"))
        found += [(at, "told", f"{event.label}: to {guest}") for at, guest in event.told]
        if event.approved is not None:
            by = event.approved_by or "the controller"
            found.append((event.approved, "approval", f"{event.label}: by {by}"))
        if event.started is not None:
            found.append((event.started, "effect", event.label))
        if event.ended is not None:
            found.append((event.ended, "over", event.label))
    kinds = {DRAINED: "drained", RETURNED: "back", "ended": "ended", "killed": "killed"}
    found += [
        (one.at, kinds[one.what], f"{one.guest} {one.text}".strip())
        for one in record.marks
        if one.what in kinds and one.at >= record.begun
    ]
    known = {*record.events, *(f"the end of {label}" for label in record.events)}
    found += [(one.at, "story", one.name) for one in record.moments if one.name not in known]
    return sorted(found)


def timelines(agent: Agent, outcomes: Sequence[Outcome]) -> str:
    """What agent was judged, and a picture a row: a part of an HTML page."""
    run = agent.run
    command = run.run if isinstance(run.run, str) else " ".join(run.run)
    stubs = [told.partition(" ")[0] for kind, told in (agent.drained, agent.returned)
             if kind == "call"]  # fmt: skip
    told = {
        "version": run.version or "not said",
        "source": run.source or "not said",
        "stubs": ", ".join(stubs) or "none",
        "drained": " ".join(agent.drained).strip(),
        "returned": " ".join(agent.returned).strip(),
    }
    parts = [
        f"<h2>The agent</h2><pre>{escape(command)}</pre><ul>",
        *(f"<li>{name}: {escape(text)}</li>" for name, text in told.items()),
        "</ul><h2>What happened when</h2>",
        "<p>"
        + " ".join(f'<span style="color:{colour}">&#9632; {kind}</span>'
                   for kind, colour in _COLOURS.items())
        + " &#183; grey dots are requests</p>",
    ]  # fmt: skip
    for one in outcomes:
        parts.append(f"<h3>{one.row.id} {escape(one.row.title)}: {escape(one.verdict)}</h3>")
        if one.record is not None:
            parts.append(_timeline(one.record))
    return "\n".join(parts)


def _timeline(record: Record) -> str:
    begin, end = record.begun - 1.0, record.closed
    scale = (_WIDTH - 2 * _LEFT) / max(end - begin, 1.0)

    def x(at: float) -> float:
        return _LEFT + (min(max(at, begin), end) - begin) * scale

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="10">',
        f'<line x1="{_LEFT}" y1="50" x2="{_WIDTH - _LEFT}" y2="50" stroke="#999"/>',
        f'<text x="{_LEFT}" y="70">{clock(begin)}</text>',
        f'<text x="{_WIDTH - _LEFT}" y="70" text-anchor="end">{end - begin:.0f} s</text>',
    ]
    parts += [
        f'<circle cx="{x(one.at):.1f}" cy="56" r="1.5" fill="#888"/>'
        for one in record.requests
        if begin <= one.at <= end
    ]
    for number, (at, kind, text) in enumerate(happened(record)):
        colour, y = _COLOURS.get(kind, "#757575"), 10 + number % 3 * 11
        said = escape(f"{at - record.begun:+.1f} s {kind}: {text}")
        name = text if kind == "story" else kind
        parts.append(
            f'<g><title>{said}</title><line x1="{x(at):.1f}" y1="{y}" x2="{x(at):.1f}" y2="52" '
            f'stroke="{colour}"/><text x="{x(at) + 2:.1f}" y="{y + 4}" fill="{colour}">'
            f"{escape(name)}</text></g>"
        )
    return "\n".join([*parts, "</svg>"])
