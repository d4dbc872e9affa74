"""A bad agent: looks once, when it starts, without a token, and decides for good.

`one_shot.py azure|ec2|gce`. Runs in a guest.
"""

import sys
import time

import clouds


def told() -> bool:
    """Whether there is an event, as far as one look tells."""
    if sys.argv[1] == "azure":
        return bool(clouds.azure_events())
    if sys.argv[1] == "gce":
        return bool(clouds.gce("maintenance-event") != "NONE")
    clouds.ask(clouds.SPOT, {})
    return True


try:
    if told():
        clouds.drain()
except OSError as error:
    print(f"no event: {error}", flush=True)
while True:
    time.sleep(60)
