"""The report of a bench, as tables or JSON."""

import operator
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct, field

from hostagent.terminal.output import Part, Styled, say, say_json
from hostagent.terminal.table import Column, print_table
from netemu.bench.rounds import Sample, Spread

_REACHED: Final = {"at most": operator.le, "at least": operator.ge}


class Goal(Struct, frozen=True):
    """A goal for a ratio or a value; `bound` is "at most" or "at least" `limit`."""

    what: str
    value: Spread
    bound: str
    limit: float

    @property
    def reached(self) -> bool:
        """Whether the median is within the bound."""
        return bool(_REACHED[self.bound](self.value.median, self.limit))


class Report(Struct):
    """`samples` by contestant, in the order of the table, and `notes` to the numbers.

    A contestant's samples lack the metrics that it does not have.
    """

    bench: str
    samples: dict[str, list[Sample]]
    goals: list[Goal] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print(self) -> None:
        """Print tables on standard output."""
        metrics = list(dict.fromkeys(m for many in self.samples.values() for s in many for m in s))
        print_table(
            [
                Column(self.bench),
                *(Column(metric, rank=rank, right=True) for rank, metric in enumerate(metrics)),
            ],
            [
                [name, *(_cell(many, metric) for metric in metrics)]
                for name, many in self.samples.items()
            ],
        )
        if self.goals:
            say()
            rows: list[list[Part]] = [
                [
                    one.what,
                    _text(one.value),
                    f"{one.bound} {one.limit:g}",
                    Styled("reached", "green") if one.reached else Styled("NOT reached", "yellow"),
                ]
                for one in self.goals
            ]
            print_table(
                [
                    Column("GOAL", folds=True),
                    Column("MEASURED", rank=2, right=True),
                    Column("WANTED", rank=1, right=True),
                    Column("", right=True),
                ],
                rows,
            )
        for missing in self.not_measured:
            say(f"not measured: {missing}")
        for note in self.notes:
            say(note)

    def print_json(self) -> None:
        """Print the report as JSON."""
        say_json(msgspec.to_builtins(self._told()))

    def write(self, file: Path) -> None:
        """Write the report as JSON."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self._told())) + b"\n")

    def _told(self) -> dict[str, object]:
        """Return the report with the machine, the date and the command."""
        return {
            "bench": self.bench,
            "command": shlex.join(["netemu", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "results": {
                name: {
                    metric: Spread.of([s[metric] for s in many if metric in s])
                    for metric in dict.fromkeys(m for s in many for m in s)
                }
                for name, many in self.samples.items()
            },
            "goals": [{**msgspec.structs.asdict(g), "reached": g.reached} for g in self.goals],
            "not_measured": self.not_measured,
            "notes": self.notes,
            "samples": self.samples,
        }


def machine() -> dict[str, str | int]:
    """Return a description of the machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cell(many: list[Sample], metric: str) -> str:
    values = [sample[metric] for sample in many if metric in sample]
    return _text(Spread.of(values)) if values else "-"


def _text(spread: Spread) -> str:
    if spread.min == spread.max:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.min)}…{_number(spread.max)})"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
