"""`netemu.Lab` as a type checker and a reader of `import netemu` see it."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import netemu

GOOD = """
import netemu
with netemu.Lab() as lab:
    event: netemu.Event = lab.schedule("web1", "reboot", notice="4m", duration=60)
    lab.fail_node("node1")
    lab.restore_node("node1")
other: netemu.AttachedLab = netemu.Lab.attach("demo")
async def told() -> None:
    async with netemu.AsyncMaintenance("demo") as plan:
        first: netemu.Event = await plan.schedule("web1", "freeze", source="user")
"""
WRONG = {
    'netemu.Lab().schedule("web1", "restart")': "Literal",
    'netemu.Lab().schedule("web1", "reboot", source="me")': "Literal",
    'netemu.Lab().schedule("web1", "reboot", notice=[4])': "notice",
    'netemu.Lab.attach("demo").down()': "down",
}


@pytest.mark.processes
def test_a_type_checker_refuses_what_would_fail(tmp_path: Path) -> None:
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(GOOD)
    wrong.write_text("import netemu\n" + "".join(f"{line}\n" for line in WRONG))
    root = Path(netemu.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(good), str(wrong)],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "error:" in line]
    assert not [line for line in lines if "good.py" in line], done.stdout
    for number, (line, word) in enumerate(WRONG.items(), start=2):
        told = [one for one in lines if f"wrong.py:{number}:" in one]
        assert any(word in one for one in told), f"{line}: {lines}"


def test_all_that_a_program_needs_is_at_the_top() -> None:
    for name in netemu.__all__:
        assert getattr(netemu, name) is not None
        assert name in dir(netemu)
    assert issubclass(netemu.CommandFailed, netemu.NetemuError)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = netemu.nonsense


@pytest.mark.processes
def test_importing_it_costs_nothing() -> None:
    script = "import sys; before = set(sys.modules); import netemu; print(*set(sys.modules)-before)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"msgspec", "click", "hostagent", "netemu.errors"} & set(done.stdout.split())


@pytest.mark.parametrize("length", ["x", "", float("nan"), float("inf"), "9" * 400])
def test_a_length_of_time_of_any_kind_is_bad_input(length: str | float) -> None:
    from netemu.client.maintenance import schedule

    with pytest.raises(netemu.BadInput):
        schedule("web1", "reboot", notice=length)


@pytest.mark.parametrize(("length", "seconds"), [("4m", 240), ("500ms", 0.5), (7, 7), (None, None)])
def test_a_length_of_time_is_seconds_or_as_on_the_command_line(
    length: str | float | None, seconds: float | None
) -> None:
    from netemu.client.maintenance import schedule

    assert (
        msgspec.to_builtins(schedule("web1", "reboot", notice=length).question)["notice"] == seconds
    )
