"""A run as a picture: the supervisor's memory and open files over time, and the faults."""

from pathlib import Path

from netemu.chaos.run import Report
from netemu.plotting import pyplot, save


def draw(report: Report, file: Path) -> None:
    """Two panels, one above the other; a line for each fault."""
    figure, (memory, files) = pyplot().subplots(
        2, 1, figsize=(7.0, 4.2), sharex=True, layout="constrained"
    )
    times = [one.at for one in report.samples]
    memory.plot(times, [one.memory / 1024 for one in report.samples], color="#2c6fa6")
    files.plot(times, [one.files for one in report.samples], color="#2c6fa6")
    for struck in report.struck:
        if struck.problem is None:
            for panel in (memory, files):
                panel.axvline(struck.fault.at, color="#c0392b", alpha=0.15, linewidth=0.8)
    memory.set(ylabel="MiB", ylim=(0, None), title=f"{sum(report.done().values())} faults")
    files.set(ylabel="open files", ylim=(0, None), xlabel="seconds")
    for panel in (memory, files):
        panel.spines[["top", "right"]].set_visible(False)
    save(figure, file)
