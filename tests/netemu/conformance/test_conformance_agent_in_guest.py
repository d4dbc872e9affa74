"""What runs in a guest: the agent is started, and what it does is written down outside."""

import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from netemu.conformance.agent import in_guest
from netemu.conformance.agent.in_guest import Journal, Runner, Watch, serve_mark, serve_stub


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared directory; the guest's own one is in it."""
    monkeypatch.setattr(in_guest, "OWN", tmp_path / "own")
    (tmp_path / "own").mkdir()
    return tmp_path


def marks(work: Path) -> list[str]:
    lines = (work / "a.journal").read_text().splitlines()
    return [f"{one['what']} {one['text']}".strip() for one in map(json.loads, lines)]


def plan(drained: tuple[str, str], returned: tuple[str, str] = ("none", "")) -> dict[str, Any]:
    return {"drained": drained, "returned": returned}


def test_a_mark_is_written_down_and_busy_lasts_three_seconds(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(in_guest.time, "time", lambda: now)
    journal = Journal(work, "a")
    assert serve_mark(journal, "busy") == 0
    now += 2.9
    assert serve_mark(journal, "busy") == 0
    now += 0.2
    assert serve_mark(journal, "busy") == 1
    assert serve_mark(journal, "drained") == 0
    assert serve_mark(journal, "returned") == 0
    assert serve_mark(journal, "busy") == 0  # the next drain takes its time, too
    assert serve_mark(journal, "") == 2
    assert marks(work) == ["busy", "drained", "returned", "busy"]


def test_a_stub_keeps_what_is_set_by_name_and_marks(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(work, "a")
    told = plan(("call", "crm_attribute --update [1-9]"))
    words = ["crm_attribute", "--node", "a", "--name", "hold"]
    assert serve_stub(journal, work, told, [*words, "--query"]) == 0
    assert serve_stub(journal, work, told, [*words, "--update", "7"]) == 0
    assert serve_stub(journal, work, told, [*words, "--query"]) == 0
    assert serve_stub(journal, work, told, ["kubectl", "drain", "a"]) == 0
    assert capsys.readouterr().out == "\n7\n"
    kinds = [one.partition(" ")[0] for one in marks(work)]
    assert kinds == ["call", "call", "drained", "call", "call"]


def test_what_is_set_for_all_guests_is_read_by_each_until_it_is_deleted(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, words = ("call", "crm_attribute"), ["crm_attribute", "--name", "hostName_a"]
    for guest, rest in (
        ("a", ["--type", "crm_config", "--update", "web1"]),
        ("b", ["--type", "crm_config", "--query"]),
        ("b", ["--query"]),
        ("b", ["--delete", "--type", "crm_config"]),
        ("a", ["--type", "crm_config", "--query"]),
    ):
        monkeypatch.setattr(socket, "gethostname", lambda guest=guest: guest)
        assert serve_stub(Journal(work, guest), work, plan(adapter), [*words, *rest]) == 0
    assert capsys.readouterr().out == "web1\n\n\n"


def test_a_file_is_seen_to_come_and_to_go(work: Path) -> None:
    file = work / "out"
    seen: list[str] = []
    adapter = ("file", str(file))
    watch = Watch(plan(adapter, adapter), lambda what, _: seen.append(what))
    watch.look()
    file.touch()
    watch.look()
    watch.look()
    file.unlink()
    watch.look()
    assert seen == ["drained", "returned"]


def test_a_health_page_says_both(work: Path) -> None:
    """200 is in service; 503 and a refused connection are drained."""
    statuses = [200, 200, 503, 503]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    seen: list[str] = []
    adapter = ("http", f"http://127.0.0.1:{server.server_port}/")
    watch = Watch(plan(adapter, adapter), lambda what, _: seen.append(what))
    try:
        watch.look()
        watch.look()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    watch.look()
    assert seen == ["returned", "drained"]


@pytest.mark.parametrize(
    ("policy", "script", "expected"),
    [
        ("no", "echo out now; exit 0", ["line out now", "drained out now", "ended 0"]),
        ("no", "exit 3", ["ended 3"]),
        ("on-failure", "exit 3", ["ended 3", "ended 3", "started"]),
    ],
)
def test_an_agent_is_started_again_as_its_policy_says(
    work: Path, monkeypatch: pytest.MonkeyPatch, policy: str, script: str, expected: list[str]
) -> None:
    monkeypatch.setattr(in_guest, "LOOK", 0.01)
    monkeypatch.setattr(in_guest, "RESTART", 0.0)
    monkeypatch.setattr(in_guest, "MAX_RESTARTS", 1)
    (work / "agent.json").write_text(json.dumps({
        **plan(("log", "^out")), "run": ["sh", "-c", script], "restart": policy,
        "directory": str(work),
    }))  # fmt: skip

    class Over(Exception):
        pass

    end = time.monotonic() + 20

    def nap(_: float) -> None:
        if len(marks(work)) >= len(expected) + 2:
            raise Over
        assert time.monotonic() < end, marks(work)

    monkeypatch.setattr(in_guest.time, "sleep", nap)
    with pytest.raises(Over):
        Runner.of(work, "a").run()
    found = marks(work)
    assert found[:2] == ["boot", "started"]
    assert sorted(found[2:]) == sorted(expected)


def test_an_agent_is_killed_at_the_mark_if_the_story_says_so(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(in_guest.os, "killpg", lambda pid, _: killed.append(pid))
    (work / "own" / "pid").write_text("77")
    journal = Journal(work, "a")
    (work / "a.order").write_text("kill-at-drained")
    serve_mark(journal, "returned")
    assert killed == []
    serve_mark(journal, "drained")
    serve_mark(journal, "drained")
    assert killed == [77]
    assert marks(work) == ["returned", "drained", "killed", "drained"]


def test_it_needs_the_standard_library_alone() -> None:
    """Guests need not have this project's packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", in_guest.__file__, "called", "/nonexistent", "a",
         "netemu-mark", "smoke"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "say drained, returned or busy" in done.stderr
