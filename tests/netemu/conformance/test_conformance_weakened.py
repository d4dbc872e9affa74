"""Weak profiles: each lacks what it says, and reaches the supervisor as it is."""

from itertools import product

import msgspec
import pytest

from netemu.conformance import weakened
from netemu.conformance.prove import LABS
from netemu.kernel import guard
from netemu.topology import DEMO, Policy, load
from netemu.wire.order import Order
from netemu.wire.profile import Profile

PORTS = [("p1", 1, "02:00:00:00:00:01"), ("p2", 2, "02:00:00:00:00:02")]
MISSING = {
    weakened.ingress: ("rules.port",),
    weakened.egress: ("rules.port", "rules.removed"),
    weakened.host: ("rules.added", "rules.node", "rules.removed"),
    weakened.marks: ("identity", "rules.node", "rules.port"),
    weakened.settings: ("ipv6_sysctls", "sysctls"),
    weakened.bridge: ("ports",),
    weakened.listener: ("ipv6_listeners", "listener"),
    weakened.resets: ("resets",),
    weakened.responder: ("responder",),
}


def parts(profile):
    told = msgspec.structs.asdict(profile)
    rules = msgspec.structs.asdict(told.pop("rules"))
    return told | {f"rules.{name}": text for name, text in rules.items()}


@pytest.mark.parametrize("weakening", MISSING, ids=lambda one: one.__name__)
def test_a_weakening_takes_away_what_it_names_and_nothing_else(weakening):
    before, after = parts(Profile()), parts(weakened.without(weakening))
    assert (
        tuple(sorted(name for name in before if before[name] != after[name])) == MISSING[weakening]
    )


@pytest.mark.parametrize("name", LABS)
def test_the_supervisor_builds_by_the_profile_that_the_suite_made(name):
    order = Order(load(DEMO), 1.0, "/run/hidden", profile=LABS[name].profile)
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


@pytest.mark.parametrize("name", LABS)
def test_weak_rules_have_no_place_that_is_not_filled_in(name):
    plain = LABS[name].profile.rules
    for policy, rules in product(Policy, (plain, plain.with_ipv6())):
        pieces = rules.pieces(
            PORTS, bridge_mac="02:00:00:00:00:fe", same_node=policy is Policy.SAME_NODE
        )
        assert "@{" not in "".join((*pieces, rules.more(PORTS), rules.one_less(PORTS[0])))


def test_a_rule_that_was_reworded_does_not_stay_by_mistake():
    reworded = msgspec.structs.replace(
        guard.standard(), port="chain in_@{port} { jump from_guest }"
    )
    with pytest.raises(AssertionError, match="goto from_guest"):
        weakened.ingress(Profile(rules=reworded))
