"""What `netemu check` and `up` say of a machine's limits, for labs of one size or another."""

import resource
from pathlib import Path

import pytest
from click.testing import CliRunner

from netemu.cli.labs import up
from netemu.client import labs, launch
from netemu.errors import MachineCannot
from netemu.wire import limits
from netemu.wire.lab_file import load, parse


def findings(guests: int, **size: int) -> dict[str, limits.Finding]:
    return {one.what: one for one in limits.limits(limits.Size(guests, **size))}


def test_a_limit_is_enough_or_it_is_said_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a hard limit of 1,000 files is told what 500 guests would take."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    monkeypatch.setattr(limits, "_may_raise", lambda: False)
    assert findings(274)["open files"].ok
    short = findings(275)["open files"]
    assert not short.ok
    assert short.seen == "1000, enough for 274 guests"
    assert "ulimit -Hn 1002" in short.remedy


def test_the_common_limit_is_enough_for_ten_thousand_guests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user with a hard limit of 20,000 files may have 10,000 guests, and half as many more."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_000, 20_000))
    monkeypatch.setattr(limits, "_may_raise", lambda: False)
    assert findings(10_000)["open files"].ok
    assert not findings(20_000)["open files"].ok


def test_who_may_raise_a_limit_need_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own labs raise the limit themselves."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    monkeypatch.setattr(limits, "_may_raise", lambda: True)
    assert findings(500)["open files"].ok


def test_no_limit_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a limit has room for every lab."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert findings(60_000)["open files"].ok


def test_the_kernels_own_limits_are_looked_at() -> None:
    """Nobody's machine has a million namespaces to give."""
    found = findings(10**6)
    assert not found["user namespaces"].ok
    assert "sysctl -w user.max_user_namespaces=2000000" in found["user namespaces"].remedy


def test_guests_that_speak_ipv6_have_another_table() -> None:
    assert "IPv6 neighbour table" not in findings(1_000_000)
    path = Path("/proc/sys/net/ipv6/neigh/default/gc_thresh3")
    table = findings(1_000_000, by_ipv6=1_000_000).get("IPv6 neighbour table")
    assert (table is not None) == path.exists()
    assert table is None or (not table.ok and "net.ipv6.neigh" in table.remedy)


BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")


@pytest.mark.skipif(not BACKLOG.exists(), reason="it is the machine's own namespace that shows it")
def test_guests_that_hear_each_other_are_counted() -> None:
    """A broadcast to more guests than the kernel lets frames wait has no answer."""
    room = int(BACKLOG.read_text())
    assert findings(room, neighbours=room)["same-node guests"].ok
    short = findings(room + 1, neighbours=room + 1)["same-node guests"]
    assert not short.ok
    assert short.vital
    assert short.seen.startswith(f"{room} frames")
    assert "sysctl -w net.core.netdev_max_backlog=" in short.remedy
    assert not findings(9, tenants=room + 1)["tenants"].vital
    assert not {"same-node guests", "tenants"} & set(findings(room + 1))


@pytest.mark.parametrize(
    ("policy", "size"),
    [("responder-only", limits.Size(6, 2, 0, 1)), ("same-node", limits.Size(6, 2, 4, 1))],
)
def test_the_size_of_a_lab(policy: str, size: limits.Size) -> None:
    """Who hears whom is up to the policy, and to who is a tenant."""
    guests = "[{name: a, tenant: true}, b, c, d]"
    text = f"name: x\npolicy: {policy}\nnodes: {{n1: {{guests: {guests}}}, n2: {{guests: 2}}}}\n"
    assert limits.Size.of(parse(text, source="x")) == size
    assert limits.Size.of(parse(f"ipv6: true\n{text}", source="x")).by_ipv6 == 6


def a_file_for(guests: int, tmp_path: Path) -> str:
    file = tmp_path / "lab.yaml"
    file.write_text(f"name: x-limits\nnodes: {{n1: {{guests: {guests}}}}}\n")
    return str(file)


def test_up_says_all_that_is_to_be_raised_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user whose machine is too small for a lab is told what to raise, and nothing is begun."""
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path / "labs"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    monkeypatch.setattr(limits, "_may_raise", lambda: False)
    begun = []
    monkeypatch.setattr(launch, "start", lambda *_: begun.append("lab"))
    lab = load(Path(a_file_for(400, tmp_path)))
    with pytest.raises(MachineCannot, match=r"400 guests.*: 1000.*-Hn 1172") as said:
        labs.bring_up(lab)
    assert said.value.exit_code == 3
    assert "neighbour" not in str(said.value)  # that stands in nobody's way
    assert begun == []
    assert "x-limits" not in labs.running()
    monkeypatch.setattr(limits, "_may_raise", lambda: True)
    assert labs.bring_up(lab)
    assert begun == ["lab"]


def test_up_warns_of_what_does_not_stand_in_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user whose guests cannot all ask at one time is told so, and has the lab."""
    short = limits.Finding("neighbour table", False, "5 entries", "sysctl -w", vital=False)
    monkeypatch.setattr(limits, "limits", lambda *_: iter([short]))
    monkeypatch.setattr(labs, "bring_up", lambda *_, **__: True)
    done = CliRunner().invoke(up, [a_file_for(6, tmp_path)])
    assert done.exit_code == 0
    assert "neighbour table: 5 entries: sysctl -w" in done.output
    assert "x-limits: up (1 node, 6 guests)" in done.stdout
