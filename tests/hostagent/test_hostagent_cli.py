"""The command line, and what importing the package costs and may import."""

import ast
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import hostagent
from hostagent.cli import cli
from hostagent.model import EventType, Guest
from hostagent.times import seconds
from tests.hostagent.daemons import wait_for

SOURCE = Path(hostagent.__file__).parent


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1.5m", 90)],
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "5x", "5 m", "-5m", "1e3", "5m3", "nan", "٥m"])
def test_what_is_no_duration(text):
    result = CliRunner().invoke(cli, ["controller", "--agent", "x", "advance", "--", text])
    assert result.exit_code == 2
    assert "write 90, 500ms, 5m or 1h30m" in result.output


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "d", "3654d"])
@pytest.mark.parametrize("option", [["advance"], ["--timeout"]])
def test_what_is_too_long_for_a_duration(text, option):
    result = CliRunner().invoke(cli, ["controller", "--agent", "x", *option, text, "clock"][:5])
    assert result.exit_code == 2
    assert "a duration is 3653 d at most" in result.output


def every_command(command, path=()):
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*path, name))


@pytest.mark.parametrize("path", list(every_command(cli)), ids=lambda path: " ".join(path) or "-")
def test_every_help(path):
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="hostagent")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: hostagent")
    assert len(result.output.splitlines()) > 4


def run(*args, **environ):
    done = subprocess.run(
        [sys.executable, "-m", "hostagent", *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | environ,
        timeout=30,
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_controllers_command_line(node):
    node.start_agent()

    def control(*args, code=0):
        done = run("controller", "--agent", node.directory / "command", *args)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    control("place", "web1", "--port", "7", "--address", "10.0.0.1", "--fault-domain", "2")
    control("place", "web2", "--availability-set", "front")
    first, second = json.loads(control("guests", "--json"))
    assert first == {
        "guest": {
            "name": "web1",
            "port": 7,
            "address": "10.0.0.1",
            "update_domain": 0,
            "fault_domain": 2,
            "availability_set": None,
            "properties": {},
        },
        "incarnation": 1,
        "edits": 0,
    }
    assert (second["guest"]["name"], second["guest"]["availability_set"]) == ("web2", "front")
    assert "web2" in control("guests")
    event = json.loads(control("schedule", "web1", "--type", "reboot", "--in", "5m", "--json"))
    assert (event["type"], event["status"], event["duration"]) == ("Reboot", "Scheduled", None)
    assert event["not_before"] - event["created"] == pytest.approx(300)
    assert event["id"] in control("list")
    assert json.loads(control("start", event["id"], "--json"))["status"] == "Started"
    assert "Started" in control("approve", event["id"])
    assert "cannot cancel it" in control("cancel", event["id"], code=1)
    assert "Completed" in control("complete", event["id"])
    assert json.loads(control("list", "--json")) == []
    assert len(json.loads(control("list", "--history", "--json"))) == 1
    now = json.loads(control("schedule", "web2", "--type", "FREEZE", "--now", "--json"))
    assert now["status"] == "Started"
    assert control("advance", "10m").endswith("Z\n")
    assert control("clock").endswith("Z, 600 s ahead\n")
    clock = json.loads(control("clock", "--json"))
    assert clock["clock_offset"] == 600
    told = json.loads(control("schedule", "web2", "--type", "freeze", "--no-impact", "--json"))
    assert told["notice_only"]
    assert not now["notice_only"]
    control("withdraw", "web2")
    assert "not on this node" in control("schedule", "web2", "--type", "reboot", code=1)
    assert "guests[0].name" in control("place", "no/name", code=2)
    control("schedule", "web1", "--type", "meteor", code=2)
    control("schedule", "web1", "--type", "reboot", "--in", "1m", "--now", code=2)
    control("schedule", code=2)


def test_exit_codes_of_what_cannot_be(short_path):
    done = run("controller", "--agent", short_path / "nobody", "list")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"Error: agent at {short_path}/nobody: No such file or directory\n"
    assert run("controller", "list").returncode == 2
    assert run("agent", "--node", "n").returncode == 2
    assert run("agent", "--node", "n", "--repository", short_path / "r").returncode == 2
    assert run("responder", "--agent", short_path / "f").returncode == 2
    listen = ("--command", short_path / "c", "--feed", short_path / "f")
    (short_path / "bad").write_text("this is no database" * 100)
    done = run("agent", "--node", "n", "--repository", short_path / "bad", *listen)
    assert done.returncode == 2
    assert "not a database" in done.stderr
    done = run("agent", "--node", "n", "--repository", short_path / "none" / "r", *listen)
    assert done.returncode == 2
    assert done.stderr == f"Error: --repository: the directory is missing: {short_path}/none\n"
    assert [path.name for path in short_path.iterdir()] == ["bad"], "nothing is made"
    done = run("responder", "--agent", short_path / "f", "--listen", "192.0.2.1:80")
    assert done.returncode == 3
    assert "cannot listen on 192.0.2.1:80" in done.stderr
    done = run("responder", "--agent", short_path / "f", LISTEN_FDS="x")
    assert done.returncode == 3


def test_two_agents_cannot_share_a_repository(node):
    node.start_agent()
    done = run(
        "agent", "--node", "n", "--repository", node.directory / "node.sqlite",
        "--command", node.directory / "c2", "--feed", node.directory / "f2",
    )  # fmt: skip
    assert done.returncode == 3
    assert "another process holds this repository" in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_plain_machine_as_the_help_says(short_path):
    """The commands of the first help page, as they stand there, in an empty directory."""
    lines = [line.strip() for line in run("--help").stdout.splitlines()]
    agent, responder, *others, curl = (
        line for line in lines if line.startswith(("hostagent ", "curl "))
    )
    assert len(others) == 2
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def words(line):
        return [
            *(sys.executable, "-m", "hostagent"),
            *shlex.split(line.replace("8080", port))[1:],
        ]

    with (short_path / "log").open("w") as log:
        daemons = [
            subprocess.Popen(words(line), stderr=log, cwd=short_path) for line in (agent, responder)
        ]
    try:
        wait_for(lambda: (short_path / "log").read_text().count("READY") == 2)
        for line in others:
            done = subprocess.run(words(line), capture_output=True, text=True, cwd=short_path)
            assert (done.returncode, done.stderr) == (0, "")

        def ask():
            command = shlex.split(curl.replace("8080", port))
            return subprocess.run(command, capture_output=True, text=True).stdout

        told = wait_for(lambda: "MaintenanceEvent" in (answer := ask()) and answer)
        assert told.startswith('{"ID":"_web1",')
        assert '"EventType":"Reboot"' in told
    finally:
        for daemon in daemons:
            daemon.terminate()
        assert [daemon.wait(10) for daemon in daemons] == [0, 0]


def test_daemons_that_make_their_own_sockets(short_path):
    """The plain machine of the first help page."""
    agent = ["agent", "--node", "n", "--repository", short_path / "r"]
    agent += ["--command", short_path / "c", "--feed", short_path / "f"]
    responder = ["responder", "--agent", short_path / "f", "--identity", "address"]
    responder += ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    with (short_path / "log").open("w") as log:
        daemons = [
            subprocess.Popen([sys.executable, "-m", "hostagent", *map(str, args)], stderr=log)
            for args in (agent, responder)
        ]
    try:
        text = wait_for(lambda: (t := (short_path / "log").read_text()).count("READY") == 2 and t)
        assert text.count("127.0.0.1:") == 2
        assert (short_path / "r").exists()
    finally:
        for daemon in daemons:
            daemon.terminate()
        assert [daemon.wait(10) for daemon in daemons] == [0, 0]


def test_importing_it_costs_nothing():
    code = (
        "import sys; before = set(sys.modules); import hostagent; print(set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ast.literal_eval(done.stdout) == {"hostagent"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_what_runs_on_a_real_node_does_not_know_of_the_lab(path):
    allowed = {"hostagent", "msgpack", "msgspec", "uvloop", "click", "rich"}
    for statement in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            names = [statement.module]
        for name in names:
            top = name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, name


def test_a_clock_is_not_moved_by_thirty_years(node):
    node.start_agent()
    controller = ("controller", "--agent", node.directory / "command")
    assert run(*controller, "advance", "11000d").returncode == 2
    assert run(*controller, "clock").stdout.endswith(", 0 s ahead\n")
    assert run(*controller, "advance", "3653d").returncode == 0
    done = run(*controller, "advance", "10d")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: the clock can be 3660 days ahead at most, not 3663\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["place", "web1", "--port", str(2**70)], "a number has more than 64 bits"),
        (["place", "web1", "--fault-domain", str(-(2**70))], "a number has more than 64 bits"),
        (["place", "web1", "--port", str(2**63)], "<= 4294967295 - at `$.guests[0].port`"),
        (["place", "web1", "--port", "-1"], ">= 1 - at `$.guests[0].port`"),
        (["schedule", "web1", "--type", "reboot", "--in", "367d"], "at `$.notice`"),
        (["schedule", "web1", "--type", "reboot", "--duration", "0s"], "at `$.duration`"),
        (["schedule", "web1", "--type", "reboot", "--description", "x" * 1_100_000], "exceeds"),
        (["advance", "0s"], "at `$.seconds`"),
    ],
)
def test_numbers_and_texts_that_no_agent_takes(node, monkeypatch, words, said):
    node.start_agent()
    command = ["controller", "--agent", str(node.directory / "command"), *words]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1


def test_properties(node):
    node.start_agent()

    def place(*texts, code=0):
        args = [arg for text in texts for arg in ("--property", text)]
        command = ("controller", "--agent", node.directory / "command", "place", "web1", *args)
        done = run(*command)
        assert done.returncode == code, done.stderr
        return done.stderr

    place("tags.Name=a=b", "vm_size=Standard_B1s")
    with node.controller() as controller:
        (one,) = controller.guests()
        assert one.guest.properties == {"tags.Name": "a=b", "vm_size": "Standard_B1s"}
        assert (one.incarnation, one.edits) == (1, 0)
        place("vm_size=Standard_B2s")
        (one,) = controller.guests()
        assert (one.incarnation, one.edits) == (1, 1)
        assert "did you mean vm_size" in place("vm_sise=x", code=2)
        assert "vm_size=Standard_B1s" in place("vm_size", code=2)
        assert controller.guests() == (one,)
    assert "instance_id" in run("controller", "properties").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dialects", "azure,ec3"], "no dialect is called ec3"),
        (["--ec2-hop-limit", "65"], "1<=x<=64"),
        (["--azure-rate", "-1"], "at least 0"),
        (["--signing-key", "/dev/null"], "private RSA key and its certificate"),
    ],
)
def test_bad_dialects(options, said):
    done = run("responder", "--agent", "x", "--listen", "127.0.0.1:0", *options)
    assert done.returncode == 2
    assert said in done.stderr


def test_azures_events_begin_late_and_their_document_anew(node):
    """A user sees what a first request costs in Azure, and what a guest finds on another host."""
    node.start_agent()
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1")])
        for _ in range(3):
            controller.schedule(["web1"], EventType.FREEZE)
    node.start_responder("--azure-events-delay", "1s", "--azure-incarnation-restarts")
    wait_for(lambda: node.get()[0] == 200)
    events = ("/metadata/scheduledevents?api-version=2020-07-01", "127.0.0.1", "Metadata: true")
    begun = time.monotonic()
    status, _, body = node.get(*events)
    assert time.monotonic() - begun >= 0.9
    told = json.loads(body)
    assert (status, told["DocumentIncarnation"], len(told["Events"])) == (200, 1, 3)


def test_dialects_can_be_switched_off(node):
    node.start_agent()
    node.start_responder("--dialects", "azure-v1, ec2", "--no-ec2-imdsv1", "--stale-after", "50s")
    with node.controller() as controller:
        controller.place([Guest(name="web1", address="127.0.0.1")])
    wait_for(lambda: node.get()[0] == 200)
    assert node.get("/metadata/versions", "127.0.0.1", "Metadata: true")[0] == 404
    assert node.get("/computeMetadata/v1/", "127.0.0.1", "Metadata-Flavor: Google")[0] == 404
    assert node.get("/latest/meta-data/")[0] == 401
