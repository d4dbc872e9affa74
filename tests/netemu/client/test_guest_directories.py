"""Which directories of the machine guests of root's lab are shown."""

import pwd
from pathlib import Path

import pytest

from netemu.client import guest_directories
from netemu.errors import BadInput
from netemu.topology import parse


@pytest.mark.parametrize("path", ["/", "/run", "/run/user", "/dev/shm", "/proc/self", "/sys"])
def test_a_guests_own_directories_cannot_be_shared(path: str) -> None:
    assert not guest_directories.may_be_shared(Path(path))
    with pytest.raises(BadInput) as caught:
        guest_directories.shared(path)
    assert "cannot be shared" in str(caught.value)


def test_others_can(tmp_path: Path) -> None:
    assert guest_directories.shared(tmp_path) == str(tmp_path)
    with pytest.raises(BadInput, match="not a directory"):
        guest_directories.shared(tmp_path / "none")


def test_a_labs_own_directories_are_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab file's, the present one and Python's: each once, and none that is the machine's."""
    for name in ("lab", "here/below", "shared/in", "python/3.12.1/bin", "venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "python" / "3.12").symlink_to("3.12.1")
    (tmp_path / "python" / "3.12" / "bin" / "python").touch()
    (tmp_path / "venv" / "bin" / "python").symlink_to(tmp_path / "python/3.12/bin/python")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path / "python" / "3.12"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv" / "bin" / "python"))
    own = [str(tmp_path / name) for name in ("here/below", "none", "shared/in")]
    monkeypatch.setattr("sys.path", ["", "/usr/lib", "/", "/tmp", "/var", *own])
    monkeypatch.setattr(guest_directories, "SOURCE", str(tmp_path / "here" / "below"))
    found = guest_directories.readable([tmp_path / "lab"], [str(tmp_path / "shared")])
    assert found == {
        str(tmp_path / at): str(tmp_path / source)
        for at, source in {
            "here": "here",
            "lab": "lab",
            "python/3.12": "python/3.12.1",
            "python/3.12.1": "python/3.12.1",
            "venv": "venv",
        }.items()
    }


def test_the_directories_of_machines_disks_are_a_labs_own(tmp_path: Path) -> None:
    """A disk is found by its link, too, though neither is beside the lab file."""
    for name in ("disks", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "disks" / "real").touch()
    (tmp_path / "links" / "disk").symlink_to(tmp_path / "disks" / "real")
    disk = tmp_path / "links" / "disk"
    lab = parse(f"nodes: {{n: {{guests: [{{name: a, machine: {{image: {disk}}}}}]}}}}", source="t")
    assert {str(tmp_path / "disks"), str(tmp_path / "links")} <= {*guest_directories.named(lab)}


def test_a_home_is_nobodys_but_its_owners() -> None:
    home = pwd.getpwuid(0).pw_dir
    assert home not in guest_directories.readable([home], [])
