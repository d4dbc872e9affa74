"""Where labs are found: locks decide which live, marks which directories are a lab's at all."""

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from netemu.errors import MachineCannot
from netemu.wire import runtime_dir


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "labs"
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(place))
    return place


def claimed(name: str) -> tuple[Path, int]:
    made = runtime_dir.claim(name)
    assert made is not None
    return made


def dead(name: str) -> Path:
    """The directory of a lab that was killed, with all that it may have."""
    directory, lock = claimed(name)
    for path in (runtime_dir.LOG, f"{runtime_dir.LOG}.new"):
        (directory / path).touch()
    for path in ("control.sock", "agent-0.sock"):  # of a lab of the version before
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(directory / path))
    (directory / runtime_dir.LOGS).mkdir()
    for path in (runtime_dir.guest_log("web1"), "web1.new"):
        (directory / runtime_dir.LOGS / path).touch()
    os.close(lock)
    return directory


def tree(place: Path) -> dict[str, str]:
    """Everything below a directory, and what it is."""
    return {
        str(path.relative_to(place)): f"{path.lstat().st_mode:o} {path.lstat().st_ino}"
        for path in sorted(place.rglob("*"))
    }


def test_a_name_is_claimed_once() -> None:
    directory, lock = claimed("one")
    assert runtime_dir.claim("one") is None
    assert runtime_dir.running() == ["one"]
    os.close(lock)
    assert runtime_dir.running() == []
    assert not directory.exists()


def test_what_a_dead_lab_left_is_removed_by_the_next() -> None:
    dead("one")
    again = claimed("one")
    assert [path.name for path in again[0].iterdir()] == [".netemu"]
    os.close(again[1])


def test_what_a_dead_lab_left_is_removed_by_a_look(labs: Path) -> None:
    dead("one")
    assert runtime_dir.running() == []
    assert list(tree(labs)) == [".netemu"]


def test_a_running_lab_is_not_cleared() -> None:
    directory, lock = claimed("one")
    assert not runtime_dir.clear("one")
    assert directory.exists()
    os.close(lock)
    assert runtime_dir.clear("one")
    assert runtime_dir.clear("never-there")
    assert not directory.exists()


def test_a_look_creates_nothing(labs: Path) -> None:
    for look in (runtime_dir.root, runtime_dir.running, lambda: runtime_dir.clear("one")):
        look()
        assert not labs.exists()
    labs.mkdir(mode=0o700)
    for look in (runtime_dir.root, runtime_dir.running, lambda: runtime_dir.clear("one")):
        look()
        assert not tree(labs)


Looks = [
    runtime_dir.root,
    runtime_dir.running,
    lambda: runtime_dir.clear("photos"),
    lambda: runtime_dir.claim("photos"),
    lambda: runtime_dir.claim("other"),
]


@pytest.mark.parametrize("look", Looks)
def test_a_directory_with_other_things_in_it_is_refused(
    labs: Path, look: Callable[[], object]
) -> None:
    (labs / "photos").mkdir(parents=True)
    labs.chmod(0o700)
    (labs / "photos" / "lock").touch()
    before = tree(labs)
    with pytest.raises(MachineCannot, match="holds other things than labs; set NETEMU_RUNTIME_DIR"):
        look()
    assert tree(labs) == before


@pytest.mark.parametrize("look", Looks)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: place.touch(), "Not a directory"),
        (lambda place: place.symlink_to(place.parent), "is a link"),
        (lambda place: place.symlink_to("nowhere"), "is a link"),
        (lambda place: (place.mkdir(), place.chmod(0o770)), "others than its owner"),
        (lambda place: (place.mkdir(), place.chmod(0o707)), "others than its owner"),
        (lambda place: (place.mkdir(), place.chmod(0o1777)), "others than its owner"),
    ],
)
def test_what_is_no_directory_of_the_users_own_is_refused(
    labs: Path, look: Callable[[], object], make: Callable[[Path], object], said: str
) -> None:
    make(labs)
    before = tree(labs.parent)
    with pytest.raises(MachineCannot, match=said):
        look()
    assert tree(labs.parent) == before


@pytest.mark.parametrize("chosen", ["/", "/proc", "/proc/1", "/etc", "/tmp", "/usr", "/dev/null"])
@pytest.mark.parametrize("look", Looks)
def test_the_machines_own_places_are_refused(
    chosen: str, look: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", chosen)
    with pytest.raises(MachineCannot, match=f"^{chosen}: "):
        look()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_somebody_else_made_beforehand_is_refused(labs: Path) -> None:
    labs.mkdir(mode=0o700)
    os.chown(labs, 12345, 12345)
    with pytest.raises(MachineCannot, match="belongs to somebody else"):
        runtime_dir.claim("one")
    assert not tree(labs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_mark_that_somebody_else_made_is_none() -> None:
    directory = dead("one")
    os.chown(directory / ".netemu", 12345, 12345, follow_symlinks=False)
    before = tree(directory)
    assert runtime_dir.running() == []
    assert tree(directory) == before


@pytest.mark.parametrize("name", ["photos", "one.new", ".hidden", "lock", "new\nline", "*"])
def test_what_is_not_a_labs_stays(labs: Path, name: str) -> None:
    _, lock = claimed("one")
    other = labs / name
    (other / runtime_dir.LOGS).mkdir(parents=True)
    (other / runtime_dir.LOG).touch()
    (other / runtime_dir.LOGS / "web1.log").touch()
    before = tree(labs)
    assert runtime_dir.running() == ["one"]
    assert runtime_dir.clear(name)
    with pytest.raises(MachineCannot, match="is not a lab's, so it stays"):
        runtime_dir.claim(name)
    assert tree(labs) == before
    os.close(lock)


@pytest.mark.parametrize(
    "forge",
    [
        lambda mark: mark.touch(),
        lambda mark: mark.mkdir(),
        lambda mark: mark.write_text("lab photos of netemu"),
        lambda mark: mark.symlink_to("lab one of netemu"),  # a copy of another lab's
        lambda mark: mark.symlink_to("../one/.netemu"),
        lambda mark: os.mkfifo(mark),
    ],
)
def test_what_is_like_a_mark_is_none(labs: Path, forge: Callable[[Path], object]) -> None:
    _, lock = claimed("one")
    photos = labs / "photos"
    photos.mkdir()
    forge(photos / ".netemu")
    before = tree(labs)
    assert runtime_dir.running() == ["one"]
    with pytest.raises(MachineCannot):
        runtime_dir.claim("photos")
    assert tree(labs) == before
    os.close(lock)


def test_links_are_not_followed(labs: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "web1.log").touch()
    directory, lock = claimed("one")
    (directory / runtime_dir.LOGS).symlink_to(kept)
    (labs / "two").symlink_to(directory)
    os.close(lock)
    assert runtime_dir.running() == []
    assert [path.name for path in kept.iterdir()] == ["web1.log"]
    assert (labs / "two").is_symlink()


def test_what_a_user_puts_beside_a_labs_files_stays(labs: Path) -> None:
    directory = dead("one")
    (directory / "notes.txt").touch()
    (directory / runtime_dir.LOGS / "thesis").mkdir()
    assert runtime_dir.running() == []
    assert sorted(tree(labs)) == [
        ".netemu",
        "one",
        "one/guests",
        "one/guests/thesis",
        "one/notes.txt",
    ]
    with pytest.raises(MachineCannot, match="is not a lab's, so it stays"):
        runtime_dir.claim("one")


def test_an_empty_directory_is_what_a_killed_command_left(labs: Path) -> None:
    os.close(claimed("one")[1])
    (labs / "two").mkdir()
    assert runtime_dir.running() == []
    assert (labs / "two").exists()
    os.close(claimed("two")[1])


def test_a_directory_that_is_full_keeps_nothing_half(
    labs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other = claimed("other")

    def full(text: str, name: str, *, dir_fd: int) -> None:
        if not text.startswith("lab one"):
            raise FileExistsError
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", full)
        with pytest.raises(MachineCannot, match="No space left on device"):
            runtime_dir.claim("one")
    assert sorted(tree(labs)) == [".netemu", "other", "other/.netemu"]
    os.close(other)


def test_a_command_that_holds_the_directory_is_waited_for_so_long(
    labs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_dir, "_TURN", 0.05)
    _, lock = claimed("one")
    holder = os.open(labs, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    for look in (runtime_dir.running, lambda: runtime_dir.claim("two")):
        with pytest.raises(MachineCannot, match="another process has held it"):
            look()
    os.close(holder)
    assert runtime_dir.running() == ["one"]
    os.close(lock)


def test_a_relative_path_in_a_removed_working_directory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", "labs")
    with pytest.raises(MachineCannot, match="working directory has been removed"):
        runtime_dir.running()


def test_missing_directories_above_are_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path / "typo" / "labs"))
    assert runtime_dir.running() == []
    with pytest.raises(MachineCannot, match="No such file"):
        runtime_dir.claim("one")
    assert not (tmp_path / "typo").exists()
