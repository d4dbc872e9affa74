"""A bad agent: knows in memory alone that it is out, so it never comes back after a reboot.

`memory_only.py azure|ec2|gce`. Runs in a guest. A failed request is "no event" to it, and it asks
eight times a second.
"""

import sys

import clouds


def told() -> bool:
    """Whether there is an event."""
    try:
        if sys.argv[1] == "azure":
            return bool(clouds.azure_events())
        if sys.argv[1] == "gce":
            return bool(clouds.gce("maintenance-event") != "NONE")
        return bool(clouds.ask(clouds.SPOT, {}))
    except (OSError, ValueError):
        return False


clouds.follow(told, 0.12)
