"""Progress bars for long work: on a terminal's standard error, and nowhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hostagent.terminal.output import visible

if TYPE_CHECKING:
    from netemu.wire.progress import Step

# Columns of text before the bar.
_PHASE, _PIECE = 22, 50


@contextmanager
def phases() -> "Iterator[Callable[[Step], None]]":
    """One bar for each phase. Yields the function that is called with each step."""
    with _bars(_PHASE) as shown:
        tasks: dict[str, Any] = {}

        def on_step(step: "Step") -> None:
            if step.phase not in tasks:
                tasks[step.phase] = shown.add_task(visible(step.phase), total=step.of)
            shown.update(tasks[step.phase], completed=step.done)

        yield on_step if shown is not None else lambda _: None


@contextmanager
def pieces(total: int, at_first: str) -> Iterator[Callable[[str], None]]:
    """One bar for this many pieces of work. Yields the function to call with a text after each
    piece.
    """
    with _bars(_PIECE) as shown:
        if shown is None:
            yield lambda _: None
            return
        task = shown.add_task(at_first, total=total)
        yield lambda what: shown.update(task, advance=1, description=visible(what))


@contextmanager
def _bars(width: int) -> Iterator[Any]:
    """The bars, removed when the work is over; None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn(f"{{task.description:<{width}.{width}}}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, emoji=False, markup=False, highlight=False),
        transient=True,
    ) as shown:
        yield shown
