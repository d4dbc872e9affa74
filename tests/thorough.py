"""How many cases a test tries that could try any number: few, or as many as a night has time for.

NETEMU_THOROUGH=1 asks for many; `netns-scripts/test-matrix` without --ci sets it. What is drawn at
random differs in each run, so that many runs of few cases try many, too.
"""

import os

THOROUGH = os.environ.get("NETEMU_THOROUGH") == "1"


def cases(few: int, many: int) -> int:
    """The number of cases to try."""
    return many if THOROUGH else few
