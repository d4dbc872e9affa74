"""Giving up every privilege, and what still works without."""

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

import hostagent
from hostagent import confinement, daemon, privileges
from hostagent.controller import CommandRefused
from hostagent.model import EventType, Guest
from hostagent.notify import Notifier
from tests.hostagent.daemons import wait_for
from tests.hostagent.test_hostagent_golden import GOLDEN

SOURCE = Path(hostagent.__file__).parent


GIVE_UP = """
import ctypes, os, sys
sys.path.insert(0, {source!r})
from hostagent.privileges import give_up
print(give_up({uid}), os.getresuid(), os.getresgid(), os.getgroups())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print([int(status[k], 16) for k in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")])
print(int(status["NoNewPrivs"]), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
os.execvp("sh", ["sh", "-c", "grep CapEff /proc/self/status"])
"""


def give_up(uid, *prefix):
    code = GIVE_UP.format(uid=uid, source=str(SOURCE.parent))
    return subprocess.run(
        [*prefix, sys.executable, "-u", "-c", code], capture_output=True, text=True, cwd="/"
    )


def test_giving_up_as_the_present_user():
    done = give_up(None)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("True")
    effective = ast.literal_eval(lines[1])
    assert effective[:3] == [0, 0, 0]
    assert lines[2] == "1 0"
    assert lines[3].split() == ["CapEff:", "0000000000000000"]  # not even by way of exec


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_giving_up_as_root():
    done = give_up(61901)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"True {(61901,) * 3} {(61901,) * 3} []"
    assert lines[1] == "[0, 0, 0, 0, 0]"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode != 0,
    reason="no user namespaces here",
)
def test_giving_up_where_the_user_does_not_exist():
    """Root of a user namespace with one user in it: stays who it is, without capabilities."""
    done = give_up(61901, "unshare", "-Ur")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("False (0, 0, 0)")
    assert lines[1] == "[0, 0, 0, 0, 0]"
    assert lines[3].split() == ["CapEff:", "0000000000000000"]


def test_threads_would_keep_theirs():
    code = f"""
import sys, threading
sys.path.insert(0, {str(SOURCE.parent)!r})
from hostagent.privileges import *
event = threading.Event()
threading.Thread(target=event.wait).start()
try:
    give_up(None)
except PrivilegesRemain as error:
    print(error)
event.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "before threads are started" in done.stdout


MARKS = """
import os, socket, struct, subprocess, sys, tempfile, time
sys.path.insert(0, {source!r})
from hostagent.controller import SyncController
from hostagent.model import Guest
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/tcp_fwmark_accept", "w").write("1")
directory = tempfile.mkdtemp()
def daemon(*args):
    return subprocess.Popen([sys.executable, "-P", "-m", "hostagent", *args],
                            env=os.environ | {{"PYTHONPATH": {source!r}}})
daemons = [
    daemon("agent", "--node", "n", "--repository", directory + "/r",
           "--command", directory + "/c", "--feed", directory + "/f"),
    daemon("responder", "--agent", directory + "/f", "--listen", "127.0.0.1:80"),
]
def ask(mark):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
        sock.connect(("127.0.0.1", 80))
        sock.sendall(b"GET /metadata/v1/InstanceInfo/ID HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\n"
                     b"Connection: close\\r\\n\\r\\n")
        data = b""
        while piece := sock.recv(4096):
            data += piece
    return data.split()[1].decode() + " " + data.partition(b"\\r\\n\\r\\n")[2].decode()
try:
    for _ in range(500):
        try:
            ask(0)
            with SyncController.connect(directory + "/c") as controller:
                controller.place([Guest(name="web1", port=17), Guest(name="web2", port=2**32 - 1)])
            break
        except Exception:
            time.sleep(0.02)
    for _ in range(500):  # until the responder has heard of them
        if ask(17).startswith("200"):
            break
        time.sleep(0.02)
    for mark in (17, 2**32 - 1, 18, 0):
        print(ask(mark))
finally:
    for process in daemons:
        process.terminate()
        print(process.wait())
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode != 0
    or shutil.which("ip") is None,
    reason="no user and network namespaces here",
)
def test_the_mark_of_the_connection_says_who_asks():
    """On the loopback of a namespace of our own, where a client's mark is the connection's."""
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", MARKS.format(source=str(SOURCE.parent))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[:2] == ["200 _web1", "200 _web2"], done.stderr
    assert [line[:3] for line in done.stdout.splitlines()[2:]] == ["403", "403", "0", "0"]


def test_privileges_are_given_up_before_there_is_a_loop(monkeypatch):
    """Some releases of uvloop start a thread with the loop, which would keep them."""
    order = []
    new_event_loop = uvloop.new_event_loop
    monkeypatch.setattr(privileges, "give_up", lambda _user: order.append("privileges") or True)
    monkeypatch.setattr(confinement, "confine", lambda _store: order.append("confined") or [])
    monkeypatch.setattr(uvloop, "new_event_loop", lambda: order.append("loop") or new_event_loop())

    async def serve(_stop, _ready):
        order.append("serve")

    daemon.run(serve, what="nothing", user=None, notifier=Notifier.connect({}))
    assert order == ["privileges", "confined", "loop", "serve"]


# Python runs this before the daemon. Undumpable is the last that `give_up` makes of a process.
WATCH_IMPORTS = """
import ctypes, sys

class Late:
    def find_spec(self, name, *_):
        if ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0:
            print("imported too late:", name, file=sys.stderr)

sys.meta_path.insert(0, Late())
"""


@pytest.fixture
def watched_imports(tmp_path, monkeypatch):
    """Has every Python that is started say what it imports without privileges."""
    (tmp_path / "sitecustomize.py").write_text(WATCH_IMPORTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{SOURCE.parent}")


def test_nothing_is_imported_once_privileges_are_given_up(node, watched_imports):
    """The source tree may be out of reach by then, whatever a guest or a controller asks."""
    node.start_agent()
    node.start_responder("--azure-rate", "0")
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1", properties={"iam_role": "r"})])
        controller.schedule(["web1"], EventType.REBOOT, notice=300)
        controller.advance(1)
        with pytest.raises(CommandRefused):
            controller.complete("no such event")
    wait_for(lambda: node.get()[0] == 200)
    with node.connect() as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        sock.recv(100)
    every = ("Metadata: true", "Metadata-Flavor: Google")
    for line in GOLDEN.read_text().splitlines():
        if line.startswith("##### GET ") and "wait_for_change" not in line:
            node.get(line.split()[2], "127.0.0.1", *every)
    for name in ("agent", "responder"):
        assert node.terminate(name) == 0
        assert "READY" in node.log(name)
        assert "imported too late" not in node.log(name)


def test_the_first_error_without_privileges_is_the_one_that_is_told(node, watched_imports):
    """A socket that cannot be served is found after they are gone: nothing else may hide it."""
    node.sockets["feed"].close()
    node.sockets["feed"] = socket.create_server(("127.0.0.1", 0))
    node.start_agent(ready=False)
    assert node.processes.pop("agent").wait(20) == 3
    told = node.log("agent")
    assert "ends by an error" in told
    assert "A UNIX Domain Stream Socket was expected" in told.splitlines()[-1]
    assert "imported too late" not in told
