"""Many guests on one node, all at once."""

from typing import Any

import pytest

from tests.conftest import RunningLab

pytestmark = pytest.mark.lab

# More than a node's socket holds probes, and than an ordinary user's nft loads rules at once; few
# enough for the one neighbour table of all namespaces, in which each is twice.
GUESTS = 400
PAD = "x" * 55  # as long as a host's name may be


def name(number: int) -> str:
    return f"g{number:06d}-{PAD}"


def test_a_crowd_that_claims_in_one_moment_is_bound(fresh_lab: Any) -> None:
    """A user brings up 400 guests at a hundredth of RFC 3927's times: nobody's probes are lost."""
    text = "\n".join(f"      - {name(number)}" for number in range(GUESTS))
    lab: RunningLab = fresh_lab(
        f"nodes:\n  n:\n    tenant: true\n    guests:\n{text}\n", time_scale=0.01
    )
    told = lab.guests()
    assert {one["state"] for one in told.values()} == {"bound"}
    assert len({one["address"] for one in told.values()}) == GUESTS
    # Each finds all the others by their names, and the metadata service by its own.
    hosts = lab.exec(name(3), "cat", "/etc/hosts").stdout
    assert len(hosts) > GUESTS * 63
    last = lab.exec(name(3), "getent", "ahostsv4", name(GUESTS - 1)).stdout
    assert last.startswith("198.18.")
    called = lab.exec(name(3), "getent", "ahostsv4", "metadata.google.internal").stdout
    assert called.startswith("169.254.169.254 ")
