"""What `netemu check` says of this machine without building anything."""

import pytest

from hostagent import confinement
from netemu.client import machine_check


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
