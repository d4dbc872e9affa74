"""A guest's own machine in the lab file: what it boots, its size, and its makers' names.
Pure.
"""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

# Debian's cloud kernel needs 64 MiB to boot; QEMU's board takes 3 GiB without a second bank, and
# nothing here asks for more.
LEAST_MEMORY, MOST_MEMORY = 64, 65536
DEFAULT_MEMORY = 256
# Each is a thread of the emulator.
MOST_CPUS = 16
# SMBIOS gives no limit; sysfs shows one line.
_LONGEST_TEXT: Final = 255
_MAX_PATH: Final = 4095
# The kernel's COMMAND_LINE_SIZE on x86, less what the lab adds.
_LONGEST_APPEND: Final = 1792

SMBIOS: Final = {
    "bios_vendor": (0, "vendor"),
    "bios_version": (0, "version"),
    "sys_vendor": (1, "manufacturer"),
    "product_name": (1, "product"),
    "product_version": (1, "version"),
    "product_serial": (1, "serial"),
    "product_uuid": (1, "uuid"),
    "product_sku": (1, "sku"),
    "product_family": (1, "family"),
    "board_vendor": (2, "manufacturer"),
    "board_name": (2, "product"),
    "board_version": (2, "version"),
    "board_serial": (2, "serial"),
    "board_asset_tag": (2, "asset"),
    "chassis_vendor": (3, "manufacturer"),
    "chassis_version": (3, "version"),
    "chassis_serial": (3, "serial"),
    "chassis_asset_tag": (3, "asset"),
}
"""SMBIOS's table and field of each file of /sys/class/dmi/id."""

Cloud = Literal["azure", "ec2", "gce", "openstack"]

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class MachineEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A machine with a kernel of its own, which QEMU emulates."""

    image: Annotated[
        str | None,
        Meta(description="A disk, raw or qcow2, from the lab file's directory. It stays as it is."),
    ] = None
    kernel: Annotated[str | None, Meta(description="A Linux kernel to boot.")] = None
    initrd: Annotated[str | None, Meta(description="The kernel's first files.")] = None
    append: Annotated[str | None, Meta(description="Words for the kernel's command line.")] = None
    memory: Annotated[
        Annotated[int, Meta(ge=LEAST_MEMORY, le=MOST_MEMORY)],
        Meta(description="Mebibytes of memory."),
    ] = DEFAULT_MEMORY
    cpus: Annotated[Annotated[int, Meta(ge=1, le=MOST_CPUS)], Meta(description="Processors.")] = 1
    cloud: Annotated[
        Cloud | None,
        Meta(description="Whose machine it says it is, by the guest's properties; see 'dmi:'."),
    ] = None
    dmi: Annotated[
        dict[str, str],
        Meta(
            description="What it says of itself, by the names in /sys/class/dmi/id: before what "
            "'cloud:' makes it say."
        ),
    ] = {}


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine boots, as absolute paths; `memory` is in MiB; `cloud` and `dmi` as in the lab
    file.
    """

    image: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    memory: int = DEFAULT_MEMORY
    cpus: int = 1
    cloud: Cloud | None = None
    dmi: dict[str, str] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is made of."""
        return tuple(path for path in (self.image, self.kernel, self.initrd) if path is not None)


class MachineError(ValueError):
    """What is wrong with a machine, at `place` in its entry ("": all of it)."""

    def __init__(self, place: str, words: str) -> None:
        super().__init__(words)
        self.place = place


def read(entry: MachineEntry, absolute: dict[str, str]) -> VirtualMachine:
    """The machine of an entry; `absolute` are its paths, by key. Raises MachineError."""
    if not entry.image and not entry.kernel:
        raise MachineError("", "a machine boots an 'image:' or a 'kernel:': neither is given")
    for key in ("initrd", "append"):
        if getattr(entry, key) is not None and not entry.kernel:
            raise MachineError(key, f"'{key}:' is for a 'kernel:', and there is none")
    _line("append", entry.append or "")
    if len(entry.append or "") > _LONGEST_APPEND:
        raise MachineError("append", f"is longer than {_LONGEST_APPEND} characters")
    for key, path in absolute.items():
        _line(key, path)
        if not getattr(entry, key) or len(path) > _MAX_PATH:
            raise MachineError(key, "is not the path of a file")
    for name, text in entry.dmi.items():
        _dmi(name, text)
    return VirtualMachine(
        **absolute,
        append=entry.append or "",
        memory=entry.memory,
        cpus=entry.cpus,
        cloud=entry.cloud,
        dmi=entry.dmi,
    )


def _dmi(name: str, text: str) -> None:
    place = f"dmi.{name}"
    if name not in SMBIOS:
        raise MachineError(place, f"no machine says that of itself; known are {', '.join(SMBIOS)}")
    _line(place, text)
    if len(text) > _LONGEST_TEXT:
        raise MachineError(place, f"is longer than {_LONGEST_TEXT} characters")
    if name == "product_uuid" and not _UUID.fullmatch(text):
        raise MachineError(place, f"{text!r} is not a UUID: 8-4-4-4-12 hexadecimal digits")


def _line(place: str, text: str) -> None:
    """It has to fit into one word of a command line."""
    if not all(one.isprintable() for one in text):
        raise MachineError(place, f"{text!r}: is not one line of printable text")
