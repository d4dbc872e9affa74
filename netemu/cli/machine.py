"""`netemu check`."""

import click

from hostagent.terminal.output import Styled, say, say_json
from netemu.cli.options import as_json


@click.command()
@click.option(
    "--guests", type=click.IntRange(1, 65024), help="How many guests a lab here is to have."
)
@click.option("--same-node", is_flag=True, help="With that policy, and all guests on one node.")
@click.option("--machines", is_flag=True, help="With guests that have kernels of their own.")
@as_json
def check(guests: int | None, same_node: bool, machines: bool, as_json: bool) -> int:
    """Say what this machine's kernel, programs and limits allow.

    Tries each step of building a lab in a place that ends with the command, and says which limits
    to raise for a large one. Exit code 3 if a lab, or one of so many guests, cannot run.
    """
    from netemu.client.machine_check import SMALL, examine, of_machines
    from netemu.errors import MachineCannot
    from netemu.topology import MAX_GUESTS_PER_NODE
    from netemu.wire.limits import Size

    count = guests or SMALL.guests
    neighbours = min(count, MAX_GUESTS_PER_NODE) if same_node else 0
    findings = examine(Size(count, neighbours=neighbours))
    if machines:
        findings += of_machines()
    able = all(finding.ok for finding in findings)
    if as_json:
        say_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mark = Styled("ok", "green") if finding.ok else Styled("NO", "red")
            say(mark, f"  {finding.what:18} {finding.seen}")
            if not finding.ok and finding.remedy:
                say(f"    → {finding.remedy}")
        say("a lab can run here" if able else "a lab cannot run here")
    return 0 if able else MachineCannot.exit_code
