"""QEMU's command line for a machine. Pure but for `find` and `disk_format`, which look at files."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from netemu.errors import MachineCannot
from netemu.topology import SMBIOS, VirtualMachine

PROGRAM: Final = "qemu-system-x86_64"
# What the emulator inherits, from 3 on: a tap or the relay's socket, QMP, the console, the guest
# agent's port.
WIRE, MONITOR, CONSOLE, AGENT = range(3, 7)
# MiB that translated code may take; by default QEMU takes up to a gigabyte.
_TRANSLATED: Final = 32
# MiB beside the machine's memory: QEMU, its libraries and threads map some 150.
_BESIDES: Final = 512
_PER_CPU: Final = 64
# Refuses obsolete calls, set-user-ID programs, other programs, and changes of its own limits.
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_QCOW2: Final = b"QFI\xfb"
_MIB: Final = 1 << 20


def find() -> str:
    """The path of QEMU. Raises MachineCannot, which says how to install it."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise MachineCannot(
            f"{PROGRAM} is not installed: run "
            "'sudo apt-get install --no-install-recommends qemu-system-x86'"
        )
    return found


def disk_format(path: str) -> str:
    """Whether a disk is qcow2 or raw. Raises OSError."""
    with open(path, "rb") as file:
        return "qcow2" if file.read(len(_QCOW2)) == _QCOW2 else "raw"


def bytes_mapped(machine: VirtualMachine) -> int:
    """The most that a machine's emulator may map."""
    return (machine.memory + _TRANSLATED + _BESIDES + _PER_CPU * machine.cpus) * _MIB


def words(
    qemu: str,
    name: str,
    mac: str,
    machine: VirtualMachine,
    disk: str,
    dmi: Mapping[str, str],
    *,
    tap: bool,
) -> Sequence[str]:
    """The command that emulates the machine of the guest `name`; `disk` is its image's format.

    `dmi` is what it says of itself, `tap` whether its wire is a tap.
    """
    wire = f"tap,id=net,fd={WIRE}" if tap else f"dgram,id=net,local.type=fd,local.str={WIRE}"
    command = [
        *(qemu, "-name", name, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-machine", "pc", "-accel", f"tcg,tb-size={_TRANSLATED}", "-cpu", "max"),
        *("-m", f"{machine.memory}M", "-smp", str(machine.cpus)),
        *("-netdev", wire),
        *("-device", f"virtio-net-pci,netdev=net,mac={mac},romfile="),
        *("-chardev", f"socket,id=monitor,fd={MONITOR}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=console,fd={CONSOLE}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={AGENT}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]
    if machine.image is not None:
        # Its changes are the boot's: a disk is read by any number of machines.
        image = f"file={_escaped(machine.image)},if=virtio,format={disk},snapshot=on"
        command += ["-drive", image]
    if machine.kernel is not None:
        line = f"console=ttyS0 panic=1 netemu.hostname={name} {machine.append}".strip()
        command += ["-kernel", machine.kernel, "-append", line]
    if machine.initrd is not None:
        command += ["-initrd", machine.initrd]
    return command + list(_smbios(dmi))


def _smbios(dmi: Mapping[str, str]) -> Sequence[str]:
    tables: dict[int, list[str]] = {}
    for key, text in dmi.items():
        table, field = SMBIOS[key]
        tables.setdefault(table, [f"type={table}"]).append(f"{field}={_escaped(text)}")
    return [word for fields in tables.values() for word in ("-smbios", ",".join(fields))]


def _escaped(text: str) -> str:
    """Text within an option: there a comma is written twice."""
    return text.replace(",", ",,")
