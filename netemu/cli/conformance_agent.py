"""`netemu conformance --suite agent`: an agent is judged, row by row."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hostagent.terminal.output import say, say_data
from netemu.cli.conformance_output import listed, rendered
from netemu.cli.options import write
from netemu.cli.progress import pieces

if TYPE_CHECKING:
    from netemu.conformance.agent.play import Outcome
    from netemu.conformance.agent.row import Row
    from netemu.conformance.agent.spec import Agent
    from netemu.conformance.report import Column


class Asked(NamedTuple):
    """What the command line says of the agent, and of what is to be played."""

    file: Path | None
    command: str | None
    drained: str | None
    returned: str | None
    cloud: str | None
    rows: str | None
    proving: bool


def conformance_agent(
    asked: Asked,
    *,
    listing: bool,
    as_json: bool,
    files: Sequence[Path],
    pcap: Path | None,
) -> int:
    """Judge an agent; without one it is this project's drain agent. Returns the exit code."""
    from netemu.conformance import report
    from netemu.conformance.agent import reporting
    from netemu.conformance.agent.rows import ROWS, chosen

    rows = ROWS if asked.rows is None else chosen(asked.rows)
    shown = reporting.table_rows(rows)
    if listing:
        listed(shown, as_json=as_json)
        return 0
    agent = _agent(asked)
    if asked.proving:
        columns, good = _prove(rows)
        outcomes: list[Outcome] = []
    else:
        outcomes = _judge(agent, rows, pcap)
        name = f"{agent.run.source} {agent.run.version}".strip() or "agent"
        columns = [reporting.column(name, outcomes)]
        good = all(one.ok for one in outcomes)
        shown = reporting.table_rows([one.row for one in outcomes])
    if as_json:
        say_data(report.as_json(columns))
    else:
        report.print_matrix(shown, columns)
    for file in files:
        title = "Agents" if file.suffix.lower() == ".svg" else "An agent, judged"
        timelines = reporting.timelines(agent, outcomes)
        write(file, rendered(file, shown, columns, title, timelines))
    return 0 if good else 1


def _agent(asked: Asked) -> "Agent":
    from netemu.conformance.agent import own, spec
    from netemu.errors import BadInput

    if asked.file is not None and asked.command is not None:
        raise BadInput("an AGENT.yaml and --agent: one or the other")
    if asked.command is None and (asked.drained or asked.returned or asked.cloud):
        raise BadInput("--drained, --returned and --cloud go with --agent 'COMMAND'")
    if asked.file is not None:
        try:
            text = asked.file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{asked.file}: cannot be read: {error}") from None
        return spec.read(text, str(asked.file), asked.file.resolve().parent)
    if asked.command is None:
        return own.drain_agent()
    if asked.drained is None:
        raise BadInput("--agent: say by --drained how it says that it has drained")
    value = {
        "agent": {"run": asked.command, "cloud": asked.cloud or "azure"},
        "drained": asked.drained,
        **({"returned": asked.returned} if asked.returned else {}),
    }
    return spec.made(value, "--agent " + shlex.quote(asked.command), Path.cwd())


def _judge(agent: "Agent", rows: "Sequence[Row]", pcap: Path | None) -> "list[Outcome]":
    from netemu.conformance.agent.play import play
    from netemu.errors import BadInput

    left_out = [(row, why) for row in rows if (why := row.not_played(agent))]
    for row, why in left_out:
        if row.cloud == agent.run.cloud:
            say(f"{row.id} is not played: {why}", err=True)
    if len(left_out) == len(rows):
        raise BadInput(f"--rows: none is about this agent: {left_out[0][0].id}: {left_out[0][1]}")
    with pieces(len(rows) - len(left_out), "building a lab") as step:
        return play(
            agent,
            rows,
            on_done=lambda one: step(f"{one.row.id} {one.verdict}"),
            captures=pcap,
        )


def _prove(rows: "Sequence[Row]") -> "tuple[list[Column], bool]":
    from netemu.conformance.agent import reporting
    from netemu.conformance.agent.prove import prove

    # Most rows are failed by the first agent.
    with pieces(len(rows), "building a lab") as step:
        proof = prove(rows, lambda name, one: step(f"{name}: {one.row.id} {one.verdict}"))
    unproven = proof.unproven()
    for row in unproven:
        say(f"row {row.id} was seen to fail nowhere", err=True)
    columns = [reporting.column(name, each) for name, each in proof.outcomes.items()]
    return columns, not unproven
