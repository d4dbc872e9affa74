"""A bad agent: no error handling, no Resources, remembers nothing, approves first.

`naive.py azure|ec2|gce`. Runs in a guest. Anything but a 404 is EC2's notice to it. It waits for
the network when it starts, and trusts it from then on.
"""

import sys
import time
import urllib.error

import clouds


def azure() -> bool:
    """Whether there is any event; each is approved at once."""
    events = clouds.azure_events()
    for one in events:
        if one["EventStatus"] == "Scheduled":
            clouds.approve(one["EventId"])
    return bool(events)


def ec2() -> bool:
    """Whether the spot notice is anything but a 404."""
    try:
        clouds.ask(clouds.SPOT, {})
    except urllib.error.HTTPError as error:
        return error.code != 404
    return True


def gce() -> bool:
    """Whether there is anything but NONE."""
    told = clouds.gce("maintenance-event"), clouds.gce("preempted")
    return bool(told != ("NONE", "FALSE"))


look = {"azure": azure, "ec2": ec2, "gce": gce}[sys.argv[1]]
while True:
    try:
        look()
        break
    except OSError:
        time.sleep(0.2)
clouds.follow(look, 0.25)
