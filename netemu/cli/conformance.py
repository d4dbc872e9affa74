"""`netemu conformance`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.output import say, say_data
from netemu.cli import conformance_runs as runs
from netemu.cli.conformance_agent import Asked, conformance_agent
from netemu.cli.conformance_output import listed, rendered
from netemu.cli.options import TIME_SCALE, lab_name, output, write
from netemu.cli.options import as_json as as_json_option

if TYPE_CHECKING:
    from netemu.conformance.row import Row

# The suite's own labs claim ten times as fast as RFC 3927; limits scale with it.
_TIME_SCALE = 0.1
# The most digits of a row's number.
_DIGITS = 3


@click.command()
@click.argument(
    "agent_file", metavar="[AGENT.yaml]", required=False,
    type=click.Path(path_type=Path, dir_okay=False),
)  # fmt: skip
@lab_name
@click.option(
    "--policy", type=click.Choice([*runs.POLICIES, "both"]), default="responder-only",
    show_default=True, help="Of the suite's own lab; a lab of --name has its own.",
)  # fmt: skip
@click.option("--time-scale", type=TIME_SCALE, metavar="X",
              help="In the suite's own labs, multiply RFC 3927's durations by X.  "
              f"[default: {_TIME_SCALE}; 1 for rfc3927, the pace of others]")  # fmt: skip
@click.option("--suite", type=click.Choice(["isolation", "rfc3927", "agent"]),
              default="isolation", show_default=True, help="What is tried: whether guests are "
              "kept apart, how they claim addresses (ours, avahi-autoipd and dhcpcd where "
              "installed), or how an agent takes events (ours, or AGENT.yaml's).")  # fmt: skip
@click.option("--agent", "agent_command", metavar="COMMAND",
              help="With --suite agent: the agent's command, in AGENT.yaml's place.")  # fmt: skip
@click.option("--drained", metavar="HOW", help="With --agent: how it says that it has drained: "
              "exit, file PATH, http URL, log REGEX, call NAME [REGEX], mark.")  # fmt: skip
@click.option("--returned", metavar="HOW", help="With --agent: how it says that it is back.")
@click.option("--cloud", type=click.Choice(["azure", "ec2", "gce"]),
              help="With --agent: whose events it reads.  [default: azure]")  # fmt: skip
@click.option("--impaired", is_flag=True,
              help="In the suite's own lab, have a relay in every wire.")  # fmt: skip
@click.option("--rows", "wanted", metavar="IDS", help="Only these rows, as in 02,18-23.")
@click.option("--prove", "proving", is_flag=True, help="Play the rows in labs without protections,"
              " or with bad agents: each has to fail.")  # fmt: skip
@click.option("--against", metavar="NAME",
              help="Use another rule set instead of ours, or 'all' in turn.")  # fmt: skip
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
    """Attack a lab in over a hundred ways, and say row by row whether its guests are kept apart.

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
            or policy != runs.POLICIES[0]
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
    if listing:
        listed(rows, as_json=as_json)
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
    policies = runs.POLICIES if policy == "both" else (policy,)
    title = "Isolation conformance"
    if suite == "rfc3927":
        title = "RFC 3927 on the wire"
        columns = runs.of_claimants(scale, name)
        good = all(result.ok for result in columns[0].results.values())
    elif proving:
        title += ": what each protection is for"
        columns, good = runs.without_protections(rows, policies, scale)
    elif against:
        title += ": ours and others' rules"
        rows, columns = runs.beside_others(rows, against, scale)
        ours = [column for column in columns if column.name in runs.OURS.values()]
        good = all(result.ok for column in ours for result in column.results.values())
    elif nodes_from is not None:
        rows, columns = runs.on_bridges(rows, nodes_from)
        good = all(result.ok for column in columns for result in column.results.values())
    else:
        rows, columns = runs.on_labs(rows, policies, scale, name, impaired)
        good = all(result.ok for column in columns for result in column.results.values())
    if as_json:
        say_data(report.as_json(columns))
    else:
        report.print_matrix(rows, columns)
    for file in files:
        write(file, rendered(file, rows, columns, title))
    if pcap is not None:
        number = report.captures(pcap, columns, everything=pcap_all)
        say(f"{number} captures in {pcap}", err=True)
    return 0 if good else 1


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
