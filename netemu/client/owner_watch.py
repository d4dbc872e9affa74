"""Ties a lab to the process that made it: when that ends, in whatever way, the lab goes down.

A process of its own watches the maker by a pidfd, which no fork of the maker inherits a part in,
and which fires after `kill -9` too.
"""

import os
import select
import subprocess
import sys

from netemu.client.labs import take_down
from netemu.wire.source import python_path


class OwnerWatch:
    """The tie between this process and the lab called `name`, from now until it is let go."""

    def __init__(self, name: str) -> None:
        own = os.pidfd_open(os.getpid())
        try:
            self._watcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "netemu.client.owner_watch", name, str(own)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(own,),
                cwd="/",
                start_new_session=True,  # what ends its maker's terminal does not end it
                env={**os.environ, "PYTHONPATH": python_path()},
            )
        finally:
            os.close(own)

    def let_go(self) -> None:
        """Tie no longer; the lab stays as it is."""
        self._watcher.kill()
        self._watcher.wait()


def main() -> None:
    """Wait for the end of the process of the pidfd, then take the lab down."""
    name, maker = sys.argv[1], int(sys.argv[2])
    poll = select.poll()
    poll.register(maker, select.POLLIN)
    poll.poll()
    take_down(name)


if __name__ == "__main__":
    main()
