"""Runs a command line: every error is one line and an exit code, never a traceback.

Exit codes: 0 well; 1 not so, or refused; 2 bad usage or input; 3 the machine cannot; 130 Ctrl-C.
Imports all that it needs at once: a daemon may end here after it has given up its privileges.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TextIO

import click

from hostagent.terminal.output import NobodyReads, OutputFailed, say

# What a write says whose text is lost: the disk is full, over a limit, or broken.
_LOST: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_FAILED: Final = 1
_MACHINE_CANNOT: Final = 3
_INTERRUPTED: Final = 130
_NOBODY_READS: Final = 141


def run(
    command: click.Command,
    name: str,
    arguments: Sequence[str] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Run `command` as the program `name` and exit. `errors` have an `exit_code` each."""
    _prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _require_text(words)
        outcome: Any = command.main(words, prog_name=name, standalone_mode=False)
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except errors as error:
        _end(f"{name}: {error}", error.exit_code)  # type: ignore[attr-defined]
    except click.ClickException as error:
        _end(_shown(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end(f"{name}: interrupted", _INTERRUPTED)
    except NobodyReads:
        _end("", _NOBODY_READS)
    except OutputFailed as error:
        _end(f"{name}: {error}", _FAILED)
    except OSError as error:
        if error.filename is None and error.errno in _LOST:  # click prints --help by itself
            _end(f"{name}: the output cannot be written: {error.strerror}", _FAILED)
        _end(f"{name}: {error}", _MACHINE_CANNOT)


def _prepare() -> None:
    """Make the process one that can print and wait, however it was started."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file opened would take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal shows ✓ as an escape
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children could not be waited for


def _require_text(words: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8; what comes after -- is another program's."""
    for word in words:
        if word == "--":
            return
        try:
            word.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{word!r}: an argument is UTF-8 text; options of other "
                                   "programs come after --") from None  # fmt: skip


def _shown(error: click.ClickException) -> str:
    """What click would print."""
    text = io.StringIO()
    error.show(file=text)
    return text.getvalue().rstrip("\n")


def _is_lost(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return True
    return False


def _end(text: str, code: int) -> NoReturn:
    """Say why, and exit; what could not be written is forgotten, so that exiting does not fail."""
    if text:
        say(text, err=True, lines=True)
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _is_lost(stream):
            os.dup2(null, stream.fileno())
    sys.exit(code)
