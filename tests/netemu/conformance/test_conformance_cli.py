"""`netemu conformance` where it needs no lab: what it refuses, and what it lists."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from netemu.conformance.roles import ELSEWHERE
from netemu.conformance.rows import CATALOGUE
from netemu.topology import DEMO, load
from tests.conftest import Person
from tests.netemu.labs.test_lab_bottle import gone


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "199"], "there is no row 199"),
        (["--rows", "x"], "'x' is not a row"),
        (["--rows", "5-"], "'5-' is not a row"),
        (["--pcap-all"], "say where"),
        (["--prove", "--name", "a"], "exclude each other"),
        (["--prove", "--against", "all"], "exclude each other"),
        (["--against", "nobody"], "clean-traffic"),
        (["--impaired", "--prove"], "of the isolation suite's own"),
        (["--suite", "rfc3927", "--rows", "1"], "leave it out"),
        (["--suite", "rfc3927", "--prove"], "goes with --name alone"),
        (["--nodes-from", "/nowhere.yaml"], "/nowhere.yaml: No such file"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    person: Person, arguments: list[str], said: str
) -> None:
    done = person.netemu("conformance", *arguments, check=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_catalogue_is_listed(person: Person) -> None:
    lines = person.netemu("conformance", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [row.id for _, row in CATALOGUE]
    assert person.netemu("conformance", "--list", "--rows", "18-20").stdout.count("\n") == 3


def test_a_cache_of_scapys_that_is_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    """As after 'sudo': ~/.cache/scapy is root's, and cannot be read."""
    cache = tmp_path / ".cache" / "scapy"
    cache.mkdir(parents=True)
    for name in ("ethertypes", "protocols", "services"):
        (cache / f"{name}.pickle").mkdir()  # nobody can read or remove that as a file
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        Person("user", (), environment).command("conformance", "--list"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.lab
def test_our_lab_holds_the_whole_catalogue(person: Person) -> None:
    # One policy for each of the two who run it: what differs between them is not the policy's.
    policy = "responder-only" if person.kind == "root" else "same-node"
    done = person.netemu("conformance", "--policy", policy, "--json", check=None, timeout=300)
    told = json.loads(done.stdout)
    wrong = [(one["id"], one["observed"], one["evidence"]) for one in told["rows"] if not one["ok"]]
    assert not wrong, done.stderr
    assert done.returncode == 0
    assert told["policy"] == policy
    assert [one["id"] for one in told["rows"]] == [row.id for _, row in CATALOGUE]
    assert "conformance-" not in person.netemu("list").stdout


@pytest.mark.lab
def test_a_relay_in_every_wire_lets_nothing_by(person: Person) -> None:
    """A relay that forgot the tags of frames would let through what the guard refuses (29, 31).

    The whole catalogue holds, too: 'netemu conformance --impaired --policy both'.
    """
    rows = ("--rows", "01,06,29,31,39,75")
    done = person.netemu("conformance", "--impaired", *rows, "--json", timeout=300)
    assert [one["ok"] for one in json.loads(done.stdout)["rows"]] == [True] * 6


def test_a_lab_that_runs_is_attacked_and_left_as_it_was(person: Person, tmp_path: Path) -> None:
    person.netemu("up", "--name", "attacked", "--time-scale", "0.1")
    try:
        rows = ("--rows", "01-07,38-41,68,76")
        done = person.netemu("conformance", "--name", "attacked", *rows, timeout=300)
        assert "✗" not in done.stdout
        after = json.loads(person.netemu("status", "attacked", "--json").stdout)
        assert {one["state"] for node in after["nodes"] for one in node["guests"]} == {"bound"}
        told = person.netemu("exec", "--name", "attacked", "node1", "--", "ip", "address").stdout
        assert "198.51.100.77" not in told
    finally:
        person.netemu("down", "attacked")


# Others may try the same on this machine.
NAME = f"conf{os.getpid()}"
BRIDGE = f"""
for place in n 1 2; do ip netns add {NAME}$place; done
ip -n {NAME}n link add br0 type bridge
ip -n {NAME}n link set br0 up
ip -n {NAME}n address add 10.9.0.1/24 dev br0
for n in 1 2; do
    ip -n {NAME}n link add q$n type veth peer name eth0 netns {NAME}$n
    ip -n {NAME}n link set q$n master br0 up
    ip -n {NAME}$n link set eth0 up
    ip -n {NAME}$n address add 10.9.0.1$n/24 dev eth0
done
"""


@pytest.fixture
def own_bridge(tmp_path: Path) -> Path:
    """A plain bridge with two guests, made by hand as somebody would."""
    if os.geteuid() != 0:
        pytest.skip("needs root: named network namespaces are made by 'ip netns'")
    subprocess.run(["bash", "-ec", BRIDGE], check=True)
    file = tmp_path / "nodes.yaml"
    file.write_text(
        "policy: same-node\n"
        f"node: {{netns: {NAME}n, interface: br0}}\n"
        f"attacker: {{netns: {NAME}1, interface: eth0}}\n"
        f"victim: {{netns: {NAME}2, interface: eth0}}\n"
    )
    return file


# (Not 18: after it the bridge takes the victim to be elsewhere, and 20 depends on when it speaks.)
LET_BY_A_BRIDGE = ("02", "06", "21", "28", "29", "35", "39", "54", "57")


@pytest.mark.lab
@pytest.mark.root
def test_ones_own_bridge_is_judged_by_what_it_lets_through(
    own_bridge: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    captures = tmp_path / "captures"
    try:
        command = Person("root", (), environment).command("conformance")
        file = ("--nodes-from", str(own_bridge))
        rows = ("--rows", ",".join([*LET_BY_A_BRIDGE, "20", "64"]))
        done = subprocess.run(
            [*command, *file, *rows, "--json", "--pcap", str(captures)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 1, done.stderr
        told = {one["id"]: one for one in json.loads(done.stdout)["rows"]}
        assert "64" not in told  # that needs a responder
        for failing in LET_BY_A_BRIDGE:
            assert not told[failing]["ok"], told[failing]
        assert told["20"]["ok"]  # what both it and the policy allow
        assert (captures / f"same-node-02-{NAME}2.pcap").exists(), [*captures.iterdir()]
    finally:
        for place in "n12":
            subprocess.run(["ip", "netns", "delete", f"{NAME}{place}"], check=False)


@pytest.mark.lab
@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_ones_own_bridge_is_given_back_however_the_command_ends(
    own_bridge: Path, number: signal.Signals
) -> None:
    """A user ends the command: the address that it had put on the node is gone, and so is it."""
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def addresses() -> str:
        command = ["ip", "-n", f"{NAME}n", "-4", "address", "show", "dev", "lo"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        person = Person("root", (), environment)
        process = person.start("conformance", "--nodes-from", str(own_bridge))
        assert gone(lambda: ELSEWHERE in addresses(), 60)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert gone(lambda: ELSEWHERE not in addresses(), 20)
    finally:
        for place in "n12":
            subprocess.run(["ip", "netns", "delete", f"{NAME}{place}"], check=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node: {interface: br0}", "attacker"),
        ("node: 5\nattacker: {}\nvictim: {}", "object"),
        ("colour: red", "unknown field"),
        ("[", "line 1: not YAML"),
    ],
)
def test_a_file_that_is_wrong_is_said_to_be(
    person: Person, place: Path, text: str, said: str
) -> None:
    path = place / "nodes.yaml"
    path.write_text(text)
    path.chmod(0o644)
    done = person.netemu("conformance", "--nodes-from", str(path), check=2)
    assert said in done.stderr
    assert str(path) in done.stderr


def test_the_demo_lab_is_what_the_suite_needs() -> None:
    near, far = load(DEMO).nodes
    assert len(near.guests) >= 3
    assert far.guests
