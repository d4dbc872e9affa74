"""A guest's filter of system calls, interpreted: also that of the machine that this is not."""

import errno
from collections.abc import Callable

import pytest

from hostagent.classic_bpf import Instruction
from netemu.kernel import seccomp
from netemu.kernel.seccomp import Machine

LOAD, EQUAL, AT_LEAST, BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOWED = 0x7FFF0000
Filter = Callable[[Machine], list[Instruction]]
MACHINES = pytest.mark.parametrize("machine", seccomp._MACHINES.values(), ids=["x86-64", "arm64"])


def verdict(machine: Machine, number: int, *arguments: int, of: Filter = seccomp.of_a_guest) -> int:
    """What comes of a system call: 0, or its error number."""
    data = {0: number, 4: machine.name}
    data |= {16 + 8 * place: value & 0xFFFFFFFF for place, value in enumerate(arguments)}
    steps, place, held = of(machine), 0, 0
    while True:
        code, yes, no, operand = steps[place]
        place += 1
        if code == LOAD:
            held = data.get(operand, 0)
        elif code == RETURN:
            return 0 if operand == ALLOWED else operand & 0xFFFF
        else:
            true = {
                EQUAL: held == operand,
                AT_LEAST: held >= operand,
                BITS: bool(held & operand),
            }[code]
            place += yes if true else no


@MACHINES
def test_no_file_is_made_that_runs_as_another_user(machine: Machine) -> None:
    for number, mode in machine.modes:
        for bits, said in ((0o4755, errno.EPERM), (0o2755, errno.EPERM), (0o1777, 0), (0o755, 0)):
            arguments = [0] * 4
            arguments[mode] = bits
            assert verdict(machine, number, *arguments) == said
    for number, flags, mode in machine.makes:
        for how, said in ((0o100, errno.EPERM), (0o20000000, errno.EPERM), (0o2, 0)):
            arguments = [0] * 4
            arguments[flags], arguments[mode] = how, 0o4755
            assert verdict(machine, number, *arguments) == said
            arguments[mode] = 0o644
            assert verdict(machine, number, *arguments) == 0
    assert {verdict(machine, number) for number in machine.attributes} == {errno.EOPNOTSUPP}


@MACHINES
def test_what_is_one_for_the_machine_is_refused_and_the_rest_is_not(machine: Machine) -> None:
    assert {verdict(machine, number) for number in machine.refused} == {errno.ENOSYS}
    assert verdict(machine, 0x40000000) == errno.ENOSYS
    assert verdict(machine, machine.fcntl, 3, 1024) == errno.EACCES  # a lease
    assert verdict(machine, machine.fcntl, 3, 6) == 0
    assert verdict(machine, machine.ioctl, 0, 0x5412 | 1 << 32) == errno.EPERM
    assert verdict(machine, machine.ioctl, 0, 0x5413) == 0
    for family in range(64):
        said = 0 if family in (1, 2, 10, 16, 17) else errno.EAFNOSUPPORT
        assert verdict(machine, machine.socket, family, 1) == said
        assert verdict(machine, machine.socketpair, family, 1) == said
    assert verdict(machine, 500) == 0


@MACHINES
def test_an_emulator_uses_the_tap_it_has_and_makes_no_socket(machine: Machine) -> None:
    def ioctl(request: int) -> int:
        return verdict(machine, machine.ioctl, 3, request, of=seccomp.of_an_emulator)

    assert {ioctl(one) for one in seccomp.TAP_CHANGES.values()} == {errno.EPERM}
    # The kernel looks at 32 bits.
    assert ioctl(0x8924 | 1 << 32) == errno.EPERM
    used = {"TUNGETIFF": 0x800454D2, "TUNGETFEATURES": 0x800454CF, "TUNSETOFFLOAD": 0x400454D0}
    assert {ioctl(one) for one in used.values()} == {0}
    for call in (machine.socket, machine.socketpair):
        assert verdict(machine, call, 1, of=seccomp.of_an_emulator) == errno.EACCES
    assert verdict(machine, machine.fcntl, 3, of=seccomp.of_an_emulator) == 0
