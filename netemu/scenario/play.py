"""Plays the masked reboot: a website under load, whose guests are rebooted in turn."""

import csv
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from hostagent.model import EventStatus
from netemu.client.api import Lab
from netemu.errors import MachineCannot, NotSo
from netemu.scenario.requests import Reboot, Run, read
from netemu.wire import lab_file
from netemu.wire.progress import Step

FILES: Final = Path(__file__).resolve().parent / "masked_reboot"
_LAB: Final = FILES / "lab.yaml"
_WEB: Final = ("web1", "web2", "web3")
# With agents the notice is long: their approval starts the reboot early.
_NOTICE_TO_AGENTS: Final = 900.0
_NOTICE: Final = 1.0
# A segment that is lost comes again after a second, then two, then four: clients wait for it.
_PATIENCE_WITH_LOSS: Final = 20.0
# The longest that one step may take on a busy machine.
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Pace:
    """The pace of a run.

    `time_scale` multiplies RFC 3927's durations. A guest is away for `duration` seconds before it
    boots, with `calm` seconds before and after. `rate` is in requests a second. `links` is what is
    wrong with both wires of each web guest, as a lab file says it.
    """

    time_scale: float = 1.0
    duration: float = 6.0
    calm: float = 4.0
    rate: float = 64.0
    links: Mapping[str, str] = field(default_factory=dict)


def require() -> None:
    """Raise MachineCannot if a program is missing, before anything is built."""
    for program in ("haproxy", "python3", "ip"):
        if shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") is None:
            package = {"ip": "iproute2"}.get(program, program)
            raise MachineCannot(f"missing: {program}; run: sudo apt-get install {package}")


def play(*, drained: bool, pace: Pace, on_step: Callable[[Step], None]) -> Run:
    """Play one run in a lab of its own; `on_step` is called after each reboot.

    Raises NotSo if something awaited does not happen in time.
    """
    reboots: list[Reboot] = []

    def tell() -> None:
        on_step(Step("with drain agents" if drained else "without", len(reboots), len(_WEB)))

    tell()
    with (
        _environment("DRAIN", "on" if drained else "off"),
        Lab(_LAB, name=f"masked-{os.getpid()}", time_scale=pace.time_scale) as lab,
        tempfile.TemporaryFile("w+") as told,
    ):
        for web in _WEB:
            # (HAProxy says "UP" until its first check.)
            _until(lab, partial(_serves, lab, web), f"{web} does not serve")
            _until(lab, partial(_state, lab, web, "UP"), f"HAProxy does not find {web}")
        if pace.links:
            lab.link(_WEB, pace.links, wire="all")
        words = ["python3", str(FILES / "load.py"), "http://lb/", str(pace.rate)]
        if pace.links:
            words.append(str(_PATIENCE_WITH_LOSS))
        load = lab.popen("client", words, stdout=told)
        _until(lab, partial(_begun, load, told.fileno()), "the load does not begin")
        time.sleep(pace.calm)
        for web in _WEB:
            _expect(load, None)
            reboots.append(_reboot(lab, web, drained=drained, duration=pace.duration))
            tell()
            time.sleep(pace.calm)
        _expect(load, None)
        load.terminate()
        _until(lab, lambda: load.poll() is not None, "the load does not end")
        _expect(load, 0)
        told.seek(0)
        return Run(drained, read(told), tuple(reboots), impaired=bool(pace.links))


def _begun(load: "subprocess.Popen[str]", told: int) -> bool:
    """Whether the load has reported a request, or has ended."""
    return os.fstat(told).st_size > 0 or load.poll() is not None


def _expect(load: "subprocess.Popen[str]", code: int | None) -> None:
    """Raise NotSo unless the load has ended with this code; None: unless it still runs."""
    if load.poll() != code:
        raise NotSo(f"the load ended with {load.returncode}; see its message above")


def _reboot(lab: Lab, guest: str, *, drained: bool, duration: float) -> Reboot:
    """Announce a reboot, and wait until it is over and the guest is in the pool again."""
    notice = _NOTICE_TO_AGENTS if drained else _NOTICE
    event = lab.schedule(guest, "reboot", notice=notice, duration=duration)

    def has(status: EventStatus) -> bool:
        return lab.event(event.id).status in (status, EventStatus.COMPLETED)

    waited = "its drain agent does not approve" if drained else "it does not start"
    _until(lab, lambda: has(EventStatus.STARTED), f"{guest}'s reboot: {waited}")
    _until(lab, lambda: has(EventStatus.COMPLETED), f"{guest}'s reboot does not end")
    _until(lab, lambda: _serves(lab, guest), f"{guest} does not serve after its reboot")
    _until(lab, partial(_state, lab, guest, "UP"), f"{guest} is not put back into the pool")
    ended = lab.event(event.id)
    return Reboot(guest, event.created, ended.started or event.created, time.time())


def _until(lab: Lab, seen: Callable[[], object], missing: str) -> None:
    try:
        lab.until(seen, timeout=_PATIENCE)
    except NotSo as error:
        raise NotSo(f"{missing} ({error})") from None


def _address(guest: str) -> str:
    (found,) = (one for one in lab_file.load(_LAB).guests if one.name == guest)
    return found.tenant[0]


def _serves(lab: Lab, guest: str) -> bool:
    try:
        return lab.request("lb", "GET", f"http://{_address(guest)}:8080/health").status == 200
    except NotSo:
        return False


def _state(lab: Lab, server: str, state: str) -> bool:
    """Whether HAProxy reports this state of a server: "UP", but not "UP 1/2" (going down)."""
    try:
        page = lab.get("lb", f"http://{_address('lb')}:8404/stats;csv")
    except NotSo:
        return False  # HAProxy has just been started
    rows = csv.DictReader(page.lstrip("# ").splitlines())
    return any(row["svname"] == server and row["status"] == state for row in rows)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable, for a lab brought up meanwhile and its guests' programs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
