"""`netemu completion`: prints the script by which a shell completes netemu's words and names."""

import click

from hostagent.terminal.output import say_data

# The file where a shell looks by itself, or the line for its start-up file.
_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/netemu",
    "zsh": "a file _netemu in a directory of $fpath, or: source <(netemu completion zsh)",
    "fish": "~/.config/fish/completions/netemu.fish",
}


@click.command(
    epilog="\b\nWhere it belongs:\n" + "\n".join(f"  {one}: {at}" for one, at in _WHERE.items())
)
@click.argument("shell", type=click.Choice(tuple(_WHERE)))
def completion(shell: str) -> None:
    """Print the completion for a shell: of verbs, options, and names in labs that run."""
    from click.shell_completion import get_completion_class

    from netemu.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(cli, {}, "netemu", "_NETEMU_COMPLETE")
    # (`source` would look for a bash on this machine, and this may be for another)
    say_data(made.source_template % made.source_vars() + "\n")
