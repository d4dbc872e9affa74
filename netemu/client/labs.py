"""Labs from outside: bring one up, find it, ask it, enter it, take it down. Runs in the user's
process.

The command line uses these functions, and so can programs. All raise NetemuError.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from netemu.client import guest_directories
from netemu.client.ending import await_end, end
from netemu.errors import BadInput, NetemuError, NotSo
from netemu.wire import control, questions, runtime_dir
from netemu.wire.control import Hangs, NoAnswer, ask, listen
from netemu.wire.progress import Step
from netemu.wire.standard_streams import keep_their_places

# Modules that are only needed to bring a lab up, or to change a guest, are imported there. They
# would take half of the time of a verb that asks a running lab.
if TYPE_CHECKING:
    from netemu.topology import Lab
    from netemu.wire.profile import Profile
    from netemu.wire.status import MachineSeen
    from netemu.wire.store_address import StoreAddress

# Seconds that a lab which does not answer may take to end or to begin.
_PATIENCE: Final = 5.0


def bring_up(
    lab: "Lab",
    *,
    time_scale: float = 1.0,
    on_step: Callable[[Step], None] = lambda _: None,
    access_log: bool = False,
    profile: "Profile | None" = None,
    owned: bool = False,
    shared: Iterable[str | Path] = (),
    readable: Iterable[str | Path] = (),
    store: "StoreAddress | None" = None,
) -> bool:
    """Bring `lab` up and return True when every guest is bound and answered.

    What guests of root's lab write stays with them, but in directories that the lab file or
    `shared` names. Directories that are `readable` they see as they are, as the lab file's own.
    With `access_log` the lab's log has a line for each request answered. `profile` is how guests
    are kept apart, where it is not to be the standard one. `store` is where its commands are kept,
    if not on this machine.

    False if it runs already, as it is. Raises NotSo if another lab of its name runs, and
    MachineCannot if this machine's limits are too low for so many guests. If the caller is ended
    meanwhile, in whatever way, so is the lab; one that is `owned` also later, until `keep`.
    """
    from netemu.client import launch
    from netemu.client.signing_key import signing_key
    from netemu.wire.framing import framed
    from netemu.wire.limits import Size, require
    from netemu.wire.order import Order
    from netemu.wire.profile import Profile

    keep_their_places()
    if not 0 < time_scale <= 100:
        raise BadInput(f"time scale {time_scale} is not above 0 and at most 100; 1 is RFC 3927's")
    hidden = str(runtime_dir.root())
    directories = tuple(map(guest_directories.shared, (*lab.shared, *shared)))
    order = Order(
        lab,
        time_scale,
        hidden,
        access_log,
        owned,
        directories,
        guest_directories.readable((*guest_directories.named(lab), *readable), directories),
        store=store,
        profile=profile or Profile(),
        signing_key=signing_key(),
    )
    if not order.here.nodes:
        assert store is not None
        machines = ", ".join(sorted({one.machine or "the first" for one in lab.nodes}))
        raise BadInput(
            f"{lab.name}: has no nodes for machine {store.machine}; it has for {machines}"
        )
    if lab.name not in running():
        require(Size.of(order.here))
        if any(guest.machine for guest in order.here.guests):
            from netemu.client.machine_check import require_machines

            require_machines(order.here)
    try:
        told = framed(order)
    except UnicodeEncodeError as error:
        raise BadInput(f"{error.object!r}: a lab has only paths that are UTF-8 text") from None
    claimed = _claim_or_join(lab)
    if claimed is None:
        return False
    directory, lock = claimed
    made = runtime_dir.identity(lab.name)
    try:
        servers = () if store is None else store.servers
        outside = launch.Outside(len(order.here.nodes), order.crosses, servers)
        launch.start(told, outside, directory, lock, on_step)
    except BaseException:
        end(lab.name, made)
        raise
    return True


def _claim_or_join(lab: "Lab") -> tuple[Path, int] | None:
    """The directory of a lab that is to be brought up, and its lock; None if this very lab runs
    already.

    A lab that has just been killed holds its lock for a moment longer, and does not answer: it is
    waited for.
    """
    deadline = time.monotonic() + _PATIENCE
    while (claimed := runtime_dir.claim(lab.name)) is None:
        try:
            _require_same(lab)
        except NoAnswer:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return None
    return claimed


def _require_same(lab: "Lab") -> None:
    """The lab of this name that runs must be this very lab; wait until it is up."""
    head = status(lab.name)
    if head["fingerprint"] != lab.fingerprint():
        raise NotSo(
            f"{lab.name}: a lab of this name runs, from another file; "
            f"'netemu down {lab.name}' first, or give this one another --name"
        )
    ask(_control(lab.name), questions.Wait(), within=None)


def running() -> list[str]:
    """The names of the labs of this user that run."""
    return runtime_dir.running()


def the_one(name: str | None) -> str:
    """The lab that is meant: `name`, or the only one that runs. Raises NotSo or BadInput."""
    names = running()
    if name is not None:
        if name not in names:
            raise NotSo(f"{name}: no such lab runs; 'netemu list' shows those that do")
        return name
    if not names:
        raise NotSo("no lab runs; 'netemu up' brings one up")
    if len(names) > 1:
        raise BadInput(f"several labs run ({', '.join(names)}): say which with --name")
    return names[0]


def status(name: str) -> dict[str, Any]:
    """The state of a running lab, as `netemu status --json` prints it."""
    told, _ = ask(_control(name), questions.Status())
    return {**msgspec.to_builtins(told), "supervisor": supervisor(name)}


def seen_elsewhere(name: str) -> "list[MachineSeen]":
    """The guests on the other machines of a running lab, as those that answer soon tell."""
    return ask(_control(name), questions.Seen())[0]


def certificate(name: str) -> str:
    """The certificate that the documents which a running lab signs are verified with, in PEM."""
    return ask(_control(name), questions.Certificate())[0]


def overview() -> list[dict[str, Any]]:
    """Every running lab of this user, in short: what `netemu list --json` prints.

    A hanging lab is there too, as `hung`, and one that is just starting or ending as `starting`; of
    these only the name is known. The call takes no longer than the slowest lab.
    """
    names = running()
    if not names:
        return []
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(_overview_of, names))
    return [one for one in found if one is not None]


def _overview_of(name: str) -> dict[str, Any] | None:
    one: dict[str, Any] = {"name": name, "policy": None, "state": "hung", "supervisor": None}
    try:
        told = status(name)
    except Hangs:
        return {**one, "nodes": None, "guests": None}
    except NotSo:
        starting = {**one, "state": "starting", "nodes": None, "guests": None}
        return starting if name in running() else None
    return {
        **{key: told[key] for key in one},
        "nodes": len(told["nodes"]),
        "guests": sum(len(node["guests"]) for node in told["nodes"]),
    }


class HasOwnKernel(NotSo):
    """The guest is a machine: see `client.machines` for what can be done with it."""


def enter(name: str, target: str | None) -> dict[str, int]:
    """Descriptors of the namespaces of a guest, a node or (None) the sandbox, in entering order.

    Raises HasOwnKernel for a guest that has none of this kernel's.
    """
    kinds, descriptors = ask(_control(name), questions.Enter(target))
    if not kinds:
        raise HasOwnKernel(f"{target}: has a kernel of its own, and no namespaces to enter")
    return dict(zip(kinds, descriptors, strict=True))


def log_file(name: str) -> Path:
    """Where a running lab's log is."""
    return runtime_dir.root() / name / runtime_dir.LOG


def reboot(name: str, guest: str, *, hard: bool = False) -> None:
    """Reboot a guest: its processes end, its link blinks, and it claims its address again.

    They are asked to end first, and given a grace period, unless it is a `hard` reboot.
    """
    ask(_control(name), questions.Reboot(guest, hard))


def fail_node(name: str, node: str) -> None:
    """Have a node fail: its wires go dead, its agent and responder end, its guests are off."""
    ask(_control(name), questions.Fail(node))


def restore_node(name: str, node: str) -> None:
    """Have a node that has failed come back."""
    ask(_control(name), questions.Restore(node))


def happened(name: str) -> list[dict[str, Any]]:
    """What has happened in the lab, oldest first: maps as `netemu events --json` prints them."""
    return ask(_control(name), questions.Events())[0]


def happening(name: str) -> Iterator[dict[str, Any]]:
    """The same, and what happens from now on, until the lab ends."""
    return listen(_control(name), questions.Follow())


def guest_log(name: str, guest: str) -> Path:
    """Where the log of the guest's program is, once it has printed anything.

    Raises BadInput if there is no such guest, NotSo if it has no program.
    """
    told = status(name)
    guests = {one["name"]: one for node in told["nodes"] for one in node["guests"]}
    if guest not in guests:
        raise none_such(told, guest)
    if not guests[guest]["runs"]:
        raise NotSo(f"{guest}: has no log, as it has no 'run:' in the lab file")
    return runtime_dir.root() / name / runtime_dir.LOGS / runtime_dir.guest_log(guest)


def none_such(status: Mapping[str, Any], name: str) -> NetemuError:
    """The error that says on which machine a guest or node is, or that nothing has that name."""
    for node in status.get("elsewhere", ()):
        on = f"on machine {node['machine'] or 'the first'}"
        if name == node["name"]:
            return NotSo(f"{name}: is {on}: that can only be done there")
        if name in node["guests"]:
            return NotSo(f"{name}: is {on}, node {node['name']}: that can only be done there")
    return BadInput(f"{name}: lab {status['name']} has no such guest or node")


def set_properties(name: str, guest: str, properties: Mapping[str, str | bytes]) -> dict[str, str]:
    """Change what a guest is told of itself; an empty value takes a property away.

    User data may be bytes, or `@FILE`.

    Returns the properties that the guest has then been given, by the lab file or in this way. They
    are stored when this returns. Raises BadInput if one is not known, or cannot have this value.
    """
    from hostagent.terminal.contents import ContentsError, taken
    from netemu.wire.lab_file import wrong_property

    wanted: dict[str, str] = {}
    for key, given in properties.items():
        try:
            value = taken(key, given, Path())
        except ContentsError as error:
            raise BadInput(f"{key}: {error}") from None
        if value and (wrong := wrong_property(key, value)):
            raise BadInput(f"{key}: {wrong}")
        wanted[key] = value
    return ask(_control(name), questions.SetProperties(guest, wanted))[0]


def agents(name: str) -> dict[str, str]:
    """The address of the command socket of each node's agent, by node.

    The supervisor, which has just answered, holds these names: nobody else can have taken them.
    """
    return {
        node["name"]: _address(name, runtime_dir.agent_socket(number))
        for number, node in enumerate(status(name)["nodes"])
    }


def supervisor(name: str) -> int:
    """The process ID of the lab's supervisor, as the caller sees it."""
    return control.supervisor(_control(name))


def keep(name: str) -> None:
    """Have an owned lab stay when its owner ends: it is then like any other."""
    control.ask(_control(name), questions.Keep())


def take_down(name: str) -> bool:
    """Take a lab down; False if none of that name runs. When this returns, nothing is left.

    A lab that hangs is killed after five seconds.
    """
    if name not in running():
        return False
    end(name)
    return True


def take_all_down(names: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The same for several labs in parallel, so that none waits for one that hangs."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max(1, len(names))) as pool:
        yield from zip(names, pool.map(take_down, names), strict=True)


def follow(name: str) -> None:
    """Wait until the lab ends, for whatever reason."""
    try:
        process = os.pidfd_open(supervisor(name))
    except (NotSo, ProcessLookupError):
        return
    await_end(process, None)
    os.close(process)


def _control(name: str) -> Path:
    return runtime_dir.root() / name


def _address(name: str, socket_name: str) -> str:
    try:
        return runtime_dir.address(runtime_dir.root() / name, socket_name)
    except FileNotFoundError:
        raise NoAnswer(f"{name}: the lab has ended") from None
