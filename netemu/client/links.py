"""Verbs of impaired wires, to a running lab. Runs in the user's process.

Each is written once, for programs that block and for those that await: see
`netemu.client.maintenance`. The lab carries them out: `supervisor.nodes.wires`.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hostagent.verb import Verb
from netemu.client.maintenance import Call, just
from netemu.errors import BadInput
from netemu.impairment import plan, trace_file
from netemu.impairment.plan import Direction
from netemu.impairment.terms import TermError
from netemu.wire.link_questions import ClearLinks, Link, Links
from netemu.wire.link_questions import Which as Wire


def link(
    guests: str | Iterable[str],
    terms: Mapping[str, Any] | None = None,
    /,
    *,
    wire: Wire = "link-local",
    direction: Direction | None = None,
    **more: Any,
) -> Call[None]:
    """Impair the wires of guests, or of all guests of nodes, in place of what they have.

    Terms are those of a lab file's `link:`: delay="50ms", jitter="10ms", loss="5%", duplicate="1%",
    reorder="2%", corrupt="0.1%", rate="1mbit", trace=PATH, limit=1000, down=True, blackhole=True,
    seed=7, and a `schedule`. They hold per direction; with a `direction`, to the guest or from it,
    the other one stays as it is.

    With `at`, a length of time from now, they are one more change of the wire's schedule: for so
    long as `lasts` says, again `every` so often, so many `times`. Raises BadInput.
    """
    given = {**(terms or {}), **more}
    if "lasts" in given:
        given["for"] = given.pop("lasts")
    if isinstance(given.get("trace"), os.PathLike):
        given["trace"] = os.fspath(given["trace"])
    _one_of(wire, ("link-local", "tenant", "all"))
    if direction is not None:
        _one_of(direction, plan.DIRECTIONS)
    try:
        made, timed = _change(given, direction) if "at" in given else _plan(given, direction)
    except TermError as error:
        raise BadInput(f"{error.place}: {error}") from None
    traces = _loaded((made or plan.Plan(timed=(timed,) if timed else ())).traces)
    asked = Link(_listed(guests), wire, made, timed, direction, traces)
    return just(asked)


def _plan(given: dict[str, Any], direction: Direction | None) -> tuple[plan.Plan, None]:
    whole, terms = _parted(given, ("seed", "schedule"))
    return plan.read({**whole, **_one_way(terms, direction)}), None


def _change(given: dict[str, Any], direction: Direction | None) -> tuple[None, plan.Timed]:
    times, terms = _parted(given, ("at", "for", "every", "times"))
    return None, plan.timed({**times, **_one_way(terms, direction)})


def _parted(given: dict[str, Any], keys: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {key: value for key, value in given.items() if key in keys},
        {key: value for key, value in given.items() if key not in keys},
    )


def _one_way(terms: dict[str, Any], direction: Direction | None) -> dict[str, Any]:
    return terms if direction is None else {str(direction): terms}


def _loaded(traces: Iterable[str]) -> dict[str, bytes]:
    return {name: trace_file.load(Path(name)) for name in sorted(traces)}


def _listed(guests: str | Iterable[str]) -> list[str]:
    return [guests] if isinstance(guests, str) else list(guests)


def _one_of(word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise BadInput(f"{word!r}: not one of {', '.join(known)}")


def clear_links(guests: str | Iterable[str] | None = None, *, wire: Wire = "all") -> Call[None]:
    """End the impairment of the wires of guests, or of all guests of nodes; None: of all wires."""
    _one_of(wire, ("link-local", "tenant", "all"))
    targets = None if guests is None else _listed(guests)
    return just(ClearLinks(targets, wire))


def links() -> Call[list[dict[str, Any]]]:
    """The wires that are impaired: maps as `netemu link list --json` prints them."""
    return Call(Links(), msgspec.to_builtins)


class LinkVerbs:
    """The verbs, as methods. All raise NetemuError."""

    link = Verb(link)
    clear_links = Verb(clear_links)
    links = Verb(links)
