"""matplotlib, set up to draw SVG files; imported when something is drawn, and by nobody else."""

import sys
from pathlib import Path
from typing import Any

from netemu.errors import MachineCannot


def pyplot() -> Any:
    """Return matplotlib's pyplot. Raises MachineCannot if it is missing: ask before long work."""
    try:
        import matplotlib
    except ImportError:
        raise MachineCannot(
            "plots need matplotlib: run netns-scripts/bench-peers, which installs it, or: "
            f"{sys.executable} -m pip install matplotlib"
        ) from None
    matplotlib.use("svg")
    # Text as text, and the same bytes for the same numbers.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "netemu", "font.size": 9})
    from matplotlib import pyplot as found

    return found


def save(figure: Any, file: Path) -> None:
    """Write a figure, and forget it."""
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot().close(figure)
