"""The rules of the tenant network as text: what leads to other machines, if there are any."""

import re

from netemu.kernel import tenant

HERE = ("t1", "02:00:00:00:00:01", ("198.18.0.1",))
THERE = ("t2", "02:00:00:00:00:02", ("198.18.0.2", "198.18.0.3"))


def test_on_one_machine_nothing_leads_elsewhere() -> None:
    rules = "".join(tenant.pieces([HERE]))
    assert "machines" not in rules
    assert "lease" not in rules


def test_what_crosses_is_silent_without_the_lease_and_of_known_guests() -> None:
    rules = "".join(tenant.pieces([HERE], [THERE]))
    for chain, first in (("from_machines", "iiftype"), ("to_machines", "oiftype")):
        (text,) = re.findall(rf"chain {chain} {{(.*?)\n    }}", rules, re.DOTALL)
        hook, rule, *_ = text.strip().splitlines()
        assert "policy drop" in hook
        assert rule.strip().startswith(f"{first} != @lease")
    (guests,) = re.findall(r"add element netdev tenant guests { (.*) }", rules)
    assert guests.count(" . ") == 3
    (here,) = re.findall(r"add element netdev tenant here { (.*) }", rules)
    assert here == HERE[1]
    assert 'device "t1"' in rules
    assert 'device "t2"' not in rules


def test_a_machine_without_tenants_has_the_rules_for_those_who_come() -> None:
    rules = "".join(tenant.pieces([], [THERE]))
    assert "chain from_machines" in rules
    assert '"t2" . 02:00:00:00:00:02 . 198.18.0.3' in rules
    assert "here {" not in rules.replace("set here {", "")
