"""Verbs of impaired wires, to a running lab. Runs in the user's process.

Each is written once, for programs that block and for those that await: see
`netemu.client.maintenance`. The lab carries them out: `supervisor.nodes.wires`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from hostagent.verb import Verb
from netemu.client.maintenance import Call
from netemu.errors import BadInput
from netemu.impairment import plan, trace_file
from netemu.impairment.terms import TermError

# Which of a guest's wires; `all` are those that it has.
Wire = Literal["link-local", "tenant", "all"]
Direction = Literal["to", "from"]


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
        read = _change(given, direction) if "at" in given else _plan(given, direction)
    except TermError as error:
        raise BadInput(f"{error.place}: {error}") from None
    targets = {"targets": _listed(guests), "wire": wire, "direction": direction}
    return Call("link", {**targets, **read}, lambda _: None)


def _plan(given: dict[str, Any], direction: Direction | None) -> dict[str, Any]:
    whole, terms = _parted(given, ("seed", "schedule"))
    made = plan.read({**whole, **_one_way(terms, direction)})
    return {"plan": msgspec.to_builtins(made), "timed": None, "traces": _loaded(made.traces)}


def _change(given: dict[str, Any], direction: Direction | None) -> dict[str, Any]:
    times, terms = _parted(given, ("at", "for", "every", "times"))
    made = plan.timed({**times, **_one_way(terms, direction)})
    traces = _loaded(plan.Plan(timed=(made,)).traces)
    return {"plan": None, "timed": msgspec.to_builtins(made), "traces": traces}


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
    """Have the wires of guests, or of all guests of nodes, be as they were; None: all there are."""
    _one_of(wire, ("link-local", "tenant", "all"))
    targets = None if guests is None else _listed(guests)
    return Call("clear_links", {"targets": targets, "wire": wire}, lambda _: None)


def links() -> Call[list[dict[str, Any]]]:
    """The wires that are impaired: maps as `netemu link list --json` prints them."""
    return Call("links", {}, _links)


def _links(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "more"} for one in answers[:-1]]


class LinkVerbs:
    """The verbs, as methods. All raise NetemuError."""

    link = Verb(link)
    clear_links = Verb(clear_links)
    links = Verb(links)
