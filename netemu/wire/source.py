"""How a child process finds this very netemu, installed or not.

It uses the standard library only: processes that must start quickly import it.
"""

import os
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parent.parent.parent)
"""The directory of the packages `netemu` and `hostagent`."""


def python_path() -> str:
    """PYTHONPATH for a child: our packages first, then what the caller's says."""
    return ":".join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
