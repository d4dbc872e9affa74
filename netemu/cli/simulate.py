"""`netemu simulate`: more hosts than any machine has room for, in virtual time."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostagent.terminal.number import Number
from hostagent.terminal.output import Part, Styled, say, say_json
from netemu.cli.options import as_json, output, pictures, write, writing

if TYPE_CHECKING:
    from netemu.bench.simulation import Simulation


@click.group()
def simulate() -> None:
    """Run what a lab runs, in virtual time."""


@simulate.command()
@click.option(
    "--hosts",
    type=click.IntRange(1, 65_000),
    default=1300,
    show_default=True,
    help="Hosts that are switched on at once.",
)
@click.option(
    "--loss",
    type=Number(0, 0.99),
    default=0.0,
    show_default=True,
    help="Probability that a frame does not reach a host that listens for it.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed makes the same run."
)
@click.option(
    "--newcomers",
    type=click.IntRange(1, 1_000_000),
    default=20_000,
    show_default=True,
    help="Hosts that join, one after another, once all others are settled.",
)
@as_json
@output(".svg", ".json", what="a plot or the results")
def claims(
    hosts: int,
    loss: float,
    seed: int,
    newcomers: int,
    as_json: bool,
    files: tuple[Path, ...],
) -> int:
    """Claim addresses (RFC 3927) on a simulated link, and compare it with the formulas.

    It is the state machine of the labs' guests, in virtual time. Exit code 1 if what is measured
    is not what the formulas say.
    """
    import sys

    import msgspec

    from netemu.bench.simulation import simulate as run
    from netemu.errors import NotSo

    plots = pictures(files)

    def on_phase(phase: str) -> None:
        if sys.stderr.isatty():
            say(f"{phase} …", err=True)

    found = run(hosts, loss=loss, seed=seed, newcomers=newcomers, on_phase=on_phase)
    results = {**msgspec.to_builtins(found), "holds": found.holds}
    if as_json:
        say_json(results)
    else:
        _print(found)
    for file in files:
        if file in plots:
            from netemu.bench import plot

            with writing(file):
                plot.simulation(found, file)
        else:
            write(file, json.dumps(results, indent=2) + "\n")
    return 0 if found.holds else NotSo.exit_code


def _print(found: "Simulation") -> None:
    from statistics import fmean

    from hostagent.terminal.table import Column, print_table

    fleet = found.fleet
    times = fleet.claim_times
    say(
        f"{fleet.hosts:,} hosts switched on at once, loss {found.loss:g}, seed {found.seed}: "
        f"{fleet.bound:,} bound after {min(times):.2f} … {max(times):.2f} s, "
        f"{fmean(times):.2f} s on average (a claim without conflict: 4 … 7 s, 5.5 s); "
        f"{fleet.conflicts:,} conflicts, {fleet.frames:,} frames, at most {fleet.most_tries:,} "
        f"candidates for one host; {fleet.held_twice:,} addresses held twice in the end"
    )
    rows: list[list[Part]] = [
        [
            one.what,
            *(_percent(share) for share in (one.measured, one.expected, one.error)),
            f"{one.trials:,}",
            Styled("agrees", "green") if one.holds else Styled("DIFFERS", "red"),
        ]
        for one in found.comparisons
    ]
    print_table(
        [
            Column("RFC 3927 1.3, DSN 2003", folds=True),
            Column("MEASURED", right=True),
            Column("FORMULA", rank=1, right=True),
            Column("STD. ERROR", rank=2, right=True),
            Column("TRIALS", rank=3, right=True),
            Column("", right=True),
        ],
        rows,
    )


def _percent(share: float) -> str:
    if share in (0, 1) or 1e-6 < share < 1:
        return f"{100 * share:.5g} %"
    return f"{share:.1e}"


@simulate.command()
@click.option(
    "--seeds", type=click.IntRange(1), default=100, show_default=True, help="How many to run."
)
@click.option(
    "--from", "first", type=click.IntRange(0), default=1, metavar="SEED", help="The first seed."
)
@click.option("--mutant", metavar="NAME", help="Plant a defect, or 'all' of them in turn.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Seeds that run at once  [default: one for each core]"
)
@click.option(
    "--machines", is_flag=True, help="Simulate a lab on three machines that share a store."
)
@as_json
def faults(
    seeds: int, first: int, mutant: str | None, jobs: int | None, machines: bool, as_json: bool
) -> int:
    """Run a lab's agents, healing and events in virtual time, under faults drawn from a seed.

    It is the code that runs in labs. Each invariant has a checker; exit code 1 names the first seed
    that broke one. With --mutant a defect is planted, and it is an error if no checker sees it.
    """
    from netemu.errors import NotSo
    from netemu.simulation.campaign import LAB, MACHINES, outcomes

    story = MACHINES if machines else LAB
    if mutant is not None:
        return _hunt(mutant, first, seeds, jobs, as_json, story)

    broken: list[tuple[int, str, str]] = []
    virtual = real = 0.0
    commands = polls = struck = 0
    for outcome in outcomes(first, seeds, jobs=jobs, story=story):
        virtual, real = virtual + outcome["virtual"], real + outcome["real"]
        commands, polls = commands + outcome["commands"], polls + outcome["polls"]
        struck += len(outcome["faults"])
        broken += [(outcome["seed"], *breach) for breach in outcome["breaches"]]
    speed = round(virtual / max(real, 0.001))
    if as_json:
        say_json(
            {
                "seeds": seeds,
                "from": first,
                "commands": commands,
                "polls": polls,
                "faults": struck,
                "virtual_seconds_per_cpu_second": speed,
                "breaches": broken,
            }
        )
    else:
        say(
            f"{seeds} seeds: {struck:,} faults, {commands:,} commands, {polls:,} documents; "
            f"{speed:,} virtual seconds for each second of CPU"
        )
        for seed, checker, witness in broken[:20]:
            say(f"seed {seed}: {checker}: {witness}")
        say(
            "every invariant held" if not broken else f"repeat with --from {broken[0][0]} --seeds 1"
        )
    return NotSo.exit_code if broken else 0


def _hunt(name: str, first: int, seeds: int, jobs: int | None, as_json: bool, story: str) -> int:
    from hostagent.terminal.table import Column, print_table
    from netemu.errors import BadInput, NotSo
    from netemu.simulation import machine_mutants, mutants
    from netemu.simulation.campaign import MACHINES, hunt

    known = machine_mutants.BY_NAME if story == MACHINES else mutants.BY_NAME
    if name != "all" and name not in known:
        raise BadInput(f"{name}: no such mutant; there are: {', '.join(known)}")
    chosen = list(known.values()) if name == "all" else [known[name]]
    found = [(one, hunt(one, first, seeds, jobs, story=story)) for one in chosen]
    missed = [one.name for one, caught in found if caught.seed is None]
    if as_json:
        say_json(
            [
                {"mutant": one.name, "module": one.module, **caught._asdict()}
                for one, caught in found
            ]
        )
    else:
        print_table(
            [Column("mutant"), Column("seed", right=True), Column("caught by")],
            [
                [
                    one.name,
                    "-" if caught.seed is None else str(caught.seed),
                    ", ".join(caught.checkers) or Styled("NOBODY", "red"),
                ]
                for one, caught in found
            ],
        )
    return NotSo.exit_code if missed else 0
