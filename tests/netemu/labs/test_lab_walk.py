"""What a person does with a lab from `up` to `down`."""

import ipaddress
import json
import re

import pytest

from tests.conftest import Person, RunningLab

pytestmark = pytest.mark.lab


def test_every_guest_holds_an_address_of_its_own(lab: RunningLab) -> None:
    """A user sees six guests, each bound to another 169.254/16 address that may be claimed."""
    told = lab.status()
    assert told["name"] == "shared"
    assert told["policy"] == "responder-only"
    names = {node["name"]: [guest["name"] for guest in node["guests"]] for node in told["nodes"]}
    assert names == {"node1": ["web1", "web2", "web3"], "node2": ["db1", "db2", "db3"]}
    guests = list(lab.guests().values())
    for guest in guests:
        assert set(guest) == {"name", "mac", "address", "state", "port_mark", "power", "runs"}
        assert guest["state"] == "bound"
        assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", guest["mac"])
        address = ipaddress.IPv4Address(guest["address"])
        assert ipaddress.IPv4Address("169.254.1.0") <= address
        assert address <= ipaddress.IPv4Address("169.254.254.255")
    for key in ("mac", "address", "port_mark"):
        assert len({guest[key] for guest in guests}) == 6


def test_a_guest_configures_what_it_claimed(lab: RunningLab) -> None:
    """A user sees in the guest the address that `status` tells, with prefix 16 (section 2.8)."""
    shown = json.loads(lab.exec("web1", "ip", "-j", "-4", "address", "show", "eth0").stdout)
    (info,) = shown[0]["addr_info"]
    assert info["local"] == lab.address("web1")
    assert info["prefixlen"] == 16
    assert info["scope"] == "link"


@pytest.mark.parametrize("guest", ["web1", "web2", "web3", "db1", "db2", "db3"])
def test_a_guest_is_told_who_it_is(lab: RunningLab, guest: str) -> None:
    """A user sees each guest answered as itself, with its update and fault domain."""
    answer = json.loads(lab.get(guest))
    node = 0 if guest.startswith("web") else 1
    assert answer == {"ID": f"_{guest}", "UD": str(int(guest[-1]) - 1), "FD": str(node)}
    assert lab.get(guest, "/metadata/v1/instanceinfo/id") == f"_{guest}"
    assert lab.get(guest, "/metadata/v1/maintenance") == "{}"


def test_up_again_changes_nothing(lab: RunningLab) -> None:
    """A user who types `up` twice keeps the lab that runs."""
    before = lab.status()
    done = lab.person.netemu("up", "--name", "shared")
    assert "already" in done.stdout
    assert lab.status() == before


def test_another_file_under_the_same_name_is_refused(lab: RunningLab, fresh_lab: object) -> None:
    """A user who brings up another file under a running lab's name is told, and nothing changes."""
    before = lab.status()
    path = lab.person.labs / "other.yaml"
    path.write_text("nodes: {n: {guests: 1}}")
    try:
        done = lab.person.netemu("up", str(path), "--name", "shared", check=1)
    finally:
        path.unlink()
    assert "another file" in done.stderr
    assert lab.status() == before


def test_exec_gives_the_commands_own_exit_code_and_streams(lab: RunningLab) -> None:
    """A user's command in a guest behaves as at home: exit code, input, output, signals."""
    assert lab.exec("web1", "sh", "-c", "exit 7", check=7).stdout == ""
    assert lab.exec("web1", "cat", stdin="hello").stdout == "hello"
    assert lab.exec("web1", "sh", "-c", "echo err >&2").stderr == "err\n"
    assert lab.exec("web1", "sh", "-c", "kill -9 $$", check=137)
    assert lab.exec("web1", "/no/such/command", check=127)
    assert lab.exec("web1", "/etc", check=126)
    assert lab.exec("web1", "hostname").stdout == "web1\n"
    assert "no such guest" in lab.exec("web9", "true", check=2).stderr


def test_exec_passes_options_on(lab: RunningLab) -> None:
    """A user's command keeps its own options, whatever they look like."""
    assert lab.exec("web1", "echo", "--name", "-x", "--json").stdout == "--name -x --json\n"


def test_exec_on_a_node_is_in_the_nodes_network(lab: RunningLab) -> None:
    """A user on a node sees its bridge and its guests' ports."""
    links = lab.exec("node1", "ip", "-o", "link").stdout
    assert "br0" in links
    assert all(f" {port}@" in links for port in ("p1", "p2", "p3"))
    assert " p4@" not in links


def test_enter_shows_nodes_and_guests_to_ip_netns(lab: RunningLab) -> None:
    """A user in the sandbox works with `ip netns` as he is used to."""
    environment = {**lab.person.environment, "SHELL": "/bin/sh"}
    inside = Person(lab.person.kind, lab.person.prefix, environment)
    script = "ip netns list; ip netns exec db2 ip -4 -o address show eth0\n"
    shown = inside.netemu("enter", "--name", "shared", stdin=script).stdout
    for name in ("node1", "node2", "web1", "db3"):
        assert re.search(rf"^{name}\b", shown, re.MULTILINE)
    assert lab.address("db2") in shown


def test_down_twice_is_polite(person: Person) -> None:
    """A user who takes down what is not up is told so, and nothing is wrong."""
    done = person.netemu("down", "never-was-up")
    assert "was not up" in done.stdout
    assert not (person.labs / "never-was-up").exists()


def test_two_labs_run_side_by_side(lab: RunningLab, fresh_lab: object) -> None:
    """A user runs two labs of one shape at once; each is complete, and `--name` is needed."""
    other = fresh_lab("nodes: {node1: {guests: [web1]}}")  # type: ignore[operator]
    assert json.loads(other.get("web1"))["ID"] == "_web1"
    assert json.loads(lab.get("web1"))["ID"] == "_web1"
    listed = {one["name"] for one in json.loads(lab.person.netemu("list", "--json").stdout)}
    assert {"shared", other.name} <= listed
    assert "--name" in lab.person.netemu("status", check=2).stderr


def test_a_hundred_guests_by_number(fresh_lab: object) -> None:
    """A user writes `guests: 100` and gets node-1 to node-100, all bound."""
    lab = fresh_lab("nodes: {n: {guests: 100}}")  # type: ignore[operator]
    guests = lab.guests()
    assert list(guests) == [f"n-{number}" for number in range(1, 101)]
    assert len({one["address"] for one in guests.values()}) == 100
    assert json.loads(lab.get("n-100"))["ID"] == "_n-100"
