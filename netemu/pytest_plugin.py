"""The pytest plugin: a lab for each test that asks for one, gone when the test is over.

Thin: what it does, `netemu.Lab` does. Nothing but pytest is imported until a test asks for a lab.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from netemu.client.api import Lab
    from netemu.client.recording import Recording
    from netemu.conformance.agent.play import Outcome
    from netemu.conformance.agent.row import Row
    from netemu.conformance.agent.spec import Agent

# A tenth of RFC 3927's durations: a claim takes half a second, and timers still have their order.
TIME_SCALE: Final = 0.1
# Lines of the lab's log that a failure shows; the whole is in the test's folder.
_LOG_LINES: Final = 15
# By which a report tells of a lab that stays; reports travel between xdist's processes.
_KEPT: Final = "netemu_kept"
# How the reason begins for which a test is skipped where labs cannot run.
_CANNOT: Final = "no lab can run here: "

_failed: Final = pytest.StashKey[bool]()
_lab: Final = pytest.StashKey["Lab"]()
_logs: Final = pytest.StashKey[Path]()
_numbers = count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("netemu", "labs of emulated hosts and VMs")
    group.addoption(
        "--netemu-lab",
        metavar="FILE",
        help="Lab file for netemu_lab, where a test's marker names none (default: built in).",
    )
    group.addoption(
        "--netemu-pcap",
        action="store_true",
        help="Capture at all ports of every node, into NODE.pcapng in the log folder.",
    )
    group.addoption(
        "--netemu-keep",
        action="store_true",
        help="Leave the lab of a failed test up, and print its name.",
    )
    group.addoption(
        "--netemu-required",
        action="store_true",
        help="Fail where this machine cannot run labs (default: skip the tests that want one).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "netemu_lab(source=None, *, file=None, time_scale=0.1): which lab the test's netemu_lab "
        "is: a lab file's text or mapping, or the file, relative to the test's own; how fast.",
    )
    config.addinivalue_line(
        "markers",
        "netemu_agent(source=None, *, file=None, rows=None): the agent that is judged, what an "
        "AGENT.yaml says as a mapping, or the file, relative to the test's own; by which rows.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test that asks for `netemu_row` one for each row that is about its agent."""
    if "netemu_row" in metafunc.fixturenames:
        agent, rows = _judged(metafunc.definition)
        played = [row for row in rows if not row.not_played(agent)]
        metafunc.parametrize("netemu_row", played, ids=[row.id for row in played], indirect=True)


@pytest.fixture(scope="module")
def netemu_rows_played() -> "dict[str, dict[str, Outcome]]":
    """The outcomes of a module's agents, by the test: its rows are played side by side."""
    return {}


@pytest.fixture
def netemu_row(
    request: pytest.FixtureRequest, netemu_rows_played: "dict[str, dict[str, Outcome]]"
) -> "Outcome":
    """How the marked agent took one row: its `verdict`, whether that is `ok`, the `evidence`."""
    from netemu.conformance.agent.play import play
    from netemu.errors import MachineCannot

    test = request.node.originalname
    if test not in netemu_rows_played:
        agent, rows = _judged(request.node)
        try:
            played = play(agent, rows)
        except MachineCannot as error:
            _do_without(request, f"{_CANNOT}{error}")
        netemu_rows_played[test] = {one.row.id: one for one in played}
    return netemu_rows_played[test][request.param.id]


def _judged(node: Any) -> "tuple[Agent, Sequence[Row]]":
    """The agent and the rows of a test's marker."""
    from netemu.conformance.agent import spec
    from netemu.conformance.agent.rows import ROWS, chosen
    from netemu.errors import BadInput

    marker = node.get_closest_marker("netemu_agent")
    given = dict(marker.kwargs) if marker else {}
    sources = list(marker.args) if marker else []
    file, rows = given.pop("file", None), given.pop("rows", None)
    if given or len(sources) + (file is not None) != 1:
        raise pytest.UsageError(
            f"{node.nodeid}: netemu_row takes one agent from the marker netemu_agent: what an "
            "AGENT.yaml says, or file=; and rows="
        )
    folder = node.path.parent
    try:
        if file is not None:
            agent = spec.read((folder / file).read_text(), file, folder)
        else:
            agent = spec.made(sources[0], node.nodeid, folder)
        return agent, ROWS if rows is None else chosen(rows)
    except (BadInput, OSError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{node.nodeid}: {error}") from None


@pytest.fixture
def netemu_logs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test's log folder: lab.log; after a failure status.json; with --netemu-pcap *.pcapng."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name)[:40]
    folder = tmp_path_factory.mktemp(f"netemu-{name}")
    request.node.stash[_logs] = folder
    return folder


@pytest.fixture
def netemu_lab(request: pytest.FixtureRequest, netemu_logs: Path) -> Iterator["Lab"]:
    """A lab of the test's own (`netemu.Lab`), up; it goes down with the test."""
    from netemu.errors import MachineCannot

    source, time_scale = _wanted(request)
    recording = None
    try:
        from netemu.client.api import Lab

        lab = Lab(
            source,
            name=_name(),
            time_scale=time_scale,
            access_log=True,
            shared=_shared(request),
        )
        lab.up()
    except MachineCannot as error:
        _do_without(request, f"{_CANNOT}{error}")
    try:
        request.node.stash[_lab] = lab
        if request.config.getoption("--netemu-pcap"):
            recording = _record(lab, netemu_logs)
        yield lab
    finally:
        _leave(lab, recording, request, netemu_logs)


def _shared(request: pytest.FixtureRequest) -> list[Path]:
    """What guests may write to: the test's own folder, if it asks for one."""
    from netemu.client.guest_directories import may_be_shared

    if "tmp_path" not in request.fixturenames:
        return []
    path: Path = request.getfixturevalue("tmp_path")
    return [path] if may_be_shared(path) else []


def _do_without(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Skip the test; if labs are required, end the run: the next test would say the same."""
    if request.config.getoption("--netemu-required"):
        request.session.shouldfail = reason
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _leave(
    lab: "Lab", recording: "Recording | None", request: pytest.FixtureRequest, logs: Path
) -> None:
    """Keep what the test's folder is to have, and take the lab down."""
    from netemu.errors import NetemuError

    failed = request.node.stash.get(_failed, False)
    try:
        if recording is not None:
            recording.stop()
        if lab.is_up:
            (logs / "lab.log").write_text(lab.log())
            if failed:
                (logs / "status.json").write_text(json.dumps(lab.status(), indent=2))
    except NetemuError as error:  # the test may have ended the lab itself
        (logs / "lab.error").write_text(f"{error}\n")
    finally:
        if failed and request.config.getoption("--netemu-keep"):
            lab.keep()
        else:
            lab.down()


def _record(lab: "Lab", logs: Path) -> "Recording":
    from netemu.client.recording import Recording

    return Recording.start(lab.name, lab.nodes, logs)


def _name() -> str:
    """Names the worker and its process: no two labs meet, however many pytests run."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return f"test-{worker}-{os.getpid()}-{next(_numbers)}"


def _wanted(request: pytest.FixtureRequest) -> tuple[Any, float]:
    """The lab that the test wants, and its pace: the marker's, the option's, or the built-in."""
    marker = request.node.get_closest_marker("netemu_lab")
    given = dict(marker.kwargs) if marker else {}
    sources = list(marker.args) if marker else []
    file = given.pop("file", None)
    time_scale = given.pop("time_scale", TIME_SCALE)
    if given or len(sources) + (file is not None) > 1:
        raise pytest.UsageError(
            f"{request.node.nodeid}: netemu_lab takes one lab (its text or mapping, or file=) "
            f"and time_scale=; {', '.join(given) or 'two labs'} given"
        )
    if file is not None:
        return request.path.parent / file, time_scale
    if sources:
        return sources[0], time_scale
    option = request.config.getoption("--netemu-lab")
    return (request.config.invocation_params.dir / option if option else None), time_scale


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test with a lab failed, and show what is known of its lab."""
    report = yield
    if not report.failed or _logs not in item.stash:
        return report
    first = not item.stash.get(_failed, False)
    item.stash[_failed] = True
    if first:
        report.sections.append(("netemu", _said(item)))
        if (
            item.config.getoption("--netemu-keep")
            and report.when != "teardown"
            and _lab in item.stash
        ):
            report.user_properties.append((_KEPT, item.stash[_lab].name))
    return report


def _said(item: pytest.Item) -> str:
    from netemu.errors import NetemuError

    said = [f"log folder: {item.stash[_logs]}"]
    if _lab in item.stash:
        lab = item.stash[_lab]
        try:
            lines = lab.log().splitlines()
        except NetemuError:
            lines = []
        said += [f"lab: {lab.name}; the end of its log:", *lines[-_LOG_LINES:]]
    return "\n".join(said)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once why tests were skipped for want of a lab, and name the labs that are still up."""
    reasons = Counter(
        told.removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and _CANNOT in (told := report.longrepr[2])
    )
    for reason, tests in reasons.items():
        terminalreporter.section(f"netemu: {tests} skipped")
        terminalreporter.write_line(reason)
    kept = [
        (report.nodeid, name)
        for outcome in ("failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        for key, name in getattr(report, "user_properties", ())
        if key == _KEPT
    ]
    if not kept:
        return
    terminalreporter.section("netemu: labs that stay up")
    for test, name in kept:
        terminalreporter.write_line(f"{name}: {test}")
    terminalreporter.write_line("netemu shell --name NAME GUEST; netemu down NAME")
