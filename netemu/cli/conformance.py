"""`netemu conformance`."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.output import say, say_data, say_json
from netemu.cli.conformance_agent import Asked, conformance_agent
from netemu.cli.options import TIME_SCALE, lab_name, output, write
from netemu.cli.options import as_json as as_json_option
from netemu.cli.progress import pieces

if TYPE_CHECKING:
    from netemu.conformance.report import Column, Rows
    from netemu.conformance.row import Result, Row
    from netemu.topology import Lab

# The suite's own labs claim ten times as fast as RFC 3927; limits scale with it.
_TIME_SCALE = 0.1
# What an impaired wire delays, seconds.
_LATE = 0.001
# The most digits of a row's number.
_DIGITS = 3
_POLICIES = ("responder-only", "same-node")
# The names of our own columns in a comparison.
_OURS = {"responder-only": "ours", "same-node": "ours, same-node"}


@click.command()
@click.argument(
    "agent_file", metavar="[AGENT.yaml]", required=False,
    type=click.Path(path_type=Path, dir_okay=False),
)  # fmt: skip
@lab_name
@click.option(
    "--policy", type=click.Choice([*_POLICIES, "both"]), default="responder-only",
    show_default=True, help="Of a lab of its own; a lab that is named has its own.",
)  # fmt: skip
@click.option("--time-scale", type=TIME_SCALE, metavar="X",
              help="Of a lab of its own: multiply RFC 3927's durations by X.  "
              f"[default: {_TIME_SCALE}; 1 for rfc3927, the pace of others]")  # fmt: skip
@click.option("--suite", type=click.Choice(["isolation", "rfc3927", "agent"]),
              default="isolation", show_default=True, help="What is tried: whether guests are "
              "kept apart, how they claim addresses (ours, avahi-autoipd and dhcpcd where "
              "installed), or how an agent takes events (ours, or AGENT.yaml's).")  # fmt: skip
@click.option("--agent", "agent_command", metavar="COMMAND",
              help="Of --suite agent: the agent, in AGENT.yaml's place.")  # fmt: skip
@click.option("--drained", metavar="HOW", help="With --agent: how it says that it has drained: "
              "exit, file PATH, http URL, log REGEX, call NAME [REGEX], mark.")  # fmt: skip
@click.option("--returned", metavar="HOW", help="With --agent: how it says that it is back.")
@click.option("--cloud", type=click.Choice(["azure", "ec2", "gce"]),
              help="With --agent: whose events it reads.  [default: azure]")  # fmt: skip
@click.option("--impaired", is_flag=True,
              help="Of a lab of its own: have a relay in every wire.")  # fmt: skip
@click.option("--rows", "wanted", metavar="IDS", help="Only these rows, as in 02,18-23.")
@click.option("--prove", "proving", is_flag=True, help="Play the rows in labs without protections,"
              " or with bad agents: each has to fail.")  # fmt: skip
@click.option("--against", metavar="NAME",
              help="Put another rule set in the place of ours, or 'all' in turn.")  # fmt: skip
@click.option("--nodes-from", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Play on bridges and ports of your own, which FILE names.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Print the catalogue, and play nothing.")
@as_json_option
@output(
    ".json",
    ".xml",
    ".html",
    ".svg",
    what="results (.json), a JUnit report (.xml), a page (.html) or a picture (.svg)",
)
@click.option("--pcap", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Captures of the rows that fail.")  # fmt: skip
@click.option("--pcap-all", is_flag=True, help="With --pcap: captures of all rows.")
def conformance(
    agent_file: Path | None,
    name: str | None,
    policy: str,
    time_scale: float | None,
    suite: str,
    impaired: bool,
    agent_command: str | None,
    drained: str | None,
    returned: str | None,
    cloud: str | None,
    wanted: str | None,
    proving: bool,
    against: str | None,
    nodes_from: Path | None,
    listing: bool,
    as_json: bool,
    files: tuple[Path, ...],
    pcap: Path | None,
    pcap_all: bool,
) -> int:
    """Attack a lab in ninety-three ways, and say row by row whether its guests are kept apart.

    Plays the isolation catalogue on the lab NAME, or on one of its own that goes down afterwards.
    Observers in every place decide, and an honest guest asks its responder during and after each
    attack. Exit code 1 if any verdict is not the policy's.
    """
    _require_scapy()
    from netemu.conformance import report
    from netemu.errors import BadInput

    asked = Asked(agent_file, agent_command, drained, returned, cloud, wanted, proving)
    if suite == "agent":
        if (
            name
            or against
            or nodes_from
            or time_scale
            or impaired
            or pcap_all
            or policy != _POLICIES[0]
        ):
            raise BadInput(
                "--suite agent has labs of its own: --name, --policy, --time-scale, --against, "
                "--nodes-from, --impaired and --pcap-all do not go with it"
            )
        if pcap is not None:
            _require_directory(pcap)
        return conformance_agent(asked, listing=listing, as_json=as_json, files=files, pcap=pcap)
    if any(asked[:5]):
        raise BadInput("AGENT.yaml, --agent, --drained, --returned and --cloud: say --suite agent")
    rows = _chosen(suite, wanted)
    if listing and as_json:
        say_json([report.catalogued(family, row) for family, row in rows])
        return 0
    if listing:
        for family, row in rows:
            say(f"{row.id}  {family:9} {row.title} ({row.reference})")
        return 0
    if pcap is not None:
        _require_directory(pcap)
    if pcap_all and pcap is None:
        raise BadInput("--pcap-all: say where, with --pcap DIR")
    if sum(map(bool, (proving, against, nodes_from, name))) > 1:
        raise BadInput("--prove, --against, --nodes-from and --name exclude each other")
    if impaired and (proving or against or nodes_from or name or suite == "rfc3927"):
        raise BadInput("--impaired goes with a lab of the isolation suite's own")
    if suite == "rfc3927" and (proving or against or nodes_from):
        raise BadInput("--suite rfc3927 goes with --name alone")
    scale = time_scale or (1.0 if suite == "rfc3927" else _TIME_SCALE)
    policies = _POLICIES if policy == "both" else (policy,)
    title = "Isolation conformance"
    if suite == "rfc3927":
        title = "RFC 3927 on the wire"
        columns = _judge(scale, name)
        good = all(result.ok for result in columns[0].results.values())
    elif proving:
        title += ": what each protection is for"
        columns, good = _prove(rows, policies, scale)
    elif against:
        title += ": ours and others' rules"
        rows, columns = _compare(rows, against, scale)
        ours = [column for column in columns if column.name in _OURS.values()]
        good = all(result.ok for column in ours for result in column.results.values())
    elif nodes_from is not None:
        rows, columns = _play_on(rows, nodes_from)
        good = all(result.ok for column in columns for result in column.results.values())
    else:
        rows, columns = _play(rows, policies, scale, name, impaired)
        good = all(result.ok for column in columns for result in column.results.values())
    if as_json:
        say_data(report.as_json(columns))
    else:
        report.print_matrix(rows, columns)
    for file in files:
        write(file, _rendered(file.suffix.lower(), rows, columns, title))
    if pcap is not None:
        number = report.captures(pcap, columns, everything=pcap_all)
        say(f"{number} captures in {pcap}", err=True)
    return 0 if good else 1


def _rendered(ending: str, rows: "Rows", columns: "Sequence[Column]", title: str) -> str:
    """Write a report in the format of the file's ending."""
    from netemu.conformance import report

    if ending == ".json":
        return report.as_json(columns)
    if ending == ".xml":
        return report.as_junit(columns)
    made = report.as_html if ending == ".html" else report.as_svg
    return made(rows, columns, title)


def _require_directory(path: Path) -> None:
    """Make the directory for captures first: the rows take half a minute."""
    from netemu.errors import BadInput

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--pcap {path}: {error.strerror}") from None


def _require_scapy() -> None:
    from importlib.util import find_spec

    from netemu.errors import MachineCannot

    if find_spec("scapy") is None:
        raise MachineCannot(
            "scapy crafts the frames and is not installed: run netns-scripts/netemu conformance, "
            f"which installs it, or: {sys.executable} -m pip install scapy"
        )
    from netemu.conformance.crafting import import_scapy

    import_scapy()


def _chosen(suite: str, wanted: str | None) -> "list[tuple[str, Row]]":
    from netemu.conformance.rfc3927 import rows as rfc3927
    from netemu.conformance.rows import CATALOGUE
    from netemu.errors import BadInput

    if suite == "rfc3927":
        if wanted is not None:
            raise BadInput("--rows: the rows of rfc3927 follow from each other; leave it out")
        return list(rfc3927.ROWS)
    if wanted is None:
        return list(CATALOGUE)
    ids: set[str] = set()
    for part in wanted.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInput(f"--rows: {part!r} is not a row; write them as 02,18-23")
        if len(first) > _DIGITS or len(last) > _DIGITS:
            raise BadInput(f"--rows: {part[:40]!r}: rows are 01 to {CATALOGUE[-1][1].id}")
        ids |= {f"{number:02}" for number in range(int(first), int(last or first) + 1)}
    known = {row.id for _, row in CATALOGUE}
    if unknown := sorted(ids - known):
        raise BadInput(
            f"--rows: there is no row {', '.join(unknown)}; --list shows those that there are"
        )
    return [(family, row) for family, row in CATALOGUE if row.id in ids]


def _own_lab(policy: str, impaired: bool = False, ipv6: bool = False) -> "Lab":
    from msgspec.structs import replace

    from netemu.impairment.plan import Plan
    from netemu.impairment.terms import Terms
    from netemu.topology import DEMO, Policy, load

    lab = load(DEMO, name=f"conformance-{os.getpid()}")
    lab = replace(lab, policy=Policy(policy), ipv6=ipv6)
    if not impaired:
        return lab
    late = Plan(to=Terms(delay=_LATE), from_=Terms(delay=_LATE))
    nodes = (
        replace(node, guests=tuple(replace(guest, link=late) for guest in node.guests))
        for node in lab.nodes
    )
    return replace(lab, nodes=tuple(nodes))


def _play(
    rows: "list[tuple[str, Row]]",
    policies: Sequence[str],
    time_scale: float,
    name: str | None,
    impaired: bool = False,
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play on a running lab what can be played there, or all on labs of our own."""
    from netemu.client import labs
    from netemu.conformance.labstage import LabStage, running
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.conformance.suite import play

    columns = []
    if name is not None:
        with LabStage(labs.the_one(name)) as stage, pieces(len(rows), "building a lab") as step:
            rows = rows if stage.ipv6 else by_lab(rows)[False]
            results = play(stage, rows, lambda result: step(f"{name}: {result.row.title}"))
        return rows, [Column(str(stage.policy), {one.row.id: one for one in results})]
    with pieces(len(rows) * len(policies), "building a lab") as step:
        for policy in policies:
            results = []
            for ipv6, some in _with_rows(by_lab(rows)):
                with running(_own_lab(policy, impaired, ipv6), time_scale) as stage:
                    results += play(stage, some, lambda result: step(result.row.title))
            columns.append(Column(policy, {one.row.id: one for one in results}))
    return rows, columns


def _with_rows(
    split: "Sequence[list[tuple[str, Row]]]",
) -> "Iterator[tuple[bool, list[tuple[str, Row]]]]":
    """Whether a lab is to speak IPv6, and its rows; no lab without rows."""
    yield from ((bool(ipv6), some) for ipv6, some in enumerate(split) if some)


def _prove(
    rows: "list[tuple[str, Row]]", policies: Sequence[str], time_scale: float
) -> "tuple[list[Column], bool]":
    from netemu.conformance.prove import LABS, prove
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab

    columns = []
    good = True
    with pieces(len(rows) * len(policies) * len(LABS), "building a lab") as step:

        def on_result(lab: str, result: "Result") -> None:
            step(f"without {lab}: {result.row.title}")

        for policy in policies:
            prefix = f"{policy}: " if len(policies) > 1 else ""
            told: dict[str, dict[str, Result]] = {lab: {} for lab in LABS}
            for ipv6, some in _with_rows(by_lab(rows)):
                lab = _own_lab(policy, ipv6=ipv6)
                proof = prove(lab, some, time_scale=time_scale, on_result=on_result)
                for without, results in proof.verdicts.items():
                    told[without].update(results)
                for row in proof.unproven():
                    good = False
                    say(f"{policy}: row {row.id} was seen to fail nowhere", err=True)
                for _, row in some:
                    if row.held_by_kernel and not proof.fails(row):
                        say(f"{row.id} cannot fail here: {row.held_by_kernel}", err=True)
            columns += [Column(f"{prefix}no {without}", told[without]) for without in LABS]
    return columns, good


def _compare(
    rows: "list[tuple[str, Row]]", against: str, time_scale: float
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play our rules under both policies, and the chosen rivals, on the rows that rules decide."""
    from netemu.conformance.baselines import RIVALS, compare, decided_by_rules
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.errors import BadInput

    names = [rival.name for rival in RIVALS]
    if against != "all" and against not in names:
        raise BadInput(f"--against: {against} is none of {', '.join([*names, 'all'])}")
    chosen = [rival for rival in RIVALS if against in ("all", rival.name)]
    rows = [one for one in by_lab(rows)[False] if decided_by_rules(*one)]
    policies = [one for one in _POLICIES if one in {str(rival.policy) for rival in chosen}]
    columns = [
        Column(_OURS[column.name], column.results)
        for column in _play(rows, policies, time_scale, None)[1]
    ]
    with pieces(len(rows) * len(chosen), "building a lab") as step:
        for rival in chosen:
            lab = _own_lab(str(rival.policy))

            def on_result(result: "Result", name: str = rival.name) -> None:
                step(f"{name}: {result.row.title}")

            results = compare(lab, rival, rows, time_scale=time_scale, on_result=on_result)
            columns.append(Column(rival.name, results))
    for rival in chosen:
        judged = f"judged as {rival.policy}"
        say(f"{rival.name}: {rival.title}, {judged}; {rival.aim}. From:", err=True)
        for source in rival.sources:
            say(f"    {source}", err=True)
    return rows, columns


def _judge(scale: float, name: str | None) -> "list[Column]":
    """Try the claimants: ours, and at RFC 3927's own pace the foreign ones that are installed."""
    from netemu.client import labs
    from netemu.conformance.report import Column
    from netemu.conformance.rfc3927.claimants import FOREIGN
    from netemu.conformance.rfc3927.judge import PROFILE, judge, room_for
    from netemu.conformance.rfc3927.trial import PARTS

    foreign = [one for one in FOREIGN if not one.missing]
    for one in FOREIGN:
        if one.missing:
            say(one.missing, err=True)
    if (scale if name is None else labs.status(name)["time_scale"]) != 1:
        foreign = []  # they have no other pace than RFC 3927's
    own = name is None
    if name is None:
        lab = room_for(foreign, f"conformance-{os.getpid()}")
        name = lab.name
        labs.bring_up(lab, time_scale=scale, access_log=True, profile=PROFILE, owned=True)
    try:
        with pieces(len(PARTS) * (1 + len(foreign)), "building a lab") as step:
            told = judge(name, foreign, step)
    finally:
        if own:
            labs.take_down(name)
    return [Column(claimant, results) for claimant, results in told.items()]


def _play_on(
    rows: "list[tuple[str, Row]]", path: Path
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play on the user's own bridges the rows that make sense there."""
    from netemu.conformance.external import playable, stage_of
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.conformance.suite import play

    rows = [(family, row) for family, row in by_lab(rows)[False] if playable(row)]
    with stage_of(path) as stage, pieces(len(rows), "building a lab") as step:
        results = play(stage, rows, lambda result: step(result.row.title))
    return rows, [Column(str(stage.policy), {one.row.id: one for one in results})]
