"""The pytest plugin, as somebody uses it who tests his own software with it."""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from tests.conftest import SOURCE, Person

pytest_plugins = ("pytester",)

RunPytest = Callable[..., subprocess.CompletedProcess[str]]

# Without the plugins that take longer to import than these tests take.
LIGHT = ("-p", "no:hypothesispytest", "-p", "no:xdist")

AGENT = """
# A drain agent: sees an event, takes its guest out of service, and says that it may begin.
import json, pathlib, sys, time, urllib.request
EVENTS = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
def ask(body=None):
    question = urllib.request.Request(EVENTS, body, {"Metadata": "true"})
    return urllib.request.urlopen(question, timeout=5).read()
while not (events := json.loads(ask())["Events"]):
    time.sleep(0.1)
pathlib.Path(sys.argv[1]).write_text(events[0]["EventType"])
ask(json.dumps({"StartRequests": [{"EventId": events[0]["EventId"]}]}).encode())
"""


def example() -> str:
    """The test that the README shows, as it stands there."""
    readme = (SOURCE / "README.md").read_text()
    section = readme.split("\n## From pytest\n")[1].split("\n## ")[0]
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (shown,) = (block for block in blocks if "def test_" in block)
    return shown


@pytest.fixture
def run_pytest(person: Person, place: Path) -> RunPytest:
    """Runs pytest in `folder`, as this person, on the test files given by name."""

    def run(
        *arguments: str, passed: int = 0, failed: int = 0, **files: str
    ) -> subprocess.CompletedProcess[str]:
        for name, text in files.items():
            (place / f"{name}.py").write_text(text)
        (place / "pytest.ini").write_text(
            "[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n"
        )
        # It is nobody's worker, even if this test's pytest is one.
        outside = {
            key: value
            for key, value in person.environment.items()
            if not key.startswith("PYTEST_XDIST")
        }
        done = subprocess.run(
            [*person.prefix, sys.executable, "-B", "-m", "pytest", "--basetemp=temp", *arguments],
            cwd=place,
            env=outside,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        told = {
            what: int(number)
            for number, what in re.findall(r"(\d+) (passed|failed|error)", done.stdout[-400:])
        }
        expected = {"passed": passed, "failed": failed}
        assert told == {key: value for key, value in expected.items() if value}, (
            done.stdout + done.stderr
        )
        return done

    return run


def labs_of(person: Person) -> set[str]:
    return {one["name"] for one in json.loads(person.netemu("list", "--json").stdout)}


def test_it_costs_a_pytest_without_labs_nothing(pytester: pytest.Pytester) -> None:
    """A user of pytest who has netemu installed does not wait for it."""
    pytester.makepyfile(
        """
        import sys
        def test_nothing_of_netemu_is_there():
            heavy = {"netemu.client", "netemu.wire", "msgspec", "hostagent", "pyroute2"}
            heavy |= {"click", "yaml", "asyncio"}
            assert "netemu.pytest_plugin" in sys.modules
            assert not heavy & set(sys.modules)
        """
    )
    done = pytester.runpytest_subprocess(*LIGHT)
    done.assert_outcomes(passed=1)


def test_what_the_marker_takes_is_said(pytester: pytest.Pytester) -> None:
    """A user who misspells an option of the marker is told so, before any lab is built."""
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.netemu_lab(speed=3)
        def test_one(netemu_lab): pass
        @pytest.mark.netemu_lab("nodes: {n: {guests: 1}}", file="lab.yaml")
        def test_two(netemu_lab): pass
        @pytest.mark.netemu_lab(file="nowhere.yaml")
        def test_three(netemu_lab): pass
        @pytest.mark.netemu_lab("nodes: {n: {gests: 1}}")
        def test_four(netemu_lab): pass
        """
    )
    done = pytester.runpytest_subprocess("--strict-markers", *LIGHT)
    done.assert_outcomes(errors=4)
    done.stdout.fnmatch_lines(["*netemu_lab takes one lab*speed given"])
    done.stdout.fnmatch_lines(["*netemu_lab takes one lab*two labs given"])
    done.stdout.fnmatch_lines(["*nowhere.yaml: cannot be read*"])
    done.stdout.fnmatch_lines(["*gests*"])


def test_what_the_marker_of_an_agent_takes_is_said(pytester: pytest.Pytester) -> None:
    """A user who misspells an agent is told so when tests are collected."""
    wrong = {
        "": "takes one agent",
        "({'agent': {'run': 'x'}, 'drained': 'smoke'})": "'smoke' is none of",
        "({'agent': {'run': 'x'}, 'drained': 'mark'}, rows='A99')": "'A99' is not a row",
        "(file='nowhere.yaml')": "nowhere.yaml",
    }
    for number, marker in enumerate(wrong):
        decorated = f"@pytest.mark.netemu_agent{marker}" if marker else ""
        test = f"import pytest\n{decorated}\ndef test_one(netemu_row): pass\n"
        pytester.makepyfile(**{f"test_{number}": test})
    done = pytester.runpytest_subprocess("--strict-markers", *LIGHT)
    done.stdout.fnmatch_lines_random([f"*{told}*" for told in wrong.values()])


def test_an_agent_is_a_test_for_each_row_about_it(pytester: pytest.Pytester) -> None:
    """Rows of other clouds, and those about what the agent does not handle, are not there."""
    pytester.makepyfile(
        """
        import pytest
        AGENT = {"agent": {"run": "x"}, "drained": "mark", "handles": ["reboot"]}
        @pytest.mark.netemu_agent(AGENT, rows="A01-A04,E01")
        def test_mine(netemu_row): pass
        """
    )
    done = pytester.runpytest_subprocess("--collect-only", "-q", *LIGHT)
    done.stdout.fnmatch_lines(["*::test_mine?A01?", "*1 test collected*"])


@pytest.mark.lab
def test_the_readmes_ten_lines(run_pytest: RunPytest, place: Path) -> None:
    """A user copies ten lines from the README, and his own drain agent is tested, root or not."""
    shown = example()
    assert len(shown.strip().splitlines()) <= 10
    (place / "drain_agent.py").write_text(AGENT)
    run_pytest("test_drain.py", test_drain=shown, passed=1)


@pytest.mark.lab
def test_what_is_scheduled_really_happens_unless_it_is_a_notice_alone(
    run_pytest: RunPytest,
) -> None:
    """A user tests what his service does when it is rebooted; without impact it only is told so."""
    test = """
    import pytest
    @pytest.mark.netemu_lab("nodes: {n: {guests: [web]}}", time_scale=0.02)
    @pytest.mark.parametrize("impact", [True, False])
    def test_my_service(netemu_lab, impact):
        service = netemu_lab.popen("web", ["sh", "-c", "echo up; exec sleep 60"], stdout=-1)
        assert service.stdout.readline() == b"up\\n"
        event = netemu_lab.schedule("web", "reboot", notice=0, duration=2, impact=impact)
        if impact:
            assert service.wait(60) == -9
        netemu_lab.until(lambda: netemu_lab.event(event.id).status == "Completed")
        netemu_lab.until(lambda: netemu_lab.status()["nodes"][0]["guests"][0]["state"] == "bound")
        assert (service.poll() is None) != impact
        assert netemu_lab.get("web")
    """
    run_pytest("test_service.py", test_service=textwrap.dedent(test), passed=2)


@pytest.mark.lab
def test_the_readmes_ten_lines_fail_for_an_agent_that_does_not_drain(
    run_pytest: RunPytest, place: Path
) -> None:
    """A user whose agent approves without having drained anything is told so."""
    (place / "drain_agent.py").write_text(AGENT.replace("pathlib.Path(sys.argv[1])", "0 and 1"))
    broken = AGENT.replace('pathlib.Path(sys.argv[1]).write_text(events[0]["EventType"])', "")
    assert broken != AGENT
    (place / "drain_agent.py").write_text(broken)
    run_pytest("test_drain.py", test_drain=example(), failed=1)


@pytest.mark.lab
def test_each_test_has_a_lab_of_its_own(run_pytest: RunPytest, place: Path, person: Person) -> None:
    """A user's tests do not see what the ones before have done, and leave no lab behind."""
    before = labs_of(person)
    (place / "mine.yaml").write_text("nodes: {rack: {guests: [blade]}}")
    (place / "other.yaml").write_text("nodes: {other: {guests: [own]}}")
    text = """
import pytest
names = []
def test_one(netemu_lab):
    names.append(netemu_lab.name)
    assert netemu_lab.guests == ["blade"]
    netemu_lab.schedule("blade", "freeze", notice=60)
    assert netemu_lab.until(lambda: "Freeze" in netemu_lab.get("blade"))
def test_two(netemu_lab, netemu_logs):
    assert netemu_lab.name not in names
    assert netemu_lab.events() == []
    assert netemu_lab.status()["time_scale"] == 0.1
    assert netemu_logs.is_dir()
@pytest.mark.netemu_lab(file="other.yaml", time_scale=0.02)
def test_three(netemu_lab):
    assert netemu_lab.guests == ["own"]
    assert netemu_lab.status()["time_scale"] == 0.02
@pytest.mark.netemu_lab({"nodes": {"n": {"guests": 2}}})
def test_four(netemu_lab):
    assert netemu_lab.guests == ["n-1", "n-2"]
"""
    run_pytest("--netemu-lab", "mine.yaml", test_mine=text, passed=4)
    assert labs_of(person) == before
    logs = sorted((place / "temp").glob("netemu-*0/lab.log"))
    assert len(logs) == 4
    # The folder tells what was asked: the lab's log has each request.
    assert any("InstanceInfo" in log.read_text() for log in logs)


@pytest.mark.lab
def test_a_failure_shows_the_labs_log_and_keeps_its_status(
    run_pytest: RunPytest, place: Path, person: Person
) -> None:
    """A user whose test fails finds its lab's log, captures and state in one folder."""
    before = labs_of(person)
    text = """
def test_it(netemu_lab):
    netemu_lab.get("db1")
    assert netemu_lab.name == "another"
"""
    done = run_pytest("--netemu-pcap", test_it=text, failed=1)
    assert "log folder: " in done.stdout
    assert "lab: test-main-" in done.stdout
    (logs,) = (place / "temp").glob("netemu-test_it0")
    told = json.loads((logs / "status.json").read_text())
    assert told["state"] == "up"
    assert {path.name for path in logs.glob("*.pcap*")} == {"node1.pcapng", "node2.pcapng"}
    assert labs_of(person) == before
    with PcapNgReader(str(logs / "node2.pcapng")) as frames:
        asked = [one for one in frames if b"GET /metadata/v1/InstanceInfo" in bytes(one)]
    # At the port that the guest is wired to as it came in, and at the bridge.
    assert {one.sniffed_on for one in asked} == {"p4", "br0"}
    assert {one.direction for one in asked if one.sniffed_on == "p4"} == {1}


@pytest.mark.lab
def test_the_lab_of_a_failed_test_can_be_kept(
    run_pytest: RunPytest, place: Path, person: Person
) -> None:
    """A user looks round in the lab of the test that failed; those of the others have gone."""
    before = labs_of(person)
    text = """
def test_bad(netemu_lab):
    netemu_lab.schedule("web1", "reboot")
    raise ValueError("so it is")
def test_good(netemu_lab): pass
"""
    done = run_pytest("--netemu-keep", test_it=text, passed=1, failed=1)
    (kept,) = labs_of(person) - before
    try:
        assert re.search(rf"^{kept}: test_it.py::test_bad$", done.stdout, re.MULTILINE)
        listed = person.netemu("maintenance", "list", "--name", kept, "--json").stdout
        assert [one["type"] for one in json.loads(listed)] == ["Reboot"]
    finally:
        person.netemu("down", kept)


@pytest.mark.lab
def test_many_workers_do_not_meet(run_pytest: RunPytest, person: Person) -> None:
    """A user runs his tests on several workers at once; each has its labs, and all go."""
    before = labs_of(person)
    text = """
import os, pytest
@pytest.mark.netemu_lab(time_scale=0.02)
@pytest.mark.parametrize("turn", range(4))
def test_it(netemu_lab, turn):
    assert os.environ["PYTEST_XDIST_WORKER"] in netemu_lab.name
    netemu_lab.schedule("web1", "reboot", notice=60 + turn)
    assert len(netemu_lab.events()) == 1
    assert turn != 3
"""
    done = run_pytest("-n", "2", "--netemu-keep", test_it=text, passed=3, failed=1)
    (kept,) = labs_of(person) - before
    person.netemu("down", kept)
    assert re.search(rf"^{kept}: test_it.py::test_it\[3\]$", done.stdout, re.MULTILINE)


TWO_TESTS = """
def test_one(netemu_lab):
    pass
def test_other(netemu_lab):
    pass
"""
# A machine on which labs cannot run: they say so before anything is built.
CANNOT = """
import netemu.client.labs
from netemu.errors import MachineCannot
def refuse(*_, **__):
    raise MachineCannot("no namespaces here: sudo do-this")
netemu.client.labs.bring_up = refuse
"""


def test_where_no_lab_can_run_its_tests_are_skipped_with_one_reason(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(CANNOT)
    pytester.makepyfile(TWO_TESTS)
    for workers in ((), ("-n", "2")):
        done = pytester.runpytest_subprocess(*workers)
        done.assert_outcomes(skipped=2)
        told = [line for line in done.outlines if "sudo do-this" in line]
        assert told == ["no lab can run here: no namespaces here: sudo do-this"]


def test_where_labs_are_required_the_run_ends_with_one_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CANNOT)
    pytester.makepyfile(TWO_TESTS)
    done = pytester.runpytest_subprocess("--netemu-required", *LIGHT)
    assert done.ret != 0
    done.assert_outcomes(errors=1)
    assert "no lab can run here: no namespaces here: sudo do-this" in done.stdout.str()
