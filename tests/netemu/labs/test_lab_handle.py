"""`netemu.Lab`, as a program uses it; as root and as an ordinary user."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import netemu
from netemu.errors import BadInput
from tests.conftest import Person

pytestmark = pytest.mark.lab

START = """
import json, os, signal, subprocess, sys, time
import netemu
from netemu.errors import BadInput, MachineCannot, NetemuError, NotSo
def new(source=None, **how):
    return netemu.Lab(source, **{"time_scale": 0.02, **how})
def raised(call, kind):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")
"""
ONE = 'ONE = {"nodes": {"node1": {"guests": ["web1"]}}}\n'


def start(person: Person, script: str) -> "subprocess.Popen[str]":
    return person.start_python("-W", "error", "-c", START + ONE + script)


def run(person: Person, script: str) -> list[str]:
    """Run a script as this person; the lines that it printed."""
    with start(person, script) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err == ""
    return out.splitlines()


def labs_of(person: Person) -> set[str]:
    return {one["name"] for one in json.loads(person.netemu("list", "--json").stdout)}


def soon(true: Callable[[], bool], patience: float = 60.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return true()


def processes(mark: str) -> list[int]:
    """The machine's processes whose command line has `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            # Not those that only carry the word on: the helper, and this test's own script.
            if mark.encode() in line.split(b"\0") and b"python" not in line:
                found.append(int(entry.name))
    return found


def test_a_program_asks_and_commands_a_lab(person: Person) -> None:
    """A user's program does in one block what the command line does in many commands."""
    script = """
with new() as lab:
    assert lab.guests == ["web1", "web2", "web3", "db1", "db2", "db3"]
    assert lab.nodes == ["node1", "node2"]
    assert lab.status()["name"] == lab.name
    assert lab.address("db1").startswith("169.254.")
    assert json.loads(lab.get("web2"))["ID"] == "_web2"
    event = lab.schedule(["web1", "db1"], "Reboot", notice=240, duration=60, impact=False)
    assert lab.until(lambda: "Reboot" in lab.get("db1"))
    assert [one.id for one in lab.events()] == [event.id]
    lab.advance(240)
    lab.until(lambda: lab.event(event.id).status == "Started")
    assert lab.complete(event.id).status == "Completed"
    assert lab.events() == [] and len(lab.events(history=True)) == 1
    other = lab.schedule("web2", "freeze", impact=False)
    assert lab.approve(other.id).status == "Started"
    third = lab.schedule("web3", "freeze", impact=False)
    assert lab.cancel(third.id).status == "Cancelled"
    fourth = lab.schedule("web3", "preempt", impact=False)
    assert lab.start(fourth.id).status == "Started"
    assert lab.set("web1", {"tags.team": "a"}, vm_size="Standard_F2") == {
        "tags.team": "a", "vm_size": "Standard_F2"}
    asked = lab.request("web1", "GET", "/metadata/instance/compute/vmSize?api-version=2020-09-01"
                        "&format=text", headers={"Metadata": "true"})
    assert (asked.status, asked.text) == (200, "Standard_F2")
    token = lab.request("web1", "PUT", "/latest/api/token",
                        headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    assert token.status == 200 and token.text
    before = lab.address("web1")
    lab.reboot("web1")
    lab.until(lambda: lab.address("web1") == before)
    assert "is up" in lab.log()
    assert "no such guest" in raised(lambda: lab.schedule("web9", "reboot"), BadInput)
    assert "freeze" in raised(lambda: lab.schedule("web1", "explode"), BadInput)
    assert "404" in raised(lambda: lab.get("web1", "/nothing/here"), NotSo)
    assert "no answer" in raised(lambda: lab.get("web1", "http://169.254.169.254:81/"), NotSo)
    assert "no such event" in raised(lambda: lab.event("nonsense"), NotSo)
    assert "last was 0" in raised(lambda: lab.until(lambda: 0, timeout=0.1), NotSo)
    assert "web9" in raised(lambda: lab.get("web9"), BadInput)
    name = lab.name
assert not lab.is_up
assert "no log" in raised(lab.log, NotSo)
lab.down()
print(name)
"""
    (name,) = run(person, script)
    assert name not in labs_of(person)


def test_an_event_has_its_effect_or_is_a_notice_alone(person: Person) -> None:
    """A program reboots and redeploys a guest for real, and gives notices that do nothing."""
    script = """
TWO = {"nodes": {"node1": {"guests": ["web1", "web2"]}, "node2": {"guests": ["db1"]}}}
def home(guest):
    return next((node["name"], one) for node in lab.status()["nodes"] for one in node["guests"]
                if one["name"] == guest)
def back(guest):
    return lambda: home(guest)[1]["state"] == "bound" and home(guest)[1]["power"] == "running"
with new(TWO) as lab:
    before = home("web1")[1]
    asked = lab.popen("web1", ["sleep", "60"])
    for kind in ("reboot", "freeze", "redeploy", "preempt"):
        told = lab.schedule("web1", kind, notice=0, impact=False)
        assert told.notice_only
        lab.until(lambda: kind.capitalize() in lab.get("web1"))
        time.sleep(0.3)
        assert (asked.poll(), home("web1")) == (None, ("node1", before))
        assert lab.event(told.id).status == "Started"  # nobody carries it out, so it lasts
        assert lab.complete(told.id).status == "Completed"
    planned = lab.schedule("web1", "reboot", notice=0)
    assert asked.wait(60) == -signal.SIGKILL
    lab.until(back("web1"))
    assert home("web1") == ("node1", before)
    assert json.loads(lab.get("web1"))["MaintenanceEvent"]["EventType"] == "Reboot"
    lab.until(lambda: lab.advance(61) and lab.event(planned.id).status == "Completed")
    neighbour = lab.popen("web2", ["sleep", "60"])
    moved = lab.schedule("web1", "redeploy", notice=0, duration=1)
    lab.until(lambda: home("web1")[0] == "node2")
    lab.until(back("web1"))
    assert home("web1") == ("node2", before)
    assert json.loads(lab.get("web1"))["ID"] == "_web1"
    assert lab.run("web1", ["hostname"]).stdout == "web1\\n"
    lab.until(lambda: lab.event(moved.id).status == "Completed")
    lab.schedule("web1", "terminate", notice=0)
    lab.until(lambda: home("web1")[1]["power"] == "gone")
    assert "web1 is gone" in raised(lambda: lab.get("web1"), NotSo)
    assert "web1 is gone" in raised(lambda: lab.reboot("web1"), NotSo)
    assert neighbour.poll() is None
"""
    run(person, script)


def test_commands_in_a_guest_are_like_any_others(person: Person) -> None:
    """A user's program runs commands in guests as it would with subprocess."""
    script = """
with new(ONE) as lab:
    assert lab.run("web1", ["hostname"]).stdout == "web1\\n"
    assert lab.run("node1", ["hostname"]).stdout.strip()
    assert lab.run("web1", ["cat"], input="so it is").stdout == "so it is"
    assert lab.run("web1", ["pwd"]).stdout == os.getcwd() + "\\n"
    assert lab.run("web1", ["env"], env={"A": "b"}).stdout == "A=b\\n"
    failed = lab.run("web1", ["sh", "-c", "echo why >&2; exit 7"], check=False)
    assert (failed.returncode, failed.stderr) == (7, "why\\n")
    assert "ended with 7: why" in raised(lambda: lab.run("web1", failed.args), NotSo)
    raised(lambda: lab.run("web1", ["false"]), subprocess.CalledProcessError)
    # (126 where a directory of PATH cannot be searched)
    assert lab.run("web1", ["no-such-program"], check=False).returncode in (126, 127)
    assert "list of words" in raised(lambda: lab.run("web1", "true"), BadInput)
    assert "within 0.5 s" in raised(lambda: lab.run("web1", ["sleep", "60"], timeout=0.5), NotSo)
    raised(lambda: lab.run("web1", ["sleep", "60"], timeout=0.1), subprocess.TimeoutExpired)
    quick = lab.popen("web1", ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo on; "
                      "while :; do sleep 0.05; done"], stdout=subprocess.PIPE, text=True)
    assert quick.stdout.readline() == "on\\n"
    quick.terminate()
    assert (quick.stdout.read(), quick.wait(60)) == ("bye\\n", 3)
    slow = lab.popen("web1", ["sleep", "60"])
    slow.terminate()
    assert slow.wait(60) == -signal.SIGTERM
    hard = lab.popen("web1", ["sleep", "71.6"])
    lab.until(lambda: lab.run("web1", ["pgrep", "-f", "^sleep 71.6"], check=False).stdout)
    hard.kill()
    assert hard.wait(60) == -signal.SIGKILL
    lab.until(lambda: not lab.run("web1", ["pgrep", "-f", "^sleep 71.6"], check=False).stdout)
    left = lab.popen("web1", ["sleep", "60"], stdin=subprocess.PIPE)
assert left.poll() == -signal.SIGKILL
"""
    run(person, script)


def test_a_lab_is_as_its_source_says(person: Person) -> None:
    """A user's program gives a lab as a file, as its text or as a mapping."""
    script = """
import pathlib, tempfile
text = "nodes: {n: {guests: [a]}}"
with tempfile.TemporaryDirectory() as place:
    path = pathlib.Path(place, "lab.yaml")
    path.write_text(text)
    for source in (path, str(path), text, {"nodes": {"n": {"guests": ["a"]}}}):
        assert new(source).guests == ["a"]
with new(text, name="own-name") as lab:
    assert lab.name == "own-name"
    assert "runs already" in raised(lambda: new(text, name="own-name").up(), NotSo)
    assert "is up already" in raised(lab.up, NotSo)
    assert json.loads(lab.get("a"))["ID"] == "_a"
with new(ONE) as one, new(ONE) as other:
    assert one.name != other.name
"""
    run(person, script)
    assert "own-name" not in labs_of(person)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/no/such/lab.yaml", "cannot be read"),
        ("nodes: {n: {gests: 1}}", "gests"),
        ({"nodes": {"n": {"guests": 0.5}}}, "nodes.n.guests"),
        ("nodes: {n: {guests: [{name: a, properties: {nonsense: x}}]}}", "nonsense"),
    ],
)
def test_what_is_wrong_with_a_lab_is_said_before_it_is_built(source: object, words: str) -> None:
    """A user whose lab file is wrong reads what is wrong with it, as on the command line."""
    with pytest.raises(BadInput, match=words):
        netemu.Lab(source)  # type: ignore[arg-type]


def test_a_lab_goes_with_an_exception_and_with_ctrl_c(person: Person) -> None:
    """A user whose program fails, or who interrupts it, has no lab left."""
    script = """
try:
    with new(ONE):
        raise ValueError("on purpose")
except ValueError:
    pass
try:
    with new(ONE):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
except KeyboardInterrupt:
    pass
import warnings  # the interrupt may fall between a fork and its being noted
warnings.simplefilter("ignore", ResourceWarning)
signal.setitimer(signal.ITIMER_REAL, 0.3)
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
try:
    new(ONE, time_scale=1.0).up()
except KeyboardInterrupt:
    print("interrupted")
"""
    before = labs_of(person)
    assert run(person, script) == ["interrupted"]
    assert labs_of(person) == before


def test_a_killed_program_leaves_no_lab(person: Person) -> None:
    """A user's program is killed with -9: its lab goes down, and what ran in it ends."""
    before = labs_of(person)
    mark = f"8125.{os.getpid()}"  # seconds, and nobody else's
    script = f"""
lab = new(ONE).up()
lab.popen("web1", ["sleep", "{mark}"])
print(lab.name, flush=True)
time.sleep(600)
"""
    with start(person, script) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name in labs_of(person)
        assert soon(lambda: bool(processes(mark)))
        process.send_signal(signal.SIGKILL)
    assert soon(lambda: labs_of(person) == before)
    assert soon(lambda: not processes(mark))


def test_forks_leave_the_lab_alone_and_a_kept_one_stays(person: Person) -> None:
    """A user's program forks, or keeps its lab: the lab ends with neither."""
    script = """
with new(ONE) as lab:
    child = os.fork()
    if child == 0:
        lab.down()
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(lab.get("web1"))["ID"] == "_web1"
lab = new(ONE).up()
lab.keep()
lab.down()
print(lab.name)
"""
    (kept,) = run(person, script)
    time.sleep(0.5)
    assert kept in labs_of(person)
    person.netemu("down", kept)


def test_netemu_itself_imports_next_to_nothing() -> None:
    """A user's program that imports netemu and builds no lab does not wait for it."""
    script = (
        "import sys, netemu; print(*sorted(m for m in sys.modules if m.startswith('netemu'))); "
        "assert not {'msgspec', 'yaml', 'click', 'asyncio'} & set(sys.modules); netemu.Lab; "
        "assert 'netemu.client.api' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "netemu\n", done.stderr
    with pytest.raises(AttributeError, match="Lub"):
        _ = netemu.Lub


def test_a_program_attaches_to_a_lab_that_runs_and_leaves_it(person: Person) -> None:
    """A program works on a lab of `netemu up`, fails a node of it, and the lab stays up after it.

    The same program, on asyncio, plans and takes back an event, and reads that from the stream.
    """
    person.netemu("up", "--name", "stays", "--time-scale", "0.02")
    try:
        script = """
import asyncio
async def plan():
    async with netemu.AsyncMaintenance("stays") as plan:
        event = await plan.schedule("web1", "freeze", notice="1h")
        assert [one.id for one in await plan.events()] == [event.id]
        assert raised(lambda: netemu.Lab.attach("stays").schedule("w9", "freeze"), BadInput)
        try:
            await plan.cancel("nonsense")
        except netemu.NotSo as error:
            assert "no such event" in str(error)
        assert (await plan.cancel(event.id)).status == "Cancelled"
        async for one in plan.happening():
            if one["what"] == "event" and one["status"] == "Cancelled":
                return one["id"] == event.id
raised(lambda: netemu.Lab.attach("no-such-lab"), NotSo)
with netemu.Lab.attach("stays") as lab:
    print(lab.guests, lab.nodes)
    print(lab.run("web1", ["echo", "hello"]).stdout, end="")
    print(asyncio.run(plan()))
    lab.fail_node("node2")
    print(next(one["state"] for one in lab.status()["nodes"] if one["name"] == "node2"))
    raised(lambda: lab.fail_node("n9"), BadInput)
    lab.restore_node("node2")
"""
        lines = run(person, script)
        assert lines[0].startswith("['web1', 'web2', 'web3', 'db1'")
        assert lines[1:] == ["hello", "True", "failed"]
        assert "stays" in labs_of(person)
    finally:
        person.netemu("down", "stays")
