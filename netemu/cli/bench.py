"""`netemu bench`: measure, print, and say which goals were missed."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hostagent.terminal.number import Number
from netemu.cli.options import TIME_SCALE, as_json, output, pictures, writing
from netemu.cli.store import at_store

if TYPE_CHECKING:
    from netemu.bench.report import Report
    from netemu.wire.store_address import StoreAddress

# As many guests as 169.254/16 has addresses.
_GUESTS = click.IntRange(1, 65_024)


@click.group()
def bench() -> None:
    """Measure labs and responders, in turn with the kernel alone and with other people's.

    What is measured runs in namespaces of its own; other load on the machine spoils the numbers.
    Peers are installed by netns-scripts/bench-peers. Exit code 0 whether or not goals are reached.
    """


class How(NamedTuple):
    """The options of every bench, and what follows from them."""

    quick: bool
    rounds: int | None
    as_json: bool
    files: tuple[Path, ...]

    @property
    def turns(self) -> int:
        """How many rounds to measure."""
        from netemu.bench.rounds import QUICK_ROUNDS, ROUNDS

        return self.rounds or (QUICK_ROUNDS if self.quick else ROUNDS)

    @property
    def warm_up(self) -> int:
        """How many rounds to measure before the first that counts."""
        return 0 if self.quick else 1

    def tell(self, report: "Report", draw: Callable[[Path], None] | None = None) -> None:
        """Print a report, and write it into files; `draw` draws the picture that is not bars."""
        from netemu.bench import plot

        if self.as_json:
            report.print_json()
        else:
            report.print()
        for file in self.files:
            with writing(file):
                if file.suffix.lower() == ".json":
                    report.write(file)
                elif draw is not None:
                    draw(file)
                else:
                    plot.bars(report, file)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a bench the options of every bench, as its first argument."""

    @wraps(command)
    def run(
        *, quick: bool, rounds: int | None, as_json: bool, files: tuple[Path, ...], **own: Any
    ) -> None:
        pictures(files)
        command(How(quick, rounds, as_json, files), **own)

    measured: Callable[..., None] = run
    for option in (
        as_json,
        output(".svg", ".json", what="a plot or the results"),
        click.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            help="Measurements of each. Default: 5; 2 with --quick.",
        ),
        click.option("--quick", is_flag=True, help="Small and short: to try it, not to quote it."),
    ):
        measured = option(measured)
    return measured


@bench.command()
@click.option("--guests", type=_GUESTS, help="Guests. Default: 1,000; 60 with --quick.")
@click.option(
    "--nodes", type=click.IntRange(1, 256), help="Nodes. Default: one for each 100 guests."
)
@click.option("--growth", is_flag=True, help="100 to 10,000 guests: what does one more cost?")
@_common
def build(
    how: How,
    guests: int | None,
    nodes: int | None,
    growth: bool,
) -> None:
    """Bring labs up and down: beside a bare loop over the kernel's part, and beside Mininet."""
    from netemu.bench import build as builds
    from netemu.bench import plot, stage

    if growth:
        sizes: tuple[int, ...] = builds.GROWTH
        if guests is not None or how.quick:
            sizes = tuple(size for size in (30, 60, *sizes) if size <= (guests or 60))
        report, series = builds.grow(
            sizes,
            rounds=how.turns,
            warm_up=how.warm_up,
            on_turn=stage.say,
        )
        stage.say("")
        metrics = [builds.UP, builds.UP_CPU, builds.DOWN]
        how.tell(report, lambda file: plot.lines(series, metrics, "guests", file))
        return
    count = guests or (60 if how.quick else 1_000)
    report = builds.run(
        guests=count,
        nodes=nodes or -(-count // 100),
        peer_guests=10 if how.quick else builds.MININET_GUESTS,
        rounds=how.turns,
        on_turn=stage.say,
    )
    stage.say("")
    how.tell(report)


@bench.command()
@click.option("--guests", type=_GUESTS, help="Guests. Default: 1,000; 60 with --quick.")
@click.option(
    "--nodes",
    type=click.IntRange(1, 256),
    help="With --whole: nodes. Default: one for each 500 guests.",
)
@click.option(
    "--whole", is_flag=True, help="One lab with its services, until every guest is answered."
)
@click.option(
    "--time-scale",
    type=TIME_SCALE,
    metavar="X",
    help="Multiply RFC 3927's durations. Default: 1; 0.1 with --quick.",
)
@_common
def claim(
    how: How,
    guests: int | None,
    nodes: int | None,
    whole: bool,
    time_scale: float | None,
) -> None:
    """Claim addresses: from wired to all bound, and CPU per claim as bridges grow."""
    from netemu.bench import build as builds
    from netemu.bench import claim as claims
    from netemu.bench import plot, stage

    count = guests or (60 if how.quick else 1_000)
    scale = time_scale or (0.1 if how.quick else 1.0)
    if whole:
        report = claims.whole(
            guests=count, nodes=nodes or -(-count // builds.PER_NODE), time_scale=scale
        )
        how.tell(report)
        return
    sizes = tuple(size for size in claims.SIZES if size < count) or (count,)
    if count <= claims.SIZES[-1] and count not in sizes:
        sizes = (*sizes, count)
    report, series = claims.compare(
        guests=count,
        sizes=sizes,
        time_scale=scale,
        rounds=how.turns,
        warm_up=how.warm_up,
        on_turn=stage.say,
    )
    stage.say("")
    metrics = [claims.BOUND, claims.USER, claims.SYSTEM]
    axis = "guests on a bridge"
    how.tell(report, lambda file: plot.lines(series, metrics, axis, file))


@bench.command()
@click.option(
    "--seconds", type=Number(0.1, 600), help="Seconds of a measurement. Default: 3; 1 with --quick."
)
@click.option(
    "--guests", type=click.IntRange(1, 1023), help="Guests that poll at once. Default: 1,000."
)
@_common
def responder(
    how: How,
    seconds: float | None,
    guests: int | None,
) -> None:
    """Ask the responder over a guest's wire, in turn with nginx, uvicorn, aiohttp and plain C."""
    from netemu.bench import responder as responders
    from netemu.bench import stage

    job = responders.Job(
        rounds=how.turns,
        seconds=seconds or (1 if how.quick else 3),
        guests=guests or (20 if how.quick else 1_000),
        polls=5 if how.quick else 20,
        warm_up=how.warm_up,
    )
    how.tell(stage.measure("netemu.bench.responder", job))


@bench.command()
@click.option("--guests", type=click.IntRange(1, 1023), help="Guests that wait. Default: 1,000.")
@_common
def events(
    how: How,
    guests: int | None,
) -> None:
    """Time from a controller's acknowledgement to the last waiting guest; commands per second."""
    from netemu.bench import events as waits
    from netemu.bench import plot, stage

    count = guests or (20 if how.quick else 1_000)
    job = waits.Job(
        rounds=how.turns,
        guests=count,
        wakes=3 if how.quick else 20,
        parked=(5 if how.quick else 10) * count,
        seconds=0.5 if how.quick else 3,
    )
    report = stage.measure("netemu.bench.events", job)
    how.tell(report, lambda file: plot.shares(report, waits.DELAY, waits.LIMITS, file))


@bench.command()
@_common
def link(how: How) -> None:
    """Impaired wires: how exact a delay is, what is lost, frames a second and CPU a frame."""
    from netemu.bench import stage, wire

    job = wire.Job(
        rounds=how.turns,
        frames=1_000 if how.quick else 10_000,
        seconds=0.5 if how.quick else 3.0,
        warm_up=how.warm_up,
    )
    how.tell(stage.measure("netemu.bench.wire", job))


@bench.command()
@at_store(required=True)
@_common
def machines_of_a_lab(how: How, store: "StoreAddress") -> None:
    """Commands of a lab whose store is etcd: on one machine, beside three.

    The servers have to run: netns-scripts/etcd starts them. Machines are tasks of one process.
    """
    from netemu.bench import machines_of_a_lab as shared

    job = shared.Job(
        rounds=how.turns,
        warm_up=how.warm_up,
        alone=20 if how.quick else 100,
        at_once=200 if how.quick else 2_000,
        places=500 if how.quick else 10_000,
    )
    how.tell(shared.run(job, store))


@bench.command()
@click.argument("image", type=click.Path(path_type=Path), default=".images/small")
@click.option("--machines", type=click.IntRange(1, 64), help="How many at once. Default: 2.")
@_common
def machines(how: How, image: Path, machines: int | None) -> None:
    """Machines with kernels of their own: seconds until they are answered, and memory of each.

    IMAGE is a directory with what they boot, as 'netns-scripts/vm-image small' makes it.
    """
    from netemu.bench import machines as booted
    from netemu.bench import stage

    counts = (1,) if how.quick else (1, machines or 2)
    how.tell(booted.run(image, counts, rounds=how.turns, say=stage.say))
