"""The shell's completions: running labs, their nodes and guests, events, and properties' keys.

It never fails: the user is only typing.
"""

import click


def labs(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of running labs."""
    from netemu.errors import NetemuError
    from netemu.wire import runtime_dir

    try:
        return [name for name in runtime_dir.running() if name.startswith(typed)]
    except (NetemuError, OSError):
        return []


def nodes(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of the lab's nodes."""
    return _beginning(typed, *_names(context)[:1])


def guests(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of the lab's guests."""
    return _beginning(typed, *_names(context)[1:])


def guests_and_nodes(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of the lab's nodes and guests."""
    return _beginning(typed, *_names(context))


def events(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """IDs of the lab's events that have not ended."""
    from netemu.client import labs
    from netemu.client.maintenance import Maintenance
    from netemu.errors import NetemuError

    try:
        plan = Maintenance(labs.the_one(context.params.get("name")))
        return _beginning(typed, [event.id for event in plan.events()])
    except (NetemuError, OSError):
        return []


def properties(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Keys of the properties that guests can have, each with its sign."""
    from hostagent.properties import KNOWN, PREFIXES
    from netemu.wire.lab_file import OWN

    keys = [f"{key}=" for key in KNOWN if key not in OWN]
    return _beginning(typed, [*keys, *PREFIXES])


def _beginning(typed: str, *names: list[str]) -> list[str]:
    return [name for some in names for name in some if name.startswith(typed)]


def _names(context: click.Context) -> tuple[list[str], list[str]]:
    """The nodes and the guests of the lab that --name says, or of the only one."""
    from netemu.client import labs
    from netemu.errors import NetemuError

    try:
        told = labs.status(labs.the_one(context.params.get("name")))
    except (NetemuError, OSError):
        return [], []
    return (
        [node["name"] for node in told["nodes"]],
        [guest["name"] for node in told["nodes"] for guest in node["guests"]],
    )
