"""A lab none of whose nodes runs: what is still known is said, and what cannot be done, too."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.long]


def test_where_every_node_has_failed_nothing_ends_in_a_traceback(fresh_lab: Any) -> None:
    """A user looks at the clock, the map, the traffic and the acknowledged events, and sets."""
    lab = fresh_lab("nodes: {n1: {guests: [a]}}\n")
    event = lab.maintenance("schedule", "a", "--in", "1h", "--no-impact")["id"]
    empty = lab.netemu("exec", "a", "--", "", check=None)
    assert empty.returncode == 2
    assert "the name of the command is empty" in empty.stderr
    lab.person.netemu("node", "fail", "--name", lab.name, "n1")
    told = lab.person.netemu("maintenance", "list", "--name", lab.name, "--json").stdout
    assert event in [one["id"] for one in json.loads(told)]
    for words in (
        ("clock", "show"),
        ("graph",),
        ("status",),
        ("fault", "list"),
        ("fault", "clear"),
        ("clock", "advance", "1m"),
        ("top", "--once", "--interval", "0.1"),
        ("reboot", "a"),
        ("maintenance", "schedule", "a"),
    ):
        done = lab.person.netemu(*words, "--name", lab.name, check=None)
        assert done.returncode in (0, 1), (words, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr, words
        assert done.returncode == 0 or done.stderr.count("\n") == 1, (words, done.stderr)
