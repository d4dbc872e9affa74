"""What a shell may complete: the names of labs that run, and of what is in them.

Never an error, whatever is the matter: a person is just typing.
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
    """Names of the nodes of the lab that is meant."""
    return _beginning(typed, *_names(context)[:1])


def guests(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of the guests of the lab that is meant."""
    return _beginning(typed, *_names(context)[1:])


def guests_and_nodes(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of both."""
    return _beginning(typed, *_names(context))


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
