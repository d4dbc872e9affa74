"""The three standard streams, which a program may have been started without.

Runs in any process that starts others. It never closes or changes a stream that is open.
"""

import os


def keep_their_places() -> None:
    """Have closed ones lead to /dev/null.

    Else the next files that are opened take their places, and are lost to a child's own streams.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
