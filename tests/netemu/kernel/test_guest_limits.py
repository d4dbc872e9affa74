"""The part of its user's limits that one guest has."""

import resource

from netemu.kernel import guest_limits


def test_a_guest_has_a_part_and_of_what_is_unlimited_all() -> None:
    hard = {resource.RLIMIT_NOFILE: 1000, resource.RLIMIT_NPROC: resource.RLIM_INFINITY}
    assert guest_limits.parts(hard) == {resource.RLIMIT_NOFILE: 500}


def test_limits_for_a_namespace_are_put_back() -> None:
    before = {kind: resource.getrlimit(kind) for kind in guest_limits.PART}
    with guest_limits.for_its_users():
        for kind, (_, hard) in before.items():
            part = guest_limits.parts({kind: hard}).get(kind)
            assert part is None or resource.getrlimit(kind) == (part, hard)
    assert {kind: resource.getrlimit(kind) for kind in guest_limits.PART} == before
