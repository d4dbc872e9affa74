"""The guard's text, and the bytes of its bindings: pure, and checked by nft itself where it is."""

import shutil
import struct
import subprocess

import pytest

from netemu.kernel import bindings, guard
from netemu.kernel.bindings import Binding

PORTS = [("p1", 1, "02:00:00:00:00:01"), ("p2", 2, "02:00:00:00:00:02")]


def rendered(*, same_node: bool = False, time_scale: float = 1.0, ipv6: bool = False) -> str:
    rules = guard.standard().with_ipv6() if ipv6 else guard.standard()
    return rules.render(
        bridge_mac="02:00:00:00:00:fe", ports=PORTS, same_node=same_node, time_scale=time_scale
    )


@pytest.mark.parametrize("same_node", [False, True])
def test_every_port_has_an_ingress_and_an_egress_that_drop(same_node: bool) -> None:
    text = rendered(same_node=same_node)
    for port, mark, _ in PORTS:
        for hook in ("ingress", "egress"):
            assert f'hook {hook} device "{port}" priority 0; policy drop;' in text
        assert f"meta mark set {mark}" in text
        assert f"meta mark != {mark} counter name refused_out drop" in text
    assert "@{" not in text


def test_policies_differ_in_whom_a_guest_may_reach() -> None:
    assert "jump same_node_ip_in" in rendered(same_node=True)
    assert "jump responder_only_ip_in" in rendered(same_node=False)
    assert "ether saddr @stations accept" not in rendered(same_node=False)


def test_a_quicker_lab_may_probe_more_often() -> None:
    assert f"limit rate {guard.PROBES_PER_SECOND}/second" in rendered()
    assert f"limit rate {guard.PROBES_PER_SECOND * 50}/second" in rendered(time_scale=0.02)
    assert f"limit rate {guard.PROBES_PER_SECOND}/second" in rendered(time_scale=10)


def test_a_node_without_guests_has_a_guard_too() -> None:
    text = guard.standard().render(bridge_mac="02:00:00:00:00:fe", ports=[], same_node=False)
    assert "elements" not in text


def test_a_lab_that_says_nothing_of_ipv6_has_no_rule_for_it() -> None:
    assert "ip6" not in rendered()
    assert "addressed" not in guard.standard().more(PORTS) + guard.standard().one_less(PORTS[0])


def test_ipv6_adds_rules_and_changes_none() -> None:
    rest = rendered(ipv6=True).replace("\n        ether type ip6 jump ip6_out", "", 1)
    assert rendered() in rest


def test_a_port_that_comes_later_speaks_ipv6_too_and_leaves_nothing_behind() -> None:
    rules = guard.standard().with_ipv6()
    own = '"p1" . 02:00:00:00:00:01 . fe80::ff:fe00:1'
    for text, verb in ((rules.more(PORTS[:1]), "add"), (rules.one_less(PORTS[0]), "delete")):
        assert f"{verb} element netdev guard addressed {{ {own} }}" in text
        assert f"{verb} element netdev guard answered {{ {own} . 1 }}" in text
        assert f'{verb} element netdev guard soliciting {{ "p1" . 0x020000000001 }}' in text


def test_a_key_is_name_mac_and_address_each_padded() -> None:
    key = bindings.key(Binding("p1", "02:03:04:05:06:07", "169.254.7.8"))
    assert key == b"p1" + bytes(14) + bytes([2, 3, 4, 5, 6, 7, 0, 0, 169, 254, 7, 8])


def test_a_transaction_is_begun_and_ended() -> None:
    many = [Binding(f"p{n}", "02:03:04:05:06:07", "169.254.7.8") for n in range(500)]
    data = bindings.transaction(12, many)
    kinds, offset = [], 0
    while offset < len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        kinds.append(kind)
        offset += length
    assert kinds == [0x10, 10 << 8 | 12, 0x11]
    assert offset == len(data)


@pytest.mark.skipif(not shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin"), reason="no nft")
@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("same_node", [False, True])
def test_nft_reads_it(same_node: bool, ipv6: bool) -> None:
    """Only the words: what they mean is shown in labs. An unknown device is found out later."""
    unshare = ["unshare", "--user", "--map-root-user", "--net"]
    load = "ip link add p1 type veth peer p2 && ip link add br0 type bridge && nft -c -f -"
    done = subprocess.run(
        [*unshare, "sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {load}"],
        input=rendered(same_node=same_node, ipv6=ipv6),
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no namespaces for this user: {done.stderr}")
    assert done.returncode == 0, done.stderr


def test_a_lab_on_several_machines_is_silent_without_a_lease() -> None:
    """Before anything else is looked at, in both directions; other labs know of no lease."""
    text = guard.standard().render(
        bridge_mac="02:00:00:00:00:fe", ports=PORTS, same_node=False, leased=True
    )
    for chain, what in (("from_guest", "iiftype"), ("to_guest", "oiftype")):
        first = text.split(f"chain {chain} {{")[1].strip().splitlines()[0]
        assert first.startswith(f"{what} != @lease counter name refused_")
        assert first.endswith(" drop")
    assert "lease" not in rendered()
