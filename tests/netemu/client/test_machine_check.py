"""What `netemu check` says of this machine without building anything."""

from pathlib import Path

import pytest

from hostagent import confinement
from netemu.client import machine_check
from netemu.errors import BadInput, MachineCannot
from netemu.kernel import tap
from netemu.topology import Lab, parse


def test_a_kernel_without_landlock_is_named_and_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confinement, "landlock_version", lambda: 0)
    found = machine_check._services()
    assert (found.ok, found.vital) == (False, False)
    assert "Landlock" in found.seen
    assert "lsm=" in found.remedy
    monkeypatch.setattr(confinement, "landlock_version", lambda: 6)
    assert machine_check._services().ok


def machines(tmp_path: Path) -> Lab:
    text = "nodes: {n1: {guests: [web1, {name: vm1, machine: {kernel: vmlinuz}}]}}"
    return parse(text, source="lab.yaml", directory=tmp_path)


def test_what_machines_lack_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tap, "DEVICE", str(tmp_path / "tun"))
    found = {one.what: one for one in machine_check.of_machines()}
    assert not found["QEMU"].ok
    assert "apt-get install --no-install-recommends qemu-system-x86" in found["QEMU"].remedy
    assert found["taps"].seen.endswith("/tun: it is not there; relays carry frames instead")
    with pytest.raises(MachineCannot, match=r"run here: QEMU: .* not installed[^;]*$"):
        machine_check.require_machines(machines(tmp_path))


def test_a_machine_whose_kernel_is_not_there_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine_check, "of_machines", lambda: iter(()))
    with pytest.raises(BadInput, match=r"guest vm1: machine: .*/vmlinuz: no such file$"):
        machine_check.require_machines(machines(tmp_path))
    (tmp_path / "vmlinuz").touch()
    machine_check.require_machines(machines(tmp_path))
