"""Reports: the forms that programs rely on, and pages that need nothing else."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scapy.layers.l2 import ARP, Ether
from scapy.utils import rdpcap

from netemu.conformance import report
from netemu.conformance.report import Column
from netemu.conformance.row import Frame, Result, Row
from netemu.conformance.rows import CATALOGUE
from netemu.topology import Policy
from tests.conftest import SOURCE

FRAME = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:01") / ARP(psrc="169.254.169.254"))


def row(number: str, title: str = "Spoof <somebody> & co") -> Row:
    return Row(
        id=number,
        title=title,
        reference="RFC 1",
        strict="dropped",
        same_node="limited",
        recipe=lambda _: [],
    )


def result(of: Row, observed: str, *, control: bool = True) -> Result:
    return Result(
        row=of,
        family="ARP",
        policy=Policy.RESPONDER_ONLY,
        expected="dropped",
        observed=observed,
        control=control,
        evidence=("seen at web2: <frame>",),
        sent=(FRAME,),
        said=(),
        frames=(Frame("web2", FRAME),),
        capture=(Frame("web2", FRAME), Frame("node1", FRAME)),
        seconds=0.25,
    )


ROWS = [("ARP", row("01")), ("ARP", row("02")), ("ARP", row("03"))]
COLUMNS = [
    Column(
        "responder-only",
        {
            "01": result(ROWS[0][1], "dropped"),
            "02": result(ROWS[1][1], "allowed"),
            "03": result(ROWS[2][1], "dropped", control=False),
        },
    )
]


def test_a_result_is_well_only_if_verdict_and_control_are() -> None:
    told = COLUMNS[0].results
    assert [told[one].ok for one in ("01", "02", "03")] == [True, False, False]
    assert [report.mark(told[one]) for one in ("01", "02", "03")] == ["ok", "wrong", "harm"]
    assert report.mark(None) == "none"


def test_json_is_one_object_for_one_column_and_a_list_for_several() -> None:
    told = json.loads(report.as_json(COLUMNS))
    assert told["policy"] == "responder-only"
    assert told["rows"][1]["id"] == "02"
    assert told["rows"][1]["ok"] is False
    keys = {"id", "title", "reference", "expected", "observed", "ok", "evidence"}
    assert all(keys <= set(one) for one in told["rows"])
    both = json.loads(report.as_json(COLUMNS * 2))
    assert [one["name"] for one in both] == ["responder-only"] * 2


def test_junit_counts_failures() -> None:
    root = ElementTree.fromstring(report.as_junit(COLUMNS).encode())
    (suite,) = root.findall("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    failed = [
        case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None
    ]
    assert failed == ["02 Spoof <somebody> & co", "03 Spoof <somebody> & co"]


def test_html_is_whole_and_shows_what_failed() -> None:
    page = report.as_html(ROWS, COLUMNS, "A <title>")
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "A &lt;title&gt;" in page
    assert "Spoof &lt;somebody&gt; &amp; co" in page
    # The failing rows' recipe, frames in hexadecimal and decoded, and where they were seen.
    assert page.count("<details>") == 2
    assert "recipe=lambda _: []" in page
    assert "seen at <b>web2</b>" in page
    assert "psrc" in page
    assert "0000" in page


def test_svg_is_well_formed_and_has_a_square_a_row() -> None:
    root = ElementTree.fromstring(report.as_svg(ROWS, COLUMNS, "Matrix & more"))
    squares = root.findall("{http://www.w3.org/2000/svg}g")
    assert len(squares) == 3
    titles = [one.findtext("{http://www.w3.org/2000/svg}title") for one in squares]
    assert titles[1] == "02 Spoof <somebody> & co: allowed"


@pytest.mark.parametrize(("everything", "files"), [(False, 6), (True, 9)])
def test_captures_are_kept_for_failing_rows_or_all(
    tmp_path: Path, everything: bool, files: int
) -> None:
    assert report.captures(tmp_path, COLUMNS, everything=everything) == files
    (seen,) = rdpcap(str(tmp_path / "responder-only-02-web2.pcap"))
    assert bytes(seen) == FRAME


def test_the_table_names_families_once(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_matrix(ROWS, COLUMNS)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4


def test_the_readmes_picture_shows_every_row_held() -> None:
    """'netemu conformance --policy both -o netemu/conformance/pictures/isolation.svg' draws it."""
    picture = (SOURCE / "netemu" / "conformance" / "pictures" / "isolation.svg").read_text()
    assert {row.id for _, row in CATALOGUE} == set(re.findall(r"<title>(\d+) ", picture))
    assert picture.count(f"({len(CATALOGUE)} of {len(CATALOGUE)})") == 2
