"""Repairs the three standard streams, without which a program may have been started.

Runs in any process that starts others. It never closes or changes an open stream.
"""

import os


def keep_their_places() -> None:
    """Open /dev/null in place of closed streams.

    Otherwise the next files that are opened take their numbers, and a child loses them to its own
    streams.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
