"""Supplementary groups where there are none: in an ordinary user's lab.

The kernel refuses setgroups(2) in a user namespace that a user has made for himself. Programs that
call it only to remain who they are (tcpdump -Z root) end because of it, for no good reason.
"""

from pathlib import Path

from hostagent.seccomp import refuse
from netemu.kernel import seccomp


def pass_over_setgroups() -> None:
    """From now on setgroups(2) does nothing and succeeds, if the kernel would refuse it.

    For this process and what it becomes; it has to be root in its user namespace.
    """
    machine = seccomp.this_machine()
    if machine is None or Path("/proc/self/setgroups").read_text().strip() != "deny":
        return
    seccomp.install(seccomp.only(machine, machine.setgroups, refuse(0)))
