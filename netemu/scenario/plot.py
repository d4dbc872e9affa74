"""Draws the runs: requests a second over time, failed ones, and the reboots."""

from collections.abc import Sequence
from pathlib import Path

from netemu.plotting import pyplot, save
from netemu.scenario.requests import Run, per_second


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw a panel for each run, side by side."""
    figures = pyplot()
    figure, panels = figures.subplots(
        1, len(runs), figsize=(4.6 * len(runs), 3.2), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel, run in zip(panels[0], runs, strict=True):
        since = run.requests[0].time
        every, failed = per_second(run.requests, since)
        # The last second is incomplete.
        panel.stairs(every[:-1], fill=True, color="#a8c4dc", label="requests")
        panel.stairs(failed[:-1], fill=True, color="#c0392b", label="failed", zorder=3)
        for one in run.reboots:
            away, back = one.started - since, one.back - since
            panel.axvspan(away, back, color="#222", alpha=0.12, linewidth=0)
            panel.text((away + back) / 2, 1.01, f"{one.guest} away", ha="center", fontsize=7,
                       transform=panel.get_xaxis_transform())  # fmt: skip
        how = "with drain agents" if run.drained else "without drain agents"
        panel.set_title(f"{how}: {len(run.failed):,} of {len(run.requests):,} failed", pad=14)
        panel.set(xlabel="seconds", xlim=(0, len(every) - 1), ylim=(0, None))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("requests a second")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  frameon=False)  # fmt: skip
    save(figure, file)
