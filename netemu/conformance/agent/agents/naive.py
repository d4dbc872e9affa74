"""A bad agent: no error handling, no Resources, approves first, asks all the time.

`naive.py azure|ec2|gce`. Runs in a guest. Anything but a 404 is EC2's notice to it.
"""

import sys
import time
import urllib.error

import clouds


def azure() -> bool:
    """Whether there is any event; each is approved at once."""
    events = clouds.azure_events()
    for one in events:
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


out = False
while True:
    told = {"azure": azure, "ec2": ec2, "gce": gce}[sys.argv[1]]()
    if told and not out:
        clouds.drain()
        out = True
    elif out and not told:
        clouds.mark("returned")
        out = False
    time.sleep(0.15)
