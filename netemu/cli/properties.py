"""`netemu set`: what a guest is told of itself."""

import click

from hostagent.terminal.output import say, say_json
from netemu.cli.completing import guests, properties
from netemu.cli.options import as_json, of_lab


@click.command("set")
@of_lab
@click.argument("guest", metavar="GUEST", shell_complete=guests)
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, shell_complete=properties)
@as_json
def set_properties(name: str | None, guest: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change a guest's properties while it runs, as in: set web1 vm_size=Standard_F2 tags.team=a.

    KEY= takes one away: the guest is told the default again. user_data=@FILE is what FILE holds.
    Without changes, shows the properties
    that the guest has been given by the lab file or in this way.
    """
    from netemu.client import labs
    from netemu.errors import BadInput

    wanted: dict[str, str] = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not key:
            raise BadInput(f"{change!r} does not change a property: write KEY=VALUE, or KEY=")
        if key in wanted:
            raise BadInput(f"{key}: stands twice")
        wanted[key] = value
    told = labs.set_properties(labs.the_one(name), guest, wanted)
    if as_json:
        say_json(told)
        return
    for key in sorted(told):
        say(f"{key}={told[key]}")
