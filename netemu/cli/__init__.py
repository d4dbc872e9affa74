"""The command line: thin. Each verb reads its options, calls the lab, and prints.

Runs in the user's process. Nothing is imported before it is used: `netemu --help` costs what Click
costs.
"""

import difflib
import importlib
import signal
import sys
from typing import Final, NamedTuple, NoReturn

import click

from hostagent.terminal.command import run
from hostagent.terminal.duration import EXPLAINED
from netemu import __version__
from netemu.errors import NetemuError


class Verb(NamedTuple):
    """A verb: the module of this package and the function in it, and what `--help` says of it."""

    module: str
    function: str
    text: str


# Grouped by purpose, in the order in which people meet them.
_GROUPS: Final = {
    "Labs": {
        "demo": Verb("demo", "demo", "Show the whole story once, in half a minute."),
        "up": Verb("labs", "up", "Bring a lab up."),
        "down": Verb("labs", "down", "Take a lab down."),
        "join": Verb("store", "join", "Bring up this machine's part of a lab on several."),
        "leave": Verb("store", "leave", "End this machine's part of a lab on several."),
        "list": Verb("labs", "list_labs", "List the labs that run."),
        "status": Verb("labs", "status", "Show a lab's nodes, guests and services."),
        "check": Verb("machine", "check", "Say what this machine lacks for a lab."),
        "validate": Verb("files", "validate", "Check a lab file."),
        "schema": Verb("files", "schema", "Print the lab file's JSON schema, for editors."),
    },
    "Inside a lab": {
        "exec": Verb("exec", "exec_command", "Run a command in a guest or on a node."),
        "shell": Verb("exec", "shell", "Open a shell in a guest or on a node."),
        "enter": Verb("exec", "enter", "Open a shell where 'ip netns' shows nodes and guests."),
        "reboot": Verb("exec", "reboot", "Reboot guests."),
        "logs": Verb("events", "logs", "Print what a guest's program says."),
        "set": Verb("properties", "set_properties", "Change what a guest is told of itself."),
    },
    "Maintenance": {
        "maintenance": Verb("maintenance", "maintenance", "Schedule, list, start and end events."),
        "fault": Verb("fault", "fault", "Have the metadata service misbehave."),
        "polls": Verb("polls", "polls", "Show what a guest has asked, and been told."),
        "node": Verb("nodes", "node", "Have nodes fail, and come back."),
        "link": Verb("links", "link", "Have wires delay, lose and corrupt frames, or be down."),
        "clock": Verb("clock", "clock", "Move or show the clock of maintenance."),
        "certificate": Verb("certificate", "certificate", "Print what signatures are verified by."),
        "events": Verb("events", "events", "Show what has happened, or follow what happens."),
    },
    "Look": {
        "graph": Verb("graph", "graph", "Draw a lab: nodes, guests, addresses, events."),
        "top": Verb("top", "top", "Watch guests, rates and events."),
        "capture": Verb("capture", "capture", "Capture at a guest's port or a node's bridge."),
    },
    "Prove and measure": {
        "conformance": Verb("conformance", "conformance", "Attack a lab, and judge it."),
        "chaos": Verb("chaos", "chaos", "Strike a lab with faults, and say what held."),
        "scenario": Verb("scenario", "scenario", "Play a story in a lab, and judge it."),
        "simulate": Verb("simulate", "simulate", "Run claims of many hosts in virtual time."),
        "bench": Verb("bench", "bench", "Measure labs and responders, beside others."),
    },
    "Your shell": {
        "completion": Verb("completion", "completion", "Print the completion for a shell."),
    },
}  # fmt: skip
_VERBS: Final = {name: verb for verbs in _GROUPS.values() for name, verb in verbs.items()}
# Names that other tools use.
_ELSEWHERE: Final = {
    **dict.fromkeys(("deploy", "create", "start", "run", "apply", "launch"), "up"),
    **dict.fromkeys(("destroy", "delete", "stop", "rm", "remove", "clean", "kill"), "down"),
    **dict.fromkeys(("ls", "labs", "ps"), "list"),
    **dict.fromkeys(("inspect", "show", "info", "describe", "get"), "status"),
    **dict.fromkeys(("ssh", "console", "attach", "login", "connect", "bash"), "shell"),
    **dict.fromkeys(("restart", "reset"), "reboot"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("draw", "plot", "topology", "topo"), "graph"),
    **dict.fromkeys(("tcpdump", "sniff", "pcap"), "capture"),
    **dict.fromkeys(("event", "history", "watch"), "events"),
    **dict.fromkeys(("schedule", "approve", "cancel", "complete"), "maintenance"),
    **dict.fromkeys(("fail", "restore", "nodes"), "node"),
    **dict.fromkeys(("links", "netem", "tc", "impair", "wire", "delay", "loss"), "link"),
    **dict.fromkeys(("lint", "config"), "validate"),
    **dict.fromkeys(("doctor", "version", "preflight"), "check"),
    **dict.fromkeys(("test", "prove", "attack"), "conformance"),
    **dict.fromkeys(("benchmark", "perf"), "bench"),
}


class _Verbs(click.Group):
    """Loads a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        verb = _VERBS[cmd_name]
        module = importlib.import_module(f"{__name__}.{verb.module}")
        command: click.Command = getattr(module, verb.function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            ctx.fail(_unknown(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, verbs in _GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, verb.text) for name, verb in verbs.items()])


def _unknown(word: str) -> str:
    meant = _ELSEWHERE.get(word.lower())
    if meant is None:
        close = difflib.get_close_matches(word.lower(), [*_VERBS, *_ELSEWHERE], n=1)
        meant = _ELSEWHERE.get(close[0], close[0]) if close else None
    if meant is None:
        return f"there is no command {word!r}; 'netemu --help' lists them"
    return f"there is no command {word!r}; did you mean 'netemu {meant}'? {_VERBS[meant].text}"


@click.command(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"{EXPLAINED} --json prints JSON on standard output, and nothing else there. "
    "Exit codes: 0 well; 1 something is not so; 2 bad usage or input; 3 the machine cannot.",
)
@click.version_option(__version__, prog_name="netemu")
def cli() -> None:
    """Labs of emulated hosts and VMs, with a cloud's metadata service, on one Linux machine."""


def _end_in_order(number: int, _: object) -> NoReturn:
    """Treat a signal like an error, so that what was begun is undone."""
    sys.exit(128 + number)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; errors are one line and an exit code, never a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # unless nohup(1), for one, ignores it
            signal.signal(number, _end_in_order)
    run(cli, "netemu", arguments, (NetemuError,))
