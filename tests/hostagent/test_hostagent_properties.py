import pytest

from hostagent.model import Guest
from hostagent.properties import (
    CLOUDS,
    KNOWN,
    MAX_PROPERTIES_BYTES,
    PER_CLOUD,
    PropertyError,
    check,
    region,
    under,
    value,
    zone,
)
from hostagent.rates import Rate

GUEST = Guest(name="web1", address="169.254.3.7")


def test_every_default_is_possible():
    for key in KNOWN:
        if key != "region":  # each cloud has its own
            check({key: value(GUEST, key)})
            assert value(GUEST, key) == value(GUEST, key)
    for key in PER_CLOUD:
        if key not in ("region", "address"):
            check({f"{cloud}.{key}": value(GUEST, key) for cloud in CLOUDS})


def test_guests_differ():
    other = Guest(name="web2")
    for key in ("vm_id", "instance_id", "numeric_id", "mac", "hostname", "reservation_id"):
        assert value(GUEST, key) != value(other, key)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("vm_sise", "did you mean vm_size"),
        ("ec2.regin", "did you mean ec2.region"),
        ("ec2.vm_size", "no property is called 'ec2.vm_size'"),
        ("tag.a", "no property"),
        ("tags.", "after tags. stands at most 128 characters"),
        ("tags.a/b", "after tags. stands"),
        ("attributes.a b", "after attributes. stands at most 128 letters"),
        ("interfaces.1.mtu", "after interfaces. stands a digit, a dot and ipv4s"),
        ("interfaces.0.mac", "or mac from 1 on"),
        ("interfaces.eth1.mac", "after interfaces. stands"),
        ("", "known are"),
    ],
)
def test_unknown_keys(key, said):
    with pytest.raises(PropertyError, match=said.replace(".", r"\.")):
        check({key: "x"})


@pytest.mark.parametrize(
    ("key", "text"),
    [("vm_id", "1"), ("mac", "02:00"), ("lifecycle", "cheap"), ("hostname", "a\nb"),
     ("tags.a", "a\r\nb"), ("ec2.zone", ""), ("vm_size", "a\n"), ("user_data", "data:;base64,="),
     ("launch_time", "2024-13-01T00:00:00Z"), ("rebalance", "2026-02-30T00:00:00Z"),
     ("interfaces.1.mac", "a/b"), ("interfaces.1.ipv4s", ""), ("interfaces.1.ipv4s", "10.0.0.1,"),
     ("interfaces.1.ipv6s", "x::1"), ("interfaces.1.subnet", "10.0.0.0"),
     ("rebalance", "10m"), ("autoscaling_state", "Pending"), ("spot_action", "reboot")],
)  # fmt: skip
def test_impossible_values(key, text):
    with pytest.raises(PropertyError, match=f"property {key}: .* is$"):
        check({key: text})


@pytest.mark.parametrize(
    ("more", "said"), [({"mac": "02:00:00:00:00:01"}, "the guest"),
                       ({"interfaces.2.mac": "02:00:00:00:00:01"}, "interfaces.1.mac")]
)  # fmt: skip
def test_no_two_interfaces_have_one_mac(more, said):
    mine = {"interfaces.1.mac": "02:00:00:00:00:01", "mac": "02:00:00:00:00:09"}
    check(mine)
    with pytest.raises(PropertyError, match=f"{said} has 02:00:00:00:00:01 already"):
        check(mine | more)


def test_the_whole_is_bounded():
    fill = {f"attributes.a{i}": "x" * 100_000 for i in range(2)}
    check(fill)
    with pytest.raises(PropertyError, match=str(MAX_PROPERTIES_BYTES)):
        check(fill | {"user_data": "ü" * 40_000})


def test_one_cloud_may_differ():
    guest = Guest(name="a", properties={"hostname": "h", "ec2.hostname": "e", "tags.b": "2",
                                        "tags.a": "1"})  # fmt: skip
    assert [value(guest, "hostname", cloud) for cloud in CLOUDS] == ["h", "e", "h"]
    assert list(under(guest, "tags.").items()) == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("properties", "zones", "regions"),
    [
        ({}, ["1", "us-east-1a", "us-central1-a"], ["westeurope", "us-east-1", "us-central1"]),
        ({"zone": "b"}, ["2", "us-east-1b", "us-central1-b"], None),
        ({"zone": "3"}, ["3", "us-east-1c", "us-central1-c"], None),
        ({"ec2.zone": "eu-west-1b"}, ["1", "eu-west-1b", "us-central1-a"],
         ["westeurope", "eu-west-1", "us-central1"]),
        ({"gce.zone": "asia-east1-c"}, ["1", "us-east-1a", "asia-east1-c"],
         ["westeurope", "us-east-1", "asia-east1"]),
    ],
)  # fmt: skip
def test_places(properties, zones, regions):
    guest = Guest(name="a", properties=properties)
    assert [zone(guest, cloud) for cloud in CLOUDS] == zones
    if regions:
        assert [region(guest, cloud) for cloud in CLOUDS] == regions


def test_rates():
    rate = Rate(2.0, 3.0, 2)
    assert [rate.allows("a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert rate.allows("b", 10.0)
    assert not rate.allows("a", 10.4)
    assert rate.allows("a", 10.5)
    assert not rate.allows("a", 5.0)  # a clock that goes back gives nothing
    assert rate.allows("c", 10.5)  # one more than it knows: all start again
    assert rate.allows("a", 10.5)
    assert all(Rate(0, 1, 1).allows("a", 0.0) for _ in range(100))
