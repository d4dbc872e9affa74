"""The command line: `hostagent agent`, `hostagent responder`, `hostagent controller`.

Thin: what it does, a caller in Python can do as well. Exit codes: 0 well; 1 refused; 2 bad usage or
input; 3 the machine cannot, or the agent cannot be reached. Each command imports what it needs when
it starts; a daemon imports nothing once it has given up its privileges.
"""

from typing import NoReturn

import click

from hostagent.cli.controller import controller
from hostagent.cli.daemons import agent, responder
from hostagent.terminal.command import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """A node's host agent, its metadata responder, and the controller that commands the agent.

    \b
    A plain machine, guests known by their source address (as good as what keeps them from lying):
      hostagent agent --node n1 --repository n1.sqlite --command cmd.sock --feed feed.sock
      hostagent responder --agent feed.sock --listen 127.0.0.1:8080 --identity address
      hostagent controller --agent cmd.sock place web1 --address 127.0.0.1
      hostagent controller --agent cmd.sock schedule web1 --type reboot --in 5m
      curl http://127.0.0.1:8080/metadata/v1/InstanceInfo
    """  # noqa: D301


def main() -> NoReturn:
    """Run the command line; an error is one line on stderr and an exit code."""
    run(cli, "hostagent")


for command in (agent, responder, controller):
    cli.add_command(command)
