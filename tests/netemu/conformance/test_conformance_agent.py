"""An agent is judged by what its guests' journals and the responders' logs say."""

import json
import sys
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from netemu.client import labs
from netemu.conformance.agent import judge as j
from netemu.conformance.agent import own, reporting, spec
from netemu.conformance.agent.play import Outcome, shape_of
from netemu.conformance.agent.records import Happened, Mark, Moment, Record, Request
from netemu.conformance.agent.rows import ROWS
from netemu.conformance.agent.story import Story
from netemu.conformance.agent.watch import Watch
from netemu.errors import BadInput
from netemu.topology import parse
from tests.conftest import Person

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"


def record(*marks: tuple[float, str], notice: float = 900.0, **more: Any) -> Record:
    """A play of 60 s, whose event is told at second 10, for guest a, which polls each second."""
    event = Happened(
        "e", ("a",), 10.0, 10.0 + notice, more.get("started"), more.get("ended"),
        more.get("approved"), more.get("by"), more.get("told", ()),
    )  # fmt: skip
    asked = [Request("a", float(at), "GET", EVENTS, 200) for at in more.get("asked", range(60))]
    return Record(
        poll=1.0,
        begun=0.0,
        closed=60.0,
        marks=[Mark("a", at, *what.split(" ", 1)) for at, what in ((0.0, "started"), *marks)],
        requests=asked,
        events={"e": event},
        moments=[Moment("begin", 0.0), *(Moment(*one) for one in more.get("moments", ()))],
    )


def test_a_row_begins_once_the_agent_has_asked_and_not_only_the_lab(tmp_path: Path) -> None:
    """The lab makes sure that each guest is answered, before any agent has started."""
    agent = spec.made({"agent": {"run": "x"}, "drained": "mark", "poll": 1.0}, "x", tmp_path)
    watch, nothing = Watch("lab", tmp_path, ["a01a"]), cast(Any, None)
    story = Story("lab", nothing, watch, agent, tmp_path, "A01")
    watch.requests["a01a"].append(Request("a01a", 1.0, "GET", EVENTS, 200))
    assert story._polls("a01a") == []
    watch.marks["a01a"].append(Mark("a01a", 2.0, "started", ""))
    assert story._polls("a01a") == []
    watch.requests["a01a"].append(Request("a01a", 3.0, "GET", EVENTS, 200))
    assert story._polls("a01a") == [3.0]


@pytest.mark.parametrize(
    ("marks", "notice", "verdict"),
    [
        ([(16.9, "drained")], 900.0, None),
        ([(17.5, "drained")], 900.0, j.LATE),  # two polls and 5 s
        ([(39.0, "drained")], 30.0, None),  # a short notice: until the effect
        ([(40.5, "drained")], 30.0, j.LATE),
        ([(16.0, "drained")], 0.0, None),  # no notice at all: it cannot be before the effect
        ([(9.0, "drained")], 900.0, j.NEVER),  # of before, for something else
        ([], 900.0, j.NEVER),
        ([(12.0, "ended 1")], 900.0, j.CRASHED),
        ([(12.0, "ended 1"), (13.0, "started"), (14.0, "drained")], 900.0, None),
        ([(12.0, "ended 0")], 900.0, j.NEVER),
    ],
)
def test_an_agent_drains_in_time_or_not(
    marks: list[tuple[float, str]], notice: float, verdict: str | None
) -> None:
    assert j.drains("a", "e")(record(*marks, notice=notice)).verdict == verdict


def test_after_a_silence_the_time_counts_from_its_end() -> None:
    seen = record((30.0, "drained"), moments=[("well", 25.0)])
    assert j.drains("a", "e")(seen).verdict == j.LATE
    assert j.drains("a", "e", after="well")(seen).verdict is None


def test_a_watcher_that_lives_and_polls_no_more_is_dead_and_not_only_slow() -> None:
    """The most valuable verdict: the process is there, and everything looks well."""
    assert j.drains("a", "e")(record(asked=range(20))).verdict == j.DEAD
    quiet = record(asked=range(20), moments=[("well", 30.0)])
    assert j.polls_on("a", "well")(quiet).verdict == j.DEAD
    assert j.polls_on("a", "well")(record(moments=[("well", 30.0)])).verdict is None
    assert j.asks_at_all("a")(record(asked=())).verdict == j.DEAD
    assert j.asks_at_all("a")(record((1.0, "ended 127"), asked=())).verdict == j.CRASHED
    killed = record((12.0, "killed"), asked=range(12))
    assert j.drains("a", "e")(killed).verdict == j.NEVER


def test_approving_is_wrong_only_while_a_guest_of_the_event_serves() -> None:
    """It is never demanded, and a neighbour's event may be approved when all of it is drained."""
    late = j.approves_late("e")
    assert late(record((15.0, "drained"), approved=14.0, by="a")).verdict == j.TOO_EARLY
    assert late(record((13.0, "drained"), approved=14.0, by="a")).verdict is None
    assert late(record((13.0, "drained"), approved=14.0, by="b")).verdict is None
    back = record((13.0, "drained"), (13.5, "returned"), approved=14.0, by="a")
    assert late(back).verdict == j.TOO_EARLY
    assert late(record()).verdict is None
    assert late(record(approved=14.0)).verdict is None  # the controller's
    assert j.out_at("a", "e")(record(started=14.0)).verdict == j.TOO_EARLY


@pytest.mark.parametrize(
    ("marks", "verdict"),
    [
        ([(12.0, "drained"), (31.0, "returned")], None),
        ([(12.0, "drained")], j.NOT_BACK),
        ([(12.0, "drained"), (20.0, "returned")], j.BACK_TOO_EARLY),
        ([(12.0, "drained"), (20.0, "returned"), (21.0, "drained"), (31.0, "returned")], None),
    ],
)
def test_an_agent_comes_back_after_the_event_and_not_before(
    marks: list[tuple[float, str]], verdict: str | None
) -> None:
    seen = record(*marks, moments=[("the end of e", 30.0)])
    assert j.returns("a", "the end of e")(seen).verdict == verdict


def test_other_demands() -> None:
    assert j.stays("a")(record((30.0, "drained"))).verdict == j.WRONGLY
    assert j.stays("a")(record()).verdict is None
    assert j.seldom("a")(record()).verdict is None
    often = record(asked=[number / 10 for number in range(600)])
    assert j.seldom("a")(often).verdict == j.TOO_OFTEN
    out = record((12.0, "drained"), (20.0, "returned"), moments=[("two", 30.0)])
    assert j.stays_out("a", "two")(out).verdict == j.BACK_TOO_EARLY
    both = record((12.0, "drained"))
    both.marks.append(Mark("b", 13.0, "drained"))
    assert j.one_serves("a", "b")(both).verdict == j.ALL_OUT
    both.marks.append(Mark("a", 12.5, "returned"))
    assert j.one_serves("a", "b")(both).verdict is None


def test_the_first_demand_that_fails_is_the_verdict_and_crashes_are_told() -> None:
    seen = record((5.0, "ended 3"), (6.0, "started"))
    verdict, told = j.judge(seen, (j.stays("a"), j.drains("a", "e")), j.IN_TIME)
    assert verdict == j.NEVER
    assert told[-1] == "a: the agent ended with 3, at +5.0 s"
    assert j.judge(seen, (j.stays("a"),), j.LEFT_ALONE)[0] == j.LEFT_ALONE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"drained": "none"}, "drained: is needed"),
        ({"drained": "smoke"}, "'smoke' is none of exit, file PATH"),
        ({"drained": "file"}, "write it as 'file PATH'"),
        ({"drained": "exit now"}, "write it as 'exit'"),
        ({"drained": "log ("}, "not a regular expression"),
        ({"drained": "call /bin/x"}, "without a directory"),
        ({"returned": "exit"}, "cannot say that it is back"),
        ({"poll": "2h"}, "at most 60 s"),
        ({"poll": "often"}, "not a duration"),
        ({"handles": ["sleep"]}, "handles"),
        ({"agent": {"run": ""}}, "agent.run: is empty"),
        ({"agents": {}}, "agents"),
    ],
)
def test_a_bad_agent_file_is_refused_with_what_would_be_right(
    change: dict[str, Any], told: str
) -> None:
    value = {"agent": {"run": "x"}, "drained": "mark", **change}
    with pytest.raises(BadInput) as refused:
        spec.made(value, "AGENT.yaml", Path("/"))
    assert told in str(refused.value)
    assert str(refused.value).startswith("AGENT.yaml: ")


def test_what_an_agent_does_not_do_is_not_held_against_it() -> None:
    """Rows about other clouds, other kinds and coming back are left out, each with its reason."""
    by_id = {row.id: row for row in ROWS}
    value = {"agent": {"run": "x"}, "drained": "exit", "handles": ["reboot"]}
    agent = spec.made(value, "x", Path("/"))
    assert by_id["A01"].not_played(agent) == ""
    assert by_id["A01"].demands_of(agent) == by_id["A01"].demands
    assert "freeze" in by_id["A04"].not_played(agent)
    assert "coming back" in by_id["A17"].not_played(agent)
    assert "ec2" in by_id["E01"].not_played(agent)
    assert "one member" in by_id["A12"].not_played(own.drain_agent())


def test_rows_are_at_least_forty_and_their_labs_can_be() -> None:
    assert len(ROWS) >= 40
    assert len({row.id for row in ROWS}) == len(ROWS)
    for cloud in ("azure", "ec2", "gce"):
        agent = own.of("reference", cloud)
        assert {own.of(name, cloud).run.cloud for name in own.BAD} == {cloud}
        of_cloud = [row for row in ROWS if row.cloud == cloud]
        for lab in {row.lab for row in of_cloud}:
            rows = [row for row in of_cloud if row.lab == lab]
            shape = shape_of(agent, rows, lab, Path("/tmp"))
            made = parse(json.dumps(shape), source="shape")  # JSON is YAML
            assert len(made.guests) == sum(len(row.members) for row in rows)


def test_a_watch_reads_whole_lines_of_the_log_and_the_journals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The responders' lines are as the log has them; what a guest's root scribbles is ignored."""
    log, journal = tmp_path / "log", tmp_path / "a.journal"
    monkeypatch.setattr(labs, "log_file", lambda _: log)
    watch = Watch("lab", tmp_path, ["a", "b"])
    log.write_text(
        "2026-11-27 16:48:29,758 responder INFO access caller=1 guest=a status=200 GET /x y\n"
        "2026-11-27 16:48:29,770 INFO lab is up\n"
        "2026-11-27 16:48:30,000 responder INFO access caller=1 gue"
    )
    journal.write_text('{"at": 1.5, "what": "drained", "text": ""}\nscribble\n[]\n{"at": 2')
    watch.look()
    (seen,) = watch.requests["a"]
    assert (seen.method, seen.target, seen.status, round(seen.at % 1, 3)) == (
        "GET",
        "/x y",
        200,
        0.758,
    )
    assert watch.marks["a"] == [Mark("a", 1.5, "drained")]
    with log.open("a") as more:
        more.write("st=a status=404 GET /z\n")
    with journal.open("a") as more:
        more.write(', "what": "returned", "text": "t"}\n')
    watch.look()
    watch.close()
    assert [one.status for one in watch.requests["a"]] == [200, 404]
    assert watch.marks["a"][1:] == [Mark("a", 2.0, "returned", "t")]


def test_a_page_has_a_timeline_of_the_row() -> None:
    seen = record(
        (12.0, "drained"), (31.0, "returned"), started=14.1, ended=30.0,
        approved=14.0, by="a", told=((10.5, "a"),),
    )  # fmt: skip
    kinds = [kind for _, kind, _ in reporting.happened(seen)]
    assert kinds == ["story", "notice", "told", "drained", "approval", "effect", "over", "back"]
    page = reporting.timelines(own.drain_agent(), [Outcome(ROWS[0], j.IN_TIME, (), seen, 60.0)])
    ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert "+14.0 s approval: e: by a" in page


def test_the_command_line_refuses_what_does_not_go_together(person: Person) -> None:
    for arguments, told in (
        (("--suite", "agent", "--rows", "A99"), "not a row"),
        (("--suite", "agent", "--agent", "x"), "--drained"),
        (("--suite", "agent", "--drained", "mark"), "--agent"),
        (("--suite", "agent", "--name", "x"), "labs of its own"),
        (("--suite", "agent", "/nonexistent.yaml"), "cannot be read"),
        (("--agent", "x"), "--suite agent"),
    ):
        assert told in person.netemu("conformance", *arguments, check=2).stderr
    listed = json.loads(person.netemu("conformance", "--suite", "agent", "--list", "--json").stdout)
    assert [one["id"] for one in listed] == [row.id for row in ROWS]


@pytest.mark.lab
def test_a_good_agent_keeps_rows_that_a_bad_one_fails(person: Person, place: Path) -> None:
    """A cancelled event and a neighbour's: the good one leaves the neighbour's alone."""
    agents = Path(own.__file__).parent / "agents"
    told = {}
    for program, rows in (("reference", "A06,A09"), ("naive", "A09")):
        file = place / f"{program}.yaml"
        file.write_text(
            f"agent: {{run: [{sys.executable}, {agents / program}.py, azure]}}\n"
            "drained: mark\nreturned: mark\npoll: 1s\n"
        )
        file.chmod(0o644)
        arguments = ("--suite", "agent", "--rows", rows, "--json", str(file))
        done = person.netemu("conformance", *arguments, check=None)
        found = {one["id"]: one["observed"] for one in json.loads(done.stdout)["rows"]}
        told[program] = done.returncode, found
    assert told == {
        "reference": (0, {"A06": j.IN_TIME, "A09": j.LEFT_ALONE}),
        "naive": (1, {"A09": j.WRONGLY}),
    }
