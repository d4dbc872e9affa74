"""The lab file's `machine`: what it becomes, and what is refused in which words."""

from pathlib import Path

import pytest

from netemu.errors import BadInput
from netemu.topology import VirtualMachine, load, parse


def machine(entry: str, of_node: str = "") -> VirtualMachine:
    text = f"nodes:\n  n1:\n    {of_node}\n    guests: [{{name: vm1, machine: {entry}}}]\n"
    (guest,) = parse(text, source="lab.yaml", directory=Path("/labs/mine")).guests
    assert guest.machine is not None
    return guest.machine


def test_a_machine_boots_files_from_the_labs_directory() -> None:
    assert machine("{kernel: ../vmlinuz, initrd: /boot/initrd, append: quiet}") == VirtualMachine(
        kernel="/labs/vmlinuz", initrd="/boot/initrd", append="quiet", memory=256, cpus=1
    )
    made = machine("{image: disk.img, memory: 512, cpus: 2, dmi: {sys_vendor: Amazon EC2}}")
    assert made.files == ("/labs/mine/disk.img",)
    assert (made.memory, made.cpus, made.dmi) == (512, 2, {"sys_vendor": "Amazon EC2"})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{}", "machine: a machine boots an 'image:' or a 'kernel:': neither is given"),
        ("{image: a, initrd: b}", "machine.initrd: 'initrd:' is for a 'kernel:'"),
        ("{image: a, append: b}", "machine.append: 'append:' is for a 'kernel:'"),
        ("{kernel: a, memory: 63}", "machine.memory"),
        ("{kernel: a, memory: 1G}", "machine.memory: a whole number is expected here"),
        ("{kernel: a, cpus: 17}", "machine.cpus"),
        ("{kernel: a, kernle: b}", "machine.kernle: unknown key; did you mean 'kernel'?"),
        ("{kernel: a, dmi: {vendor: b}}", "machine.dmi.vendor: no machine says that of itself"),
        ("{kernel: a, dmi: {product_uuid: b}}", "machine.dmi.product_uuid: 'b' is not a UUID"),
        ('{kernel: a, dmi: {board_name: "a\\nb"}}', "machine.dmi.board_name: 'a\\nb': is not one"),
        ("small", "machine: a mapping (key: value) or nothing is expected here"),
    ],
)
def test_what_no_machine_can_be_is_refused_where_it_stands(entry: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        machine(entry)
    assert f"nodes.n1.guests[0].{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["run: sleep 1", "tenant: true"])
def test_a_machine_does_by_itself_what_the_lab_does_for_others(key: str) -> None:
    with pytest.raises(BadInput, match=r"a machine (runs|has)"):
        machine("{kernel: a}", of_node=key)


def test_the_scenario_of_both_kinds_can_be_read() -> None:
    lab = load(Path("netemu/scenario/machines.yaml"))
    assert [one.name for one in lab.guests if one.machine] == ["vm1"]
