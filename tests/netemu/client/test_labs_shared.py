"""Which directories can be shared with guests: those that a guest has not got of its own."""

from pathlib import Path

import pytest

from netemu.client import labs
from netemu.errors import BadInput


@pytest.mark.parametrize("path", ["/", "/run", "/run/user", "/dev/shm", "/proc/self", "/sys"])
def test_a_guests_own_directories_cannot_be_shared(path: str) -> None:
    assert not labs.may_be_shared(Path(path))
    with pytest.raises(BadInput) as caught:
        labs._directory(path)
    assert "cannot be shared" in str(caught.value)


def test_others_can(tmp_path: Path) -> None:
    assert labs._directory(tmp_path) == str(tmp_path)
    with pytest.raises(BadInput, match="not a directory"):
        labs._directory(tmp_path / "none")


def test_sockets_that_a_guest_could_see_are_masked(tmp_path: Path) -> None:
    head = "Num       RefCount Protocol Flags    Type St Inode Path\n"
    lines = [
        f"0000000000000000: 00000002 00000000 00010000 0001 01 {number} {path}".rstrip()
        for number, path in enumerate(
            [
                "/var/lib/x/socket",
                "/run/y",
                "/tmp/z",
                "@abstract",
                "",
                "/var/lib/x/socket",
                "/srv/a b",
            ]
        )
    ]
    assert labs._sockets(head + "\n".join(lines) + "\n") == ("/srv/a b", "/var/lib/x/socket")
