"""The IPv6 addresses of a guest's link, held against what kernels make of a MAC."""

from netemu.linklocal import ipv6


def test_a_mac_gives_the_address_that_a_kernel_derives_from_it() -> None:
    assert ipv6.of_mac("02:00:00:00:00:01") == "fe80::ff:fe00:1"
    assert ipv6.of_mac("00:16:3e:ab:cd:ef") == "fe80::216:3eff:feab:cdef"


def test_the_services_addresses_are_asked_for_in_their_groups() -> None:
    asked = [(ipv6.group(one), ipv6.group_mac(one)) for one in ipv6.METADATA]
    assert asked == [
        ("ff02::1:fffe:a9fe", "33:33:ff:fe:a9:fe"),
        ("ff02::1:ff00:254", "33:33:ff:00:02:54"),
    ]
