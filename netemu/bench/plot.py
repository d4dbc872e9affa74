"""Draws plots as SVG. matplotlib is imported only here, and only to draw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.bench.rounds import Sample, Spread
from netemu.plotting import pyplot, save

if TYPE_CHECKING:
    from netemu.bench.report import Report
    from netemu.bench.simulation import Simulation


def bars(report: "Report", file: Path) -> None:
    """Draw a panel for each metric, with a bar for each contestant and its minimum and maximum."""
    figures = pyplot()
    metrics = list(dict.fromkeys(m for many in report.samples.values() for s in many for m in s))
    figure, panels = figures.subplots(
        len(metrics), 1, figsize=(8, 0.6 + len(metrics) * (0.5 + 0.22 * len(report.samples))),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for panel, metric in zip(panels[:, 0], metrics, strict=True):
        names = [n for n, many in report.samples.items() if any(metric in s for s in many)]
        spreads = [_spread(report.samples[name], metric) for name in names]
        middles = [one.median for one in spreads]
        errors = [
            [one.median - one.min for one in spreads],
            [one.max - one.median for one in spreads],
        ]
        panel.barh(names, middles, xerr=errors, color="#4878a8", ecolor="#222", capsize=2)
        panel.invert_yaxis()
        panel.set_title(metric, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def lines(
    series: Mapping[str, dict[float, list[Sample]]], metrics: list[str], across: str, file: Path
) -> None:
    """Draw a panel for each metric, with a line for each series over the varied size."""
    figures = pyplot()
    figure, panels = figures.subplots(
        len(metrics), 1, figsize=(7, 2.6 * len(metrics)), squeeze=False, layout="constrained"
    )
    for panel, metric in zip(panels[:, 0], metrics, strict=True):
        for name, points in series.items():
            here = {at: many for at, many in points.items() if any(metric in s for s in many)}
            spreads = [_spread(many, metric) for many in here.values()]
            (line,) = panel.plot(list(here), [s.median for s in spreads], marker="o", label=name)
            panel.fill_between(
                list(here), [s.min for s in spreads], [s.max for s in spreads],
                color=line.get_color(), alpha=0.2,
            )  # fmt: skip
        panel.set(xscale="log", ylim=(0, None), xlabel=across)
        sizes = sorted({at for points in series.values() for at in points})
        panel.set_xticks(sizes, [f"{at:,.0f}" for at in sizes])
        panel.minorticks_off()
        panel.set_title(metric, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    save(figure, file)


def shares(report: "Report", metric: str, limits: Sequence[float], file: Path) -> None:
    """Draw, for each contestant with the metric, the share of samples up to each value.

    `limits` are the goals for the 99th percentile, one for each contestant.
    """
    figures = pyplot()
    figure, panel = figures.subplots(figsize=(7, 3), layout="constrained")
    having = {n: many for n, many in report.samples.items() if any(metric in s for s in many)}
    for (name, many), limit in zip(having.items(), limits, strict=True):
        values = sorted(sample[metric] for sample in many)
        portions = [100 * (n + 1) / len(values) for n in range(len(values))]
        (line,) = panel.step(values, portions, where="post", label=name)
        panel.plot([limit], [99], "v", color=line.get_color(), label=f"wanted: 99 % by {limit:g}")
    panel.set(xscale="log", ylim=(0, 102), xlabel=metric, ylabel="% within")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    save(figure, file)


def simulation(found: "Simulation", file: Path) -> None:
    """Draw when the fleet's hosts were bound, and how many tries newcomers needed."""
    from netemu.bench import theory
    from netemu.linklocal.timing import Timing

    figures = pyplot()
    figure, (when, tries) = figures.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    times = sorted(found.fleet.claim_times)
    when.plot(times, [(n + 1) / found.hosts for n in range(len(times))])
    when.axvspan(4, 7, alpha=0.12, color="gray", label="a claim without conflict")
    when.set(
        xlabel="seconds since the link came up", ylabel="share of hosts bound",
        title=f"{found.hosts:,} hosts at once, loss {found.loss:g}",
        xscale="linear" if times[-1] < 60 else "log",
    )  # fmt: skip
    when.legend(frameon=False)
    q = theory.occupied(found.hosts)
    deaf = theory.unheard(found.loss, Timing().probe_num)
    counts = range(1, len(found.without) + 1)
    formula = [theory.unclaimed_after(n, q, deaf) for n in counts]
    tries.plot(counts, formula, color="gray", label="formula")
    seen = [(n, share) for n, share in zip(counts, found.without, strict=True) if share]
    tries.plot([n for n, _ in seen], [share for _, share in seen], "o", label="measured")
    tries.set(
        yscale="log", xlabel="tries", ylabel="share of newcomers without an address",
        title="one more host joins",
    )  # fmt: skip
    tries.legend(frameon=False)
    save(figure, file)


def _spread(many: list[Sample], metric: str) -> Spread:
    return Spread.of([sample[metric] for sample in many if metric in sample])
