"""Measures machines with kernels of their own: how long they take to be answered, and their memory.

Runs in the user's process, on labs of its own. A machine has a processor that is emulated, and
claims its address at RFC 3927's pace.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from netemu.bench.report import Report
from netemu.bench.rounds import Sample, Spread, in_turn
from netemu.client import labs, machines
from netemu.errors import BadInput, NotSo
from netemu.topology import Lab, parse

BOUND, ANSWERED, SHARE, RESIDENT = "bound s", "answered s", "PSS MiB", "RSS MiB"
# BusyBox's own limit crashes when it is reached.
_ASK: Final = ("timeout", "3", "wget", "-qO-", "http://169.254.169.254/metadata/v1/InstanceInfo")
_AGAIN: Final = 0.1
_PATIENCE: Final = 300.0
_FIGURES: Final = (
    "published, not measured here: Firecracker starts a guest's /sbin/init within 125 ms, by KVM, "
    "with 5 MiB beside the guest's memory (firecracker-microvm/firecracker, SPECIFICATION.md)"
)


def run(image: Path, counts: tuple[int, ...], *, rounds: int, say: Callable[[str], None]) -> Report:
    """Bring up labs of so many machines each, which boot `kernel` and `initrd` in `image`."""
    for name in ("kernel", "initrd"):
        if not (image / name).is_file():
            raise BadInput(
                f"{image / name}: no such file: 'netns-scripts/vm-image small' builds it"
            )
    contestants = {
        f"{count} at once" if count > 1 else "one machine": _of(image, count) for count in counts
    }
    samples = in_turn(contestants, rounds=rounds, warm_up=0, on_turn=say)
    say("")
    share = Spread.of([sample[SHARE] for many in samples.values() for sample in many]).median
    room = int(_available() // share)
    notes = [f"{room} such machines fit into the memory that is free here now", _FIGURES]
    return Report("machines", samples, notes=notes)


def _of(image: Path, count: int) -> Callable[[], Sample]:
    return lambda: _measure(_lab(image.resolve(), count))


def _lab(image: Path, count: int) -> Lab:
    machine = f"{{kernel: {image}/kernel, initrd: {image}/initrd, memory: 128, append: quiet}}"
    name = f"bench-{os.getpid()}"
    guests = ", ".join(f"{{name: {name}-{number}, machine: {machine}}}" for number in range(count))
    return parse(f"name: {name}\nnodes: {{node1: {{guests: [{guests}]}}}}\n", source="bench")


def _measure(lab: Lab) -> Sample:
    begun = time.monotonic()
    labs.bring_up(lab, owned=True)
    try:
        bound = time.monotonic() - begun
        for guest in lab.guests:
            _await_answer(lab.name, guest.name, begun + _PATIENCE)
        answered = time.monotonic() - begun
        memory = [one for guest in lab.guests for one in _memory(guest.name)]
    finally:
        labs.take_down(lab.name)
    if len(memory) != len(lab.guests):
        raise NotSo("the memory of an emulator cannot be read")
    shares, resident = zip(*memory, strict=True)
    most = len(memory)
    return {
        BOUND: bound,
        ANSWERED: answered,
        SHARE: sum(shares) / most,
        RESIDENT: sum(resident) / most,
    }


def _await_answer(lab: str, guest: str, end: float) -> None:
    while machines.run(lab, guest, _ASK, "", None).returncode != 0:
        if time.monotonic() > end:
            raise NotSo(f"{guest} is not answered within {_PATIENCE:g} s")
        time.sleep(_AGAIN)


def _memory(guest: str) -> Iterator[tuple[float, float]]:
    """What the emulator of a guest has in memory, in MiB: its share of it, and all of it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"-name" not in words or words[words.index(b"-name") + 1] != guest.encode():
                continue
            rollup = (process / "smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        yield sizes["Pss"] / 1024, sizes["Rss"] / 1024


def _available() -> float:
    """The machine's memory that is free, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024
