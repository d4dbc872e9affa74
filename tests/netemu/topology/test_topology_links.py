"""Impaired wires in a lab file: whose word counts, traces, and errors with their place."""

from pathlib import Path

import msgspec
import pytest

from netemu import topology
from netemu.errors import BadInput
from netemu.impairment.plan import Plan
from netemu.impairment.terms import Terms
from netemu.topology import Lab, schema

TEXT = """
nodes:
  n1:
    link: {delay: 20ms, loss: 1%}
    guests:
      - a
      - {name: b, link: {rate: 1mbit, from: {loss: 5%}, seed: 7}}
      - name: c
        tenant: true
        tenant_link: {delay: 1ms, schedule: [{at: 10s, for: 5s, loss: 30%}]}
      - {name: d, link: {}}
"""


def parse(text: str, directory: Path = Path("/")) -> Lab:
    return topology.parse(text, source="lab.yaml", directory=directory)


def test_a_guests_own_word_goes_before_its_nodes() -> None:
    a, b, c, d = parse(TEXT).guests
    both = Terms(delay=0.02, loss=0.01)
    assert a.link == Plan(to=both, from_=both)
    assert b.link == Plan(seed=7, to=Terms(rate=1e6), from_=Terms(rate=1e6, loss=0.05))
    assert c.tenant_link is not None
    assert c.tenant_link.at(12.0)[0] == Terms(delay=0.001, loss=0.3)
    assert d.link == Plan()
    assert a.tenant_link is None


def test_a_lab_with_impaired_wires_survives_its_way_to_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "lte.up").write_text("1\n2\n4\n")
    lab = parse("nodes: {n: {link: {trace: lte.up}, guests: [a, b]}}", tmp_path)
    assert list(lab.traces) == ["lte.up"]
    assert msgspec.json.decode(msgspec.json.encode(lab), type=Lab) == lab


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{name: a, link: {loss: 5}}", r"line 1: nodes.n.guests\[0\].link.loss: '5' has no unit"),
        ("{name: a, link: {los: 5%}}", r"link.los: unknown key; known here are blackhole"),
        ("{name: a, link: {schedule: [{at: x, loss: 1%}]}}", r"link.schedule\[0\].at: 'x' is not"),
        ("{name: a, link: 5}", "a mapping"),
        ("{name: a, tenant_link: {loss: 5%}}", "has no tenant interface"),
        ("{name: a, link: {trace: nowhere.up}}", "nowhere.up: cannot be read: No such file"),
        ("{name: a, link: {trace: bad.up}}", "bad.up: is not a trace: line 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "bad.up").write_text("x\n")
    with pytest.raises(BadInput, match=words):
        parse(f"nodes: {{n: {{guests: [{entry}]}}}}", tmp_path)


def test_what_is_wrong_with_a_nodes_wires_is_said_at_the_node() -> None:
    with pytest.raises(BadInput, match=r"nodes\.n\.link\.delay: 'x'"):
        parse("nodes: {n: {link: {delay: x}, guests: [a]}}")


def test_editors_are_told_of_links() -> None:
    text = msgspec.json.encode(schema()).decode()
    assert '"tenant_link"' in text
    assert '"gemodel"' in text
