"""The command line: thin. Each verb reads its options, calls the lab, and prints.

Nothing is imported before it is used: `netemu --help` costs what Click costs.
"""

import importlib
import sys
from typing import Any, NoReturn

import click

from netemu import __version__
from netemu.errors import NetemuError

# verb: (module of this package, function, what it does). In the order in which people meet them.
_VERBS = {
    "demo": ("demo", "demo", "Show the whole story once, in half a minute."),
    "up": ("labs", "up", "Bring a lab up."),
    "down": ("labs", "down", "Take a lab down."),
    "list": ("labs", "list_labs", "List the labs that run."),
    "status": ("labs", "status", "Show a lab's nodes, guests and services."),
    "exec": ("exec", "exec_command", "Run a command in a guest or on a node."),
    "shell": ("exec", "shell", "Open a shell in a guest or on a node."),
    "enter": ("exec", "enter", "Open a shell where 'ip netns' shows nodes and guests."),
    "reboot": ("exec", "reboot", "Reboot guests."),
    "maintenance": ("maintenance", "maintenance", "Plan, list, start and end what befalls guests."),
    "node": ("nodes", "node", "Have nodes fail, and come back."),
    "events": ("events", "events", "Tell what has happened, or follow what happens."),
    "logs": ("events", "logs", "Print what a guest's program says."),
    "graph": ("graph", "graph", "Draw a lab: nodes, guests, addresses, events."),
    "top": ("top", "top", "Watch guests, rates and events."),
    "capture": ("capture", "capture", "Capture at a guest's port or a node's bridge."),
    "clock": ("clock", "clock", "Move or show the clock by which maintenance goes."),
    "set": ("properties", "set_properties", "Change what guests are told of themselves."),
    "conformance": ("conformance", "conformance", "Attack a lab, and say whether it holds."),
    "scenario": ("scenario", "scenario", "Play a story in a lab, and judge it."),
    "validate": ("files", "validate", "Check a lab file."),
    "schema": ("files", "schema", "Print the lab file's JSON schema, for editors."),
    "simulate": ("simulate", "simulate", "Run claims of many hosts in virtual time."),
    "bench": ("bench", "bench", "Measure labs and responders, beside others."),
    "completion": ("completion", "completion", "Print the completion for a shell."),
    "check": ("machine", "check", "Say what this machine lacks for a lab, and what to do."),
}


class _Verbs(click.Group):
    """Loads a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, function, _ = _VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in _VERBS.items()])


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 well; 1 something is not so; 2 bad usage or input; 3 the machine cannot.",
)
@click.version_option(__version__, prog_name="netemu")
def cli() -> None:
    """Labs of emulated hosts and VMs, with a cloud's metadata service, on one Linux machine."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; errors are one line and an exit code, never a traceback."""
    try:
        outcome: Any = cli.main(arguments, prog_name="netemu", standalone_mode=False)
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except NetemuError as error:
        click.echo(f"netemu: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("netemu: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read has had enough; what is left in the buffers must not complain at exit.
        sys.stderr.close()
        sys.exit(141)
