"""What is said to QEMU, and what becomes of its answers, of bad ones too. No QEMU runs."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.errors import NotSo
from netemu.kernel.factory_client import Factory
from netemu.supervisor.guests.endings import Ending
from netemu.supervisor.guests.machine import Command
from netemu.supervisor.guests.qemu import command, json_lines, qemu_machine
from netemu.supervisor.guests.qemu.console import Console
from netemu.supervisor.guests.qemu.guest_agent import GuestAgent
from netemu.supervisor.guests.qemu.identity import dmi
from netemu.supervisor.guests.qemu.json_peer import JsonPeer, NoAnswer, Refused
from netemu.supervisor.guests.qemu.qemu_machine import QemuMachine
from netemu.topology import SMBIOS, VirtualMachine
from netemu.topology.machine import Cloud

MAC = "02:00:00:00:00:01"
VM_ID = "5a3b9c1e-0000-4000-8000-00000000abcd"
GIVEN = {"vm_id": VM_ID, "instance_id": "i-0123456789abcdef0"}


def words(*, tap: bool = True, **machine: Any) -> list[str]:
    made = VirtualMachine(**machine)
    return list(command.words("qemu", "vm1", MAC, made, "raw", dmi(made, "vm1", GIVEN), tap=tap))


@pytest.mark.parametrize(
    ("tap", "wire"),
    [(True, "tap,id=net,fd=3"), (False, "dgram,id=net,local.type=fd,local.str=3")],
)
def test_a_machine_has_no_network_but_its_wire_and_qemu_is_sandboxed(tap: bool, wire: str) -> None:
    told = words(tap=tap, kernel="/k", initrd="/i")
    assert [told[at + 1] for at, one in enumerate(told) if one == "-netdev"] == [wire]
    assert told[told.index("-sandbox") + 1].startswith("on,")
    assert "-nodefaults" in told
    # Nothing of it has a name or a number that anybody could connect to.
    assert not any("path=" in one or "host=" in one or "server" in one for one in told)


def test_what_stands_in_a_lab_file_is_one_value_to_qemu() -> None:
    told = words(image="/a,readonly=off", dmi={"sys_vendor": "Evil, Inc,uuid=1", "board_name": "b"})
    assert "file=/a,,readonly=off,if=virtio,format=raw,snapshot=on" in told
    assert "type=1,manufacturer=Evil,, Inc,,uuid=1" in told
    assert "type=2,product=b" in told


@pytest.mark.parametrize(
    ("cloud", "known_by"),
    [
        # By these cloud-init's ds-identify knows each.
        ("ec2", {"product_uuid": f"ec2{VM_ID[3:]}", "product_serial": f"ec2{VM_ID[3:]}"}),
        ("ec2", {"board_asset_tag": "i-0123456789abcdef0", "product_name": "t3.medium"}),
        ("azure", {"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}),
        ("azure", {"product_uuid": VM_ID, "sys_vendor": "Microsoft Corporation"}),
        ("gce", {"product_name": "Google Compute Engine", "sys_vendor": "Google"}),
        ("gce", {"product_serial": "GoogleCloud-5A3B9C1E00004000800000000000ABCD"}),
        ("openstack", {"product_name": "OpenStack Nova", "product_uuid": VM_ID}),
    ],
)
def test_a_machine_says_whose_it_is_by_the_guests_properties(
    cloud: Cloud, known_by: dict[str, str]
) -> None:
    said = dmi(VirtualMachine(kernel="/k", cloud=cloud), "vm1", GIVEN)
    assert set(said) <= set(SMBIOS)
    assert known_by.items() <= said.items()
    own = dmi(VirtualMachine(kernel="/k", cloud=cloud, dmi={"sys_vendor": "me"}), "vm1", GIVEN)
    assert own == {**said, "sys_vendor": "me"}
    assert any("type=1,manufacturer=" in one for one in words(kernel="/k", cloud=cloud))


def test_a_line_is_told_when_it_is_whole() -> None:
    decoder = json_lines.Decoder()
    assert list(decoder.feed(b'{"a": 1}\r\n{"b"')) == [{"a": 1}]
    assert list(decoder.feed(b": 2}\n\n[1]\nnonsense\n")) == [{"b": 2}, None, None]
    assert list(decoder.feed(b'\xff{"c": 3}\n')) == [{"c": 3}]


def test_a_line_without_an_end_takes_no_memory() -> None:
    decoder = json_lines.Decoder()
    for _ in range(10):
        assert list(decoder.feed(b"x" * json_lines.SHORT)) == []
        assert len(decoder._held) <= json_lines.SHORT
    assert list(decoder.feed(b'x\n{"a": 1}\n')) == [None, {"a": 1}]


@given(st.lists(st.binary(max_size=40)))
def test_whatever_is_said_it_is_an_object_or_nothing(parts: list[bytes]) -> None:
    decoder = json_lines.Decoder()
    for part in parts:
        assert all(one is None or isinstance(one, dict) for one in decoder.feed(part))


Reply = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def talk(reply: Reply, ask: Callable[[JsonPeer], Any]) -> tuple[Any, list[Mapping[str, Any]]]:
    """Ask a peer that answers so. Returns the answer, and the events."""
    events: list[Mapping[str, Any]] = []

    async def run() -> Any:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()

        def heard() -> None:
            for line in theirs.recv(1 << 20).splitlines():
                told = reply(json.loads(line))
                if told is not None:
                    theirs.send(json.dumps({**told, "id": json.loads(line)["id"]}).encode() + b"\n")

        loop.add_reader(theirs, heard)
        theirs.send(b'{"event": "RESET"}\n')
        peer = JsonPeer(ours, events.append)
        try:
            return await ask(peer)
        finally:
            loop.remove_reader(theirs)
            peer.close()
            theirs.close()

    return asyncio.run(run()), events


def test_an_answer_is_known_by_its_number_and_the_rest_are_events() -> None:
    answer, events = talk(
        lambda told: {"return": told["execute"]}, lambda peer: peer.ask("stop", 5)
    )
    assert answer == "stop"
    assert events == [{"event": "RESET"}]


def test_a_refusal_and_silence_are_told_apart() -> None:
    with pytest.raises(Refused, match="stop: no way"):
        talk(lambda _: {"error": {"desc": "no way"}}, lambda peer: peer.ask("stop", 5))
    with pytest.raises(NoAnswer, match=r"no answer within 0\.01 s"):
        talk(lambda _: None, lambda peer: peer.ask("stop", 0.01))


def agent(status: Any) -> Reply:
    """An agent whose commands end like this."""

    def reply(told: Mapping[str, Any]) -> Mapping[str, Any]:
        started = told["execute"] == "guest-exec"
        return {"return": {"pid": 7} if started else status}

    return reply


def run_by(reply: Reply, timeout: float = 5) -> Any:
    asked = Command(["true"], b"", timeout)
    return talk(reply, lambda peer: GuestAgent(peer).run(asked))[0]


def test_a_command_in_a_machine_has_an_exit_code_and_two_streams() -> None:
    ended = {"exited": True, "exitcode": 3, "out-data": "b3V0", "err-data": "ZXJy"}
    assert run_by(agent(ended)) == (3, b"out", b"err")
    assert run_by(agent({"exited": True, "signal": 9})) == (137, b"", b"")
    assert run_by(lambda _: {"error": {"desc": "not there"}}).code == 127
    assert run_by(agent({"exited": False}), timeout=0.05).code is None


@pytest.mark.parametrize(
    "status",
    [
        {"exited": True},
        {"exited": True, "exitcode": "0"},
        {"exited": True, "exitcode": 0, "out-data": 1},
        {"exited": True, "exitcode": 0, "out-data": "="},
    ],
)
def test_an_agent_that_lies_is_an_error_of_the_machine(status: Any) -> None:
    with pytest.raises(NotSo, match="guest agent gave"):
        run_by(agent(status))


def test_what_a_machine_does_by_itself_is_told_once() -> None:
    """Linux resets a machine in several ways, one after another; the lab's own resets are none."""
    told: list[tuple[str, bool]] = []

    async def script() -> None:
        machine = QemuMachine("vm1", VirtualMachine(kernel="/k"), -1, cast(Factory, None))
        machine.listen(lambda words, off: told.append((words, off)))
        machine._event({"event": "RESET", "data": {"reason": "host-qmp-system-reset"}})
        for _ in range(2):
            machine._event({"event": "RESET", "data": {"reason": "guest-reset"}})
        for nonsense in ({}, {"event": []}, {"event": "RESET", "data": 1}):
            machine._event(nonsense)
        machine._event({"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}})
        machine._emulator_ended()

    asyncio.run(script())
    assert told == [("rebooted by itself", False), ("turned itself off", True)]


def test_an_emulator_that_ends_is_told_and_one_that_is_ended_is_not() -> None:
    told: list[str] = []

    async def script() -> None:
        machine = QemuMachine("vm1", VirtualMachine(kernel="/k"), -1, cast(Factory, None))
        machine.listen(lambda words, _off: told.append(words))
        machine._emulator_ended()
        machine.cut()
        machine._emulator_ended()

    asyncio.run(script())
    assert told == ["its emulator has ended"]


def test_an_emulator_that_does_not_answer_may_still_be_asked_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine, or because it is ending, it misses a press of the power button."""
    monkeypatch.setattr(qemu_machine, "_ANSWERING", 0.01)
    monkeypatch.setattr(qemu_machine, "_PRESSED_AGAIN", 0.01)

    async def script() -> Ending | None:
        machine = QemuMachine("vm1", VirtualMachine(kernel="/k"), -1, cast(Factory, None))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        machine._monitor = JsonPeer(ours, machine._event, machine._emulator_ended)
        asyncio.get_running_loop().call_later(0.1, theirs.close)
        ending = await machine.shut_down(30)
        machine.cut()
        return ending

    ending = asyncio.run(script())
    assert ending is not None
    assert [name for name, _ in ending.ended] == ["the machine"]
    assert not ending.killed


def test_a_consoles_last_words_are_one_line_that_can_be_shown() -> None:
    async def script() -> str:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        hear, tell = os.pipe()
        console = Console(ours, hear, os.open(os.devnull, os.O_WRONLY))
        with theirs:
            theirs.send(b"x" * 300 + b"\n\x1b[1mKernel panic\x1b[0m - not syncing\r\n\n")
            await asyncio.sleep(0.05)
            said = console.last_words
        console.close()
        os.close(tell)
        return said

    assert asyncio.run(script()) == "[1mKernel panic[0m - not syncing"
