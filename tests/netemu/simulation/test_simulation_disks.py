"""A run leaves nothing in memory, however it ends; and nothing else is taken for its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from netemu.simulation import disks

SCRIPT = """
import sys, time
from pathlib import Path
from netemu.simulation import disks
with disks.directory(Path(sys.argv[1])) as made:
    (made / "n1").mkdir()
    print(made, flush=True)
    time.sleep(600)
"""


def test_the_next_run_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        left = Path(process.stdout.readline().strip())
        with disks.directory(tmp_path) as mine:
            assert left.is_dir(), "it lives"
            assert mine.is_dir()
        assert list(tmp_path.iterdir()) == [left]
        os.kill(process.pid, signal.SIGKILL)
    with disks.directory(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_runs_stays(tmp_path: Path) -> None:
    """A directory without our mark, a file, and a link of such a name."""
    for name in ("photos", "netemu-simulation-photos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.jpg").touch()
    (tmp_path / "netemu-simulation-file").touch()
    (tmp_path / "netemu-simulation-link").symlink_to(tmp_path / "photos")
    before = sorted(tmp_path.rglob("*"))
    with disks.directory(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
