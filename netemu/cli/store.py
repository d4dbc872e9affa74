"""Labs on several machines, and where their commands are kept: options, and two verbs."""

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostagent.terminal.output import say
from netemu.cli.completing import labs
from netemu.cli.options import lab_name, named
from netemu.cli.progress import phases

if TYPE_CHECKING:
    from netemu.topology import Lab
    from netemu.wire.store_address import StoreAddress


def at_store(*, required: bool) -> Callable[[Any], Any]:
    """The options that say where a lab's commands are kept; they become one argument, `store`."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    what = "Keep the lab's commands there" if not required else "Where the lab's commands are kept"
    options = (
        click.option(
            "--store",
            required=required,
            metavar="etcd://HOST[:PORT],...",
            help=f"{what}; the port is 2379 if none is said.",
        ),
        click.option(
            "--machine",
            default=platform.node,
            show_default="host name",
            help="This machine's name there.",
        ),
        click.option("--ca", type=file, help="For TLS: the CA of the store's servers."),
        click.option("--cert", type=file, help="This machine's certificate."),
        click.option("--key", type=file, help="The key of that certificate."),
    )

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def run(store: str | None, machine: str, **rest: Any) -> None:
            files = {name: rest.pop(name) for name in ("ca", "cert", "key")}
            address = None
            if store is not None:
                from netemu.wire import store_address

                address = store_address.parse(store, machine=machine, **files)
            elif any(files.values()):
                raise click.UsageError("--ca, --cert and --key are for --store")
            verb(store=address, **rest)

        for option in reversed(options):
            run = option(run)
        return run

    return decorated


@click.command()
@click.argument("name")
@at_store(required=True)
def join(name: str, store: "StoreAddress") -> None:
    """Bring up this machine's nodes of lab NAME, which has begun on another machine.

    They are those whose `machine:` in the lab file is this one's name. The lab's events, its clock
    and its status are one on all machines, and 'set', 'reboot' and 'node' reach all of them. What
    needs a guest's own kernel, as 'exec', is done where it is. `netemu leave` ends this machine's
    part.
    """
    from netemu.client import joining, labs

    begun, address = joining.begun(name, store)
    with phases() as on_step:
        new = labs.bring_up(begun.lab, time_scale=begun.time_scale, on_step=on_step, store=address)
    say_up(begun.lab, new, address)


def say_up(lab: "Lab", new: bool, store: "StoreAddress | None") -> None:
    """Say that a lab is up, and how much of it is here."""
    from netemu.wire.order import nodes_here

    here = nodes_here(lab, store)
    shape = f"{count(len(here), 'node')}, {count(sum(len(one.guests) for one in here), 'guest')}"
    if store is not None and len(here) < len(lab.nodes):
        shape += f" of {len(lab.nodes)} nodes, on machine {store.machine}"
    say(f"{lab.name}: {'up' if new else 'was up already'} ({shape})")


@click.command()
@click.argument("lab", required=False, shell_complete=labs)
@lab_name
def leave(lab: str | None, name: str | None) -> None:
    """End this machine's part of LAB; other machines keep theirs.

    It is what 'netemu down' does to a lab on several machines. The last one ends the lab.
    """
    from netemu.client import labs

    one = labs.the_one(named(lab, name))
    labs.take_down(one)
    say(f"{one}: left")


def count(number: int, what: str) -> str:
    """So many of something."""
    return f"{number} {what}{'' if number == 1 else 's'}"
