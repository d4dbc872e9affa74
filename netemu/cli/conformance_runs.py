"""Plays the suites of `netemu conformance` in labs: isolation, others' rules, and RFC 3927."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.terminal.output import say
from netemu.cli.progress import pieces

if TYPE_CHECKING:
    from netemu.conformance.report import Column
    from netemu.conformance.row import Result, Row
    from netemu.conformance.rows import ByLab
    from netemu.topology import Lab

# What an impaired wire delays, seconds.
_LATE = 0.001
POLICIES = ("responder-only", "same-node")
# The names of our own columns in a comparison.
OURS = {"responder-only": "ours", "same-node": "ours, same-node"}


def own_lab(policy: str, impaired: bool = False, kind: str = "any") -> "Lab":
    """A lab for rows of this kind: see `rows.ByLab`."""
    from msgspec.structs import replace

    from netemu.impairment.plan import Plan
    from netemu.impairment.terms import Terms
    from netemu.topology import DEMO, Policy, load

    lab = load(DEMO, name=f"conformance-{os.getpid()}")
    late = Plan(to=Terms(delay=_LATE), from_=Terms(delay=_LATE)) if impaired else None
    dhcp = kind == "dhcp"
    nodes = (
        replace(node, guests=tuple(replace(guest, link=late, dhcp=dhcp) for guest in node.guests))
        for node in lab.nodes
    )
    return replace(lab, policy=Policy(policy), ipv6=kind == "ipv6", nodes=tuple(nodes))


def on_labs(
    rows: "list[tuple[str, Row]]",
    policies: Sequence[str],
    time_scale: float,
    name: str | None,
    impaired: bool = False,
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play on a running lab what can be played there, or all on labs of our own."""
    from netemu.client import labs
    from netemu.conformance.labstage import LabStage, running
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.conformance.suite import play

    columns = []
    if name is not None:
        with LabStage.on(labs.the_one(name)) as stage, pieces(len(rows), "building a lab") as step:
            rows = by_lab(rows).playable(ipv6=stage.ipv6, dhcp=stage.dhcp)
            if stage.by_machine:
                rows = [(family, row) for family, row in rows if row.only_sends]
            results = play(stage, rows, lambda result: step(f"{name}: {result.row.title}"))
        return rows, [Column(str(stage.policy), {one.row.id: one for one in results})]
    with pieces(len(rows) * len(policies), "building a lab") as step:
        for policy in policies:
            results = []
            for kind, some in _with_rows(by_lab(rows)):
                with running(own_lab(policy, impaired, kind), time_scale) as stage:
                    results += play(stage, some, lambda result: step(result.row.title))
            columns.append(Column(policy, {one.row.id: one for one in results}))
    return rows, columns


def _with_rows(split: "ByLab") -> "Iterator[tuple[str, list[tuple[str, Row]]]]":
    """The kinds of lab that are needed, and the rows of each."""
    yield from ((kind, some) for kind, some in split._asdict().items() if some)


def without_protections(
    rows: "list[tuple[str, Row]]", policies: Sequence[str], time_scale: float
) -> "tuple[list[Column], bool]":
    from netemu.conformance.prove import LABS, prove
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab

    columns = []
    good = True
    with pieces(len(rows) * len(policies) * len(LABS), "building a lab") as step:

        def on_result(lab: str, result: "Result") -> None:
            step(f"without {lab}: {result.row.title}")

        for policy in policies:
            prefix = f"{policy}: " if len(policies) > 1 else ""
            told: dict[str, dict[str, Result]] = {lab: {} for lab in LABS}
            for kind, some in _with_rows(by_lab(rows)):
                lab = own_lab(policy, kind=kind)
                proof = prove(lab, some, time_scale=time_scale, on_result=on_result)
                for without, results in proof.verdicts.items():
                    told[without].update(results)
                for row in proof.unproven():
                    good = False
                    say(f"{policy}: row {row.id} was seen to fail nowhere", err=True)
                for _, row in some:
                    if row.held_by_kernel and not proof.fails(row):
                        say(f"{row.id} cannot fail here: {row.held_by_kernel}", err=True)
            columns += [Column(f"{prefix}no {without}", told[without]) for without in LABS]
    return columns, good


def beside_others(
    rows: "list[tuple[str, Row]]", against: str, time_scale: float
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play the rows that rules decide: on ours under both policies, and on the chosen baselines."""
    from netemu.conformance.baselines import RIVALS, compare, decided_by_rules
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.errors import BadInput

    names = [rival.name for rival in RIVALS]
    if against != "all" and against not in names:
        raise BadInput(
            f"--against: no rule set is called {against}; there are {', '.join([*names, 'all'])}"
        )
    chosen = [rival for rival in RIVALS if against in ("all", rival.name)]
    rows = [one for one in by_lab(rows).any if decided_by_rules(*one)]
    policies = [one for one in POLICIES if one in {str(rival.policy) for rival in chosen}]
    columns = [
        Column(OURS[column.name], column.results)
        for column in on_labs(rows, policies, time_scale, None)[1]
    ]
    with pieces(len(rows) * len(chosen), "building a lab") as step:
        for rival in chosen:
            lab = own_lab(str(rival.policy))

            def on_result(result: "Result", name: str = rival.name) -> None:
                step(f"{name}: {result.row.title}")

            results = compare(lab, rival, rows, time_scale=time_scale, on_result=on_result)
            columns.append(Column(rival.name, results))
    for rival in chosen:
        judged = f"judged as {rival.policy}"
        say(f"{rival.name}: {rival.title}, {judged}; {rival.aim}. From:", err=True)
        for source in rival.sources:
            say(f"    {source}", err=True)
    return rows, columns


def of_claimants(scale: float, name: str | None) -> "list[Column]":
    """Try the claimants: ours, and at RFC 3927's own pace the foreign ones that are installed."""
    from netemu.client import labs
    from netemu.conformance.report import Column
    from netemu.conformance.rfc3927.claimants import FOREIGN
    from netemu.conformance.rfc3927.judge import PROFILE, judge, room_for
    from netemu.conformance.rfc3927.trial import PARTS

    foreign = [one for one in FOREIGN if not one.missing]
    for one in FOREIGN:
        if one.missing:
            say(one.missing, err=True)
    if (scale if name is None else labs.status(name)["time_scale"]) != 1:
        foreign = []  # they know RFC 3927's own pace only
    own = name is None
    if name is None:
        lab = room_for(foreign, f"conformance-{os.getpid()}")
        name = lab.name
        labs.bring_up(lab, time_scale=scale, access_log=True, profile=PROFILE, owned=True)
    try:
        with pieces(len(PARTS) * (1 + len(foreign)), "building a lab") as step:
            told = judge(name, foreign, step)
    finally:
        if own:
            labs.take_down(name)
    return [Column(claimant, results) for claimant, results in told.items()]


def on_bridges(
    rows: "list[tuple[str, Row]]", path: Path
) -> "tuple[list[tuple[str, Row]], list[Column]]":
    """Play on the user's own bridges the rows that make sense there."""
    from netemu.conformance.external import playable, stage_of
    from netemu.conformance.report import Column
    from netemu.conformance.rows import by_lab
    from netemu.conformance.suite import play

    rows = [(family, row) for family, row in by_lab(rows).any if playable(row)]
    with stage_of(path) as stage, pieces(len(rows), "building a lab") as step:
        results = play(stage, rows, lambda result: step(result.row.title))
    return rows, [Column(str(stage.policy), {one.row.id: one for one in results})]
