"""How pytest-xdist spreads the tests over its processes, and which tests are pure.

A unit is what stays in one process: the tests of one module for one person or one policy, which
share labs, or one part of a long test that is parametrized by `part0`, `part1`, …. Units marked
`long` begin first, so that nothing long is left for the end. Those of one person follow each other,
so that each process brings up the shared lab once for each person.
"""

import re
from typing import Any, Final

import pytest

_PROCESSES: Final = {"person", "node", "full_node", "running"}
"""Fixtures that start processes: a test that asks for one is not pure."""

_IMPURE: Final = ("lab", "root", "processes")
"""Marks of tests that are not pure."""

_VARIANTS: Final = ("root", "user", "responder-only", "same-node")
"""Persons and policies, as test IDs have them. Root's tests begin before the user's."""

_VARIANT: Final = re.compile(rf"[\[-]({'|'.join(_VARIANTS)}|part\d+)(?=[-\]])")


def is_pure(item: pytest.Item) -> bool:
    """Whether the test starts no process and needs no privilege."""
    marked = any(item.get_closest_marker(name) for name in _IMPURE)
    return not marked and _PROCESSES.isdisjoint(getattr(item, "fixturenames", ()))


def unit_of(nodeid: str) -> tuple[str, ...]:
    """The unit that a test belongs to: its module, and the person, policy or part."""
    return nodeid.partition("::")[0], *_VARIANT.findall(nodeid)


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which their units are to begin."""
    long = {unit_of(item.nodeid) for item in items if item.get_closest_marker("long")}

    def place(item: pytest.Item) -> tuple[bool, int]:
        unit = unit_of(item.nodeid)
        variants = (_VARIANTS.index(one) for one in unit if one in _VARIANTS)
        return unit not in long, next(variants, len(_VARIANTS))

    return sorted(items, key=place)


def scheduler(config: pytest.Config, log: Any) -> Any:
    """What hands out the units to processes, in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return str(unit_of(nodeid))

    config.option.loadscopereorder = False
    return ByUnit(config, log)
