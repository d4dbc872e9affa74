"""Listening sockets, handed over or made, and the word that they are served."""

import ast
import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hostagent
from hostagent.notify import Notifier
from hostagent.sockets import SocketError, handed_over, listen_tcp, listen_unix

SOURCE = Path(hostagent.__file__).parent


def test_a_unix_socket_is_its_owners_alone(short_path):
    sock = listen_unix(short_path / "s")
    assert stat.S_IMODE((short_path / "s").stat().st_mode) == 0o600
    with sock, pytest.raises(SocketError, match="another process listens"):
        listen_unix(short_path / "s")
    listen_unix(short_path / "s").close()  # what a dead process has left is replaced


def test_a_file_that_is_no_socket_is_left_alone(short_path):
    (short_path / "s").write_text("precious")
    with pytest.raises(SocketError, match="not a socket"):
        listen_unix(short_path / "s")
    assert (short_path / "s").read_text() == "precious"
    with pytest.raises(SocketError, match="No such file"):
        listen_unix(short_path / "no" / "s")
    with pytest.raises(SocketError, match="too long"):
        listen_unix(short_path / ("s" * 200))


def test_listening_on_tcp():
    with listen_tcp("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(SocketError, match="in use"):
            listen_tcp(f"127.0.0.1:{port}")


@pytest.mark.parametrize("text", ["", "80", ":", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"])
def test_what_is_no_address(text):
    with pytest.raises(SocketError, match=r"127\.0\.0\.1:8080"):
        listen_tcp(text)
    with pytest.raises(SocketError, match="cannot listen"):
        listen_tcp("192.0.2.1:0")


def handing_over(code, *socks, **environ):
    """Run code in a process that has the sockets from descriptor 3 on."""
    shim = textwrap.dedent(
        """
        import os, sys
        for i, fd in enumerate([int(fd) for fd in sys.argv[1].split(",") if fd]):
            os.dup2(fd, 100 + i)
        for i, fd in enumerate([int(fd) for fd in sys.argv[1].split(",") if fd]):
            os.dup2(100 + i, 3 + i)
        from hostagent.sockets import *
        """
    )
    fds = [sock.fileno() for sock in socks]
    return subprocess.run(
        [sys.executable, "-c", shim + code, ",".join(map(str, fds))],
        pass_fds=fds,
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )


def test_sockets_handed_over(short_path):
    with listen_unix(short_path / "a") as a, listen_tcp("127.0.0.1:0") as b:
        done = handing_over(
            "taken = handed_over(os.environ)\n"
            "print({k: [s.getsockname() for s in v] for k, v in taken.items()})\n"
            "print([v[0].get_inheritable() for v in taken.values()])\n"
            "print([k for k in os.environ if k.startswith('LISTEN')], handed_over(os.environ))",
            a,
            b,
            LISTEN_FDS="2",
            LISTEN_FDNAMES="command:http",
        )
        lines = done.stdout.splitlines()
        assert ast.literal_eval(lines[0]) == {
            "command": [str(short_path / "a")],
            "http": [b.getsockname()],
        }
        assert lines[1:] == ["[False, False]", "[] {}"]


def test_sockets_for_another_process(short_path):
    with listen_unix(short_path / "a") as a:
        for pid, count in (("1", 0), ("", 1)):
            done = handing_over(
                "print(sum(map(len, handed_over(os.environ).values())))",
                a,
                LISTEN_FDS="1",
                LISTEN_PID=pid,
            )
            assert done.stdout.strip() == str(count)
    assert handed_over({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1)}) == {}
    assert handed_over({}) == {}


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"LISTEN_FDS": "x"}, "small number"),
        ({"LISTEN_FDS": "65"}, "small number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "names 1"),
    ],
)
def test_wrong_variables(environ, why):
    with pytest.raises(SocketError, match=why):
        handed_over(environ)


def test_descriptors_that_are_no_listening_sockets(short_path):
    with listen_unix(short_path / "a"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_path / "a"))
        done = handing_over("handed_over(os.environ)", client, LISTEN_FDS="1", LISTEN_FDNAMES="x")
        assert "descriptor 3 (x) is not a listening stream socket" in done.stderr
        with open(os.devnull) as null:
            done = handing_over("handed_over(os.environ)", null, LISTEN_FDS="1")
            assert "descriptor 3 (unknown): Socket operation on non-socket" in done.stderr


def test_saying_ready(short_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(short_path / "n"))
        environ = {"NOTIFY_SOCKET": str(short_path / "n")}
        notifier = Notifier.connect(environ)
        assert environ == {}
        os.unlink(short_path / "n")  # connected already
        notifier.ready("agent n1")
        assert listener.recv(100) == b"READY=1\nSTATUS=READY agent n1"
        notifier.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0hostagent-{os.getpid()}")
        notifier = Notifier.connect({"NOTIFY_SOCKET": f"@hostagent-{os.getpid()}"})
        notifier.ready("x")
        assert listener.recv(100).startswith(b"READY=1")
        listener.close()
        notifier.ready("x")  # nobody waits any more
        notifier.close()
    Notifier.connect({}).ready("x")
    Notifier.connect({"NOTIFY_SOCKET": str(short_path / "nobody")}).ready("x")


def test_saying_that_one_lives(short_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(short_path / "n"))
        environ = {"NOTIFY_SOCKET": str(short_path / "n"), "WATCHDOG_USEC": "3000000"}
        notifier = Notifier.connect(environ)
        assert (notifier.interval, environ) == (1.5, {})
        notifier.is_first = False
        notifier.ready("a further process")  # is the first one's to say
        for _ in range(10_000):  # nobody reads them: none waits for that
            notifier.alive()
        assert listener.recv(100) == b"WATCHDOG=1"
        notifier.close()
    assert Notifier.connect({"WATCHDOG_USEC": "3000000"}).interval is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(short_path / "m"))
        for wrong in ("", "0", "-5", "soon"):
            environ = {"NOTIFY_SOCKET": str(short_path / "m"), "WATCHDOG_USEC": wrong}
            notifier = Notifier.connect(environ)
            assert notifier.interval is None
            notifier.close()


def test_a_socket_whose_name_means_nothing_to_the_agent_is_served(node):
    """A supervisor binds by a name below its own /proc/self/fd; the files stay when agents end."""
    directory = os.open(node.directory, os.O_DIRECTORY)
    for name in ("command", "feed"):
        node.sockets[name].close()
        (node.directory / name).unlink()
        node.sockets[name] = socket.socket(socket.AF_UNIX)
        node.sockets[name].bind(f"/proc/self/fd/{directory}/{name}")
        node.sockets[name].listen()
    os.close(directory)
    for _ in range(2):
        assert node.start_agent() == "READY=1\nSTATUS=READY agent n1"
        assert node.terminate("agent") == 0
        assert (node.directory / "command").is_socket()
        assert (node.directory / "feed").is_socket()


def test_a_socket_that_an_agent_has_made_is_there_for_the_next(short_path):
    """As with one that is killed: the next agent replaces what it finds."""
    agent = [sys.executable, "-m", "hostagent", "agent", "--node", "n1"]
    agent += ["--repository", "n1.sqlite", "--command", "command", "--feed", "feed"]
    for _ in range(2):
        with subprocess.Popen(
            agent,
            cwd=short_path,
            env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            while "READY" not in (line := process.stderr.readline()):
                assert line, "it has ended"
            process.terminate()
            assert "agent n1 ends" in process.stderr.read()
        assert process.returncode == 0
        assert (short_path / "feed").is_socket()
