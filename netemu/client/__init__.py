"""Labs from outside: launch one, find it, ask it, run commands in it, take it down.

Runs in the user's process, outside the sandbox: behind the command line, `netemu.Lab` and the
pytest plugin. It speaks to a lab through `netemu.wire` only, and never imports
`netemu.supervisor`. It creates nothing in the machine's own network namespace, and never ends a
process that is not its own or the lab's.
"""

import sys

from netemu.errors import MachineCannot

if sys.platform != "linux":
    raise MachineCannot(
        "labs need Linux: on macOS and Windows run netemu in a virtual machine, "
        "in WSL2, or in a Linux container started with --privileged"
    )
