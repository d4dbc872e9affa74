"""`netemu chaos`: strikes a lab with faults, and checks its promises."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.duration import Duration
from hostagent.terminal.output import Styled, say, say_json
from netemu.chaos.plan import Kind
from netemu.cli.options import TIME_SCALE, as_json, output, pictures, write, writing
from netemu.errors import BadInput, NotSo

if TYPE_CHECKING:
    from netemu.chaos.run import Report

_SEEDS = 1 << 31


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", metavar="LAB", help="Strike this running lab instead of a new one.")
@click.option("--seed", type=click.IntRange(0), help="Repeat the plan of another run.")
@click.option(
    "--for",
    "duration",
    default=60.0,
    metavar="DURATION",
    type=Duration(),
    show_default="1m",
    help="How long.",
)
@click.option(
    "--hostile",
    is_flag=True,
    help="Have a guest of each node attack instead, and measure what its neighbours notice.",
)
@click.option("--only", metavar="KIND,…", help=f"Kinds of faults: {', '.join(Kind)}.")
@click.option(
    "--time-scale",
    type=TIME_SCALE,
    default=0.1,
    metavar="X",
    show_default=True,
    help="Multiply every duration of RFC 3927 by X.",
)
@as_json
@output(".svg", ".json", what="a plot of memory and open files, or the report")
def chaos(
    file: Path | None,
    name: str | None,
    seed: int | None,
    duration: float,
    hostile: bool,
    only: str | None,
    time_scale: float,
    as_json: bool,
    files: tuple[Path, ...],
) -> int:
    """Kill, stop and fail parts of a lab under load, and say what held.

    A lab of its own (FILE, or the built-in one) is brought up, struck at seeded moments while
    commands and polls go on, given a minute to recover, and judged. Exit code 1 names the seed if
    an invariant broke.
    """
    from netemu.chaos.run import run

    kinds, plots = _kinds(only), pictures(files)
    chosen = random.randrange(_SEEDS) if seed is None else seed
    if hostile:
        if only or plots:
            raise BadInput("--hostile: it has no --only, and no plot; -o FILE.json has its report")
        return _hostile(file, name, time_scale, chosen, duration, files, as_json=as_json)
    with _lab(file, name, time_scale) as lab:
        report = run(lab, seed=chosen, duration=duration, kinds=kinds)
    if as_json:
        say_json(report.as_json())
    else:
        _tell(report)
    for one in files:
        if one in plots:
            from netemu.chaos import plot

            with writing(one):
                plot.draw(report, one)
        else:
            write(one, json.dumps(report.as_json(), indent=2) + "\n")
    return 0 if report.held else NotSo.exit_code


def _hostile(
    file: Path | None,
    name: str | None,
    time_scale: float,
    seed: int,
    duration: float,
    files: tuple[Path, ...],
    *,
    as_json: bool,
) -> int:
    from netemu.chaos import hostile, invariants

    with _lab(file, name, time_scale) as lab:
        report = hostile.run(lab, seed=seed, duration=duration)
    if as_json:
        say_json(report.as_json())
    else:
        attacks = ", ".join(f"{count} {kind}" for kind, count in sorted(report.attacks.items()))
        moved = ", ".join(f"{count} {kind}" for kind, count in sorted(report.moved.items()))
        say(f"seed {seed}, {duration:g} s, by {', '.join(report.attackers)}: {attacks}")
        say(f"meanwhile to them: {moved or 'nothing'}")
        say(
            f"neighbours: {report.answered} answered, {report.unanswered} not; p99 "
            f"{report.attacked * 1000:.0f} ms, in quiet {report.quiet * 1000:.0f} ms"
        )
        _verdict(report.breaches, invariants.OF_HOSTILE, report.calm_after, seed)
    for one in files:
        write(one, json.dumps(report.as_json(), indent=2) + "\n")
    return 0 if report.held else NotSo.exit_code


def _kinds(only: str | None) -> tuple[Kind, ...]:
    try:
        return tuple(map(Kind, only.split(","))) if only else tuple(Kind)
    except ValueError as error:
        raise BadInput(f"--only: {error}; kinds are {', '.join(Kind)}") from None


@contextmanager
def _lab(file: Path | None, name: str | None, time_scale: float) -> Iterator[str]:
    from netemu.client import labs
    from netemu.client.api import Lab

    if name is not None:
        if file is not None:
            raise BadInput("give a lab file or --name LAB, not both")
        yield labs.the_one(name)
        return
    with Lab(file, time_scale=time_scale) as lab:
        yield lab.name


def _tell(report: "Report") -> None:
    from netemu.chaos import invariants

    done = ", ".join(f"{count} {kind}" for kind, count in sorted(report.done().items()))
    skipped = sum(one.problem is not None for one in report.struck)
    say(f"seed {report.seed}, {report.duration:g} s: {done or 'no fault'}")
    if skipped:
        say(f"{skipped} faults found nothing to strike, as a node that was away already")
    say(
        f"commands: {report.acknowledged} acknowledged, {report.refused} refused; "
        f"polls: {report.answered} answered, {report.unanswered} not"
    )
    _verdict(report.breaches, invariants.ALL, report.calm_after, report.seed)


def _verdict(
    breaches: Sequence[tuple[str, str]],
    judged_by: Sequence[str],
    calm_after: float | None,
    seed: int,
) -> None:
    broken = dict.fromkeys(judged_by, 0)
    for invariant, _ in breaches:
        broken[invariant] += 1
    for invariant, times in broken.items():
        mark = Styled("✗", "red") if times else Styled("✓", "green")
        say(mark, f" {invariant}{f': broken {times} times' if times else ''}")
    for invariant, witness in breaches[:20]:
        say(f"    {invariant}: {witness}")
    if calm_after is not None:
        say(f"well again {calm_after:g} s after the last fault")
    if breaches:
        say(f"repeat it with --seed {seed}", err=True)
