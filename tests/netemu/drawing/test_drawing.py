"""Pictures of labs: what is in them, in each format, and that they scale."""

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.drawing import FORMATS, dot, mermaid, scene, svg
from netemu.drawing.scene import Scene, length

NOW = 1000.0
SVG = "{http://www.w3.org/2000/svg}"


def guest(name: str, mark: int, **more: Any) -> dict[str, Any]:
    held = {"address": f"169.254.1.{mark % 250}", "state": "bound", "mac": "", "port_mark": mark}
    return {"name": name, **held, **more}


def lab(*nodes: list[dict[str, Any]], **first: Any) -> dict[str, Any]:
    told = [{"name": f"node{place + 1}", "guests": guests} for place, guests in enumerate(nodes)]
    told[0] |= first
    return {"name": "two-racks", "policy": "responder-only", "nodes": told}


def event(kind: str, *guests: str, **more: Any) -> Any:
    usual = {"status": "Scheduled", "not_before": NOW + 240, "duration": 60.0, "started": None}
    return SimpleNamespace(type=kind, guests=guests, **{**usual, **more})


def small() -> Scene:
    status = lab(
        [guest("web1", 1), guest("web2", 2)],
        [guest("db1", 3), guest("db2", 4, address=None, state="probing")],
    )
    events = [
        event("Reboot", "web1"),
        event("Freeze", "db1", status="Started", not_before=900, started=980.0),
        event("Redeploy", "db1", not_before=NOW + 10),
    ]
    return scene(status, events, NOW)


def drawn(text: str) -> ET.Element:
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def words(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def test_a_scene_says_what_befalls_whom() -> None:
    (first, second) = small().nodes
    assert [one.mood for one in first.guests] == ["warned", "well"]
    assert [one.says for one in first.guests] == ["Reboot in 4 min", ""]
    # Of two events, the one that has started.
    assert [one.says for one in second.guests] == ["Freeze, 40 s left", "probing"]
    assert [one.mood for one in second.guests] == ["struck", "away"]
    assert small().caption == "2 nodes, 4 guests, responder-only"


def test_of_two_planned_events_the_first_is_told() -> None:
    events = [event("Reboot", "a", not_before=NOW + 900), event("Freeze", "a")]
    for order in (events, events[::-1]):
        (node,) = scene(lab([guest("a", 1)]), order, NOW).nodes
        assert node.guests[0].says == "Freeze in 4 min"


def test_power_and_failed_nodes_are_told_if_they_are_known() -> None:
    status = lab([guest("a", 1, power="frozen"), guest("b", 2, power="running")], state="failed")
    (node,) = scene(status, [event("Freeze", "a", started=NOW, duration=None)], NOW).nodes
    assert node.failed
    assert [(one.mood, one.says) for one in node.guests] == [("away", "Freeze now"), ("well", "")]
    assert "failed" in dot(Scene("l", "", (node,)))
    assert any("failed" in word for word in words(drawn(svg(Scene("l", "", (node,))))))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (900, "15 min"), (86400, "24 h"), (4e5, "5 d")],
)
def test_lengths_of_time_are_told_in_one_unit(seconds: float, said: str) -> None:
    assert length(seconds) == said


def test_the_svg_shows_every_guest_with_address_port_and_event() -> None:
    said = words(drawn(svg(small())))
    for word in ("two-racks", "node1", "node2", "web1", "db2", "169.254.1.1", "no address"):
        assert word in said
    assert {"guard  p1", "guard  p4", "Reboot in 4 min", "Freeze, 40 s left"} <= set(said)
    assert said.count("bridge br0") == said.count("host agent") == 2
    assert said.count("{}") == 1  # what web2 is told


def test_the_svg_brings_its_own_ground_and_needs_nothing_else() -> None:
    """It is legible on dark pages, and a page that embeds it loads nothing."""
    root = drawn(svg(small()))
    width, height = root.attrib["width"], root.attrib["height"]
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert (ground.attrib["width"], ground.attrib["height"]) == (width, height)
    assert ground.attrib["fill"] == "#ffffff"
    assert not re.search(r"href|url\(|<script|<style", svg(small()))


@pytest.mark.parametrize("each", [1, 4, 5, 48, 49, 250, 1000])
def test_the_svg_scales_and_everything_stays_within_it(each: int) -> None:
    guests = [[guest(f"node{n}-{g}", n * each + g) for g in range(each)] for n in range(1, 5)]
    events = [event("Reboot", *(f"node2-{g}" for g in range(0, each, 3)))]
    text = svg(scene(lab(*guests), events, NOW))
    root = drawn(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert width <= 1800
    assert height <= 2600
    corners = []
    for rect in root.iter(f"{SVG}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        assert x >= 0
        assert y >= 0
        assert x + float(rect.attrib["width"]) <= width
        assert y + float(rect.attrib["height"]) <= height
        corners.append((x, y))
    # Nothing hides anything else: no two of these begin at one place, but for the ground.
    assert len(set(corners)) == len(corners)
    for place in root.iter(f"{SVG}text"):
        assert 0 <= float(place.attrib["y"]) <= height
    everything = " ".join(root.itertext())
    for name in ("node1-0", "node4-0", f"node2-{each - 1}"):
        assert re.search(rf"\b{name}\b", everything)
    assert "Reboot in 4 min" in everything
    assert len(text) < 600 * 4 * each + 20_000


def test_dot_and_mermaid_name_and_wire_every_guest() -> None:
    text = dot(small())
    assert text.startswith('graph "two-racks" {')
    assert text.count("{") == text.count("}")
    assert '"bridge of node1" -- "web1" [label="p1"];' in text
    assert r'"web1" [label="web1\n169.254.1.1\nReboot in 4 min"' in text
    text = mermaid(small())
    assert '  subgraph n0["node1"]' in text
    assert 'b1 ---|p3| g2["<b>db1</b><br/>169.254.1.3<br/>Freeze, 40 s left"]:::struck' in text
    assert text.count("subgraph") == text.count("\n  end\n") == 2


NAMES = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)


@given(st.lists(NAMES, min_size=1, max_size=60, unique=True), NAMES)
def test_any_name_can_be_drawn(names: list[str], other: str) -> None:
    status = lab([guest(name, place) for place, name in enumerate(names)], [], name=other)
    seen = scene(status, [event("Reboot", names[0])], NOW)
    for draw in FORMATS.values():
        assert draw(seen).endswith("\n")
    drawn(svg(seen))


def test_a_lab_without_guests_or_with_an_odd_name_is_drawn() -> None:
    assert "0 guests" in svg(scene(lab([], []), [], NOW))
    odd = Scene('a<b>&"c\\', "", ())
    drawn(svg(odd))
    assert dot(odd).startswith('graph "a<b>&\\"c\\\\" {')


def test_nodes_on_other_machines_are_drawn_with_where_they_are() -> None:
    status = lab([guest("web1", 1)])
    there = {"addresses": {"web2": "169.254.1.7"}, "ports": {"web2": 2}, "guests": ["web2"]}
    status["elsewhere"] = [
        {"name": "n2", "machine": "b", "state": "there", **there},
        {
            "name": "n3",
            "machine": None,
            "state": "away",
            "guests": [],
            "addresses": {},
            "ports": {},
        },
    ]
    found = scene(status, [event("Reboot", "web2")], NOW)
    assert [one.name for one in found.nodes[1:]] == ["n2 on b", "n3 on the first machine"]
    assert found.nodes[1].guests[0][:4] == ("web2", "169.254.1.7", "p2", "warned")
    for form in FORMATS.values():
        assert "n2 on b" in form(found)
