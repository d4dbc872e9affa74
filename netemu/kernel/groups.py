"""Makes setgroups(2) harmless in an ordinary user's lab.

The kernel refuses that call in a user namespace made by an ordinary user. Programs that call it
although their groups stay the same (tcpdump -Z root) end because of the error.
"""

from pathlib import Path

from hostagent.seccomp import refuse
from netemu.kernel import seccomp


def pass_over_setgroups() -> None:
    """From now on setgroups(2) does nothing and succeeds, if the kernel would refuse it.

    This holds for this process and every program that it executes. The process must be root in its
    user namespace.
    """
    machine = seccomp.this_machine()
    if machine is None or Path("/proc/self/setgroups").read_text().strip() != "deny":
        return
    seccomp.install(seccomp.only(machine, machine.setgroups, refuse(0)))
