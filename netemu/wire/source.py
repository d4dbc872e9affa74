"""How a process of ours that another one starts finds this very netemu, installed or not.

Standard library only: processes that are to start quickly import it too.
"""

import os
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parent.parent.parent)
"""The directory that has the packages `netemu` and `hostagent`."""


def python_path() -> str:
    """PYTHONPATH for a child: our packages first, then what the caller's says."""
    return ":".join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
