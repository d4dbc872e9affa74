"""The key of a user's labs: made once, and kept where only that user reads it."""

import stat
from pathlib import Path

import pytest

from hostagent.signing import Signer
from netemu.client import signing_key as module
from netemu.client.signing_key import signing_key


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of a length that is made at once."""
    monkeypatch.setattr(module, "STRONG", 1024)


def test_it_is_made_once(cache: Path) -> None:
    key = signing_key()
    assert Signer(key.encode()).certificate.decode() in key
    assert signing_key() == key
    kept = cache / "netemu" / "signing.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.usefixtures("quick")
def test_what_is_kept_and_is_no_key_is_left_alone(cache: Path) -> None:
    (cache / "netemu").mkdir()
    kept = cache / "netemu" / "signing.pem"
    kept.write_text("mine")
    Signer(signing_key().encode())
    assert kept.read_text() == "mine"
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("place", ["relative", "/nonexistent/cache", "/proc/self/fd"])
def test_without_a_cache_there_is_a_key_all_the_same(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    Signer(signing_key().encode())
