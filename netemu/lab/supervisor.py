"""PID 1 of the bottle: builds the lab, runs its claims, keeps its services alive, answers for it.

Run by `netemu.lab.bottle` as `python -m netemu.lab.supervisor DIRECTORY LOCK PROGRESS`, with the
lab on standard input. It holds the lab's lock and every namespace; when it ends, all is gone.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from netemu.errors import BadInput, MachineCannot, NetemuError, NotSo
from netemu.kernel import namespaces as ns
from netemu.kernel import netlink
from netemu.kernel.factory import Factory
from netemu.kernel.namespaces import inside
from netemu.kernel.protections import Protection
from netemu.lab import answers, places
from netemu.lab.claims import Claims
from netemu.lab.control import Answer, ControlServer, Handler
from netemu.lab.inits import Inits
from netemu.lab.placement import Placement
from netemu.lab.progress import Progress
from netemu.lab.services import GRACE, Reaper, Service
from netemu.lab.wiring import WiredGuest, WiredNode, wire
from netemu.linklocal.timing import Timing
from netemu.topology import Dialects, Lab

log = logging.getLogger(__name__)

# What a node's two processes become when the lab is root's: users that own nothing and are nobody
# else's, from the range that systemd keeps for such (61184 to 65519).
AGENT_USER: Final = 61901
RESPONDER_USER: Final = 61902
# Inside the bottle, where no guest sees it: the agents' stores and feeds.
STATE: Final = Path("/run/hostagent")
# How long `up` waits at time scale 1 until it gives up, seconds. A claim takes seven; a guest that
# has had MAX_CONFLICTS conflicts tries one address a minute (RFC 3927 section 2.2.1).
CLAIMING_AT_MOST: Final = 180.0
# … and for the first answers: starting a thousand processes takes a small machine half of it.
ANSWERING_AT_MOST: Final = 60.0
# Descriptors: two a guest, a dozen a node, and what else a process has.
_SPARE_DESCRIPTORS: Final = 100


class Order(msgspec.Struct, frozen=True):
    """What to build: the lab, its pace, and the runtime directory that nobody inside may see.

    `without` is what keeps guests apart and is to be left out: see `netemu.kernel.protections`.
    """

    lab: Lab
    time_scale: float
    hidden: str
    access_log: bool = False
    without: tuple[Protection, ...] = ()


class Supervisor:
    """The lab, from its first namespace to its last."""

    def __init__(self, order: Order, directory: int, progress: Progress) -> None:
        self._order = order
        self._lab = order.lab
        self._directory = directory
        self._progress = progress
        self._factory = Factory()
        self._nodes: list[WiredNode] = []
        self._guests: dict[str, WiredGuest] = {}
        self._inits = Inits(self._factory)
        self._claims: Claims | None = None
        self._placement: Placement | None = None
        self._services: list[Service] = []
        self._kept: list[socket.socket] = []  # for as long as a service may be started again
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._bottle = {kind: ns.open_own(kind) for kind in ("user", "mnt", "pid", "net")}

    async def run(self, control: socket.socket, agents: list[socket.socket]) -> None:
        """Bring the lab up, and stay until it is to go down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._down.set)
        Reaper(lambda: self._services)
        verbs: dict[str, Handler] = {
            "status": self._status,
            "enter": self._enter,
            "reboot": self._reboot,
            "set": self._set,
            "down": self._take_down,
            "wait": self._wait,
        }
        ControlServer(control, verbs)
        going_up = asyncio.create_task(self._come_up(agents))
        going_down = asyncio.create_task(self._down.wait())
        watch = asyncio.create_task(self._watch_for_abandonment())
        await asyncio.wait({going_up, going_down, watch}, return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        if going_up.done():
            going_up.result()
            assert self._placement is not None
            following = asyncio.create_task(self._placement.follow())
            self._progress.ready()
            self._ready.set()
            log.info("lab %s is up", self._lab.name)
            await going_down
            following.cancel()
        log.info("lab %s goes down", self._lab.name)
        await self._stop_services()

    async def _come_up(self, agents: list[socket.socket]) -> None:
        scale = self._order.time_scale
        _make_room_for_descriptors(self._lab)
        self._nodes = await wire(
            self._lab,
            self._factory,
            time_scale=scale,
            progress=self._progress,
            without=self._order.without,
        )
        self._guests = {one.guest.name: one for node in self._nodes for one in node.guests}
        self._claims = Claims(
            self._nodes, Timing().scaled(scale), self._factory, self._order.without
        )
        for number, node in enumerate(self._nodes):
            self._start_services(number, node, agents[number])
        self._placement = Placement(
            self._lab.nodes,
            [
                f"/proc/self/fd/{self._directory}/{places.agent_socket(number)}"
                for number in range(len(self._nodes))
            ],
            self._claims,
            by_address=Protection.MARKS in self._order.without,
        )
        bound = self._claims.all_bound(self._lab.guests, self._progress)
        try:
            async with asyncio.timeout(CLAIMING_AT_MOST * max(1.0, scale)):
                await asyncio.gather(bound, self._placement.tell_all())
                await self._placement.tell_all()  # now with everybody's address
            async with asyncio.timeout(ANSWERING_AT_MOST):
                await answers.all_answered(self._nodes, self._progress)
        except TimeoutError:
            raise NotSo(self._who_is_missing()) from None

    def _who_is_missing(self) -> str:
        """Why the lab is not up: the guests without an address, else that some are not answered."""
        assert self._claims is not None
        states = {one.name: self._claims.state(one) for one in self._lab.guests}
        missing = [f"{name} ({state})" for name, state in states.items() if state != "bound"]
        if not missing:
            return f"not every guest was answered within {ANSWERING_AT_MOST:g} s"
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"no address was bound in time for {', '.join(missing[:3])}{rest}"

    async def _watch_for_abandonment(self) -> None:
        """Whoever ordered the lab has gone before it was up: nobody wants it."""
        while not self._progress.abandoned():
            await asyncio.sleep(0.2)
        log.info("nobody waits for the lab any longer")

    # The nodes' services.

    def _start_services(self, number: int, node: WiredNode, commands: socket.socket) -> None:
        root = _is_root()
        store = STATE / f"agent-{number}"
        store.mkdir(mode=0o700)
        feed_path = STATE / f"feed-{number}.sock"
        feed = socket.socket(socket.AF_UNIX)
        feed.bind(str(feed_path))
        feed.listen()
        feed_path.chmod(0o600)
        if root:
            os.chown(store, AGENT_USER, AGENT_USER)
            os.chown(feed_path, RESPONDER_USER, RESPONDER_USER)
        assert node.listener is not None
        agent = ["hostagent", "agent", "--node", node.node.name]
        agent += ["--repository", str(store / "repository.sqlite")]
        responder = ["hostagent", "responder", "--agent", str(feed_path)]
        responder += _dialect_options(node.node.dialects)
        if self._order.access_log:
            responder.append("--access-log")
        if Protection.MARKS in self._order.without:
            responder += ["--identity", "address"]
        if root:
            agent += ["--user", str(AGENT_USER)]
            responder += ["--user", str(RESPONDER_USER)]
        if Protection.RESPONDER in self._order.without:
            guests = [f"{one.guest.mark}:{one.guest.name}" for one in node.guests]
            responder = ["netemu.lab.careless", *guests]
        for role, arguments, sockets in (
            ("agent", agent, {"command": commands.fileno(), "feed": feed.fileno()}),
            ("responder", responder, {"http": node.listener.fileno()}),
        ):
            service = Service(
                f"{node.node.name}/{role}", arguments, sockets=sockets, log_descriptor=2
            )
            service.start()
            self._services.append(service)
        self._kept += [feed, commands]

    async def _stop_services(self) -> None:
        for service in self._services:
            service.stop()
        try:
            async with asyncio.timeout(GRACE):
                while any(service.pid is not None for service in self._services):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("some services did not end in time")

    # What may be asked.

    async def _wait(self) -> Answer:
        await self._ready.wait()
        return [{}], []

    async def _status(self) -> Answer:
        claims = self._claims
        nodes = [
            {
                "name": node.name,
                "guests": [
                    {
                        "name": guest.name,
                        "mac": guest.mac,
                        "address": claims.address(guest) if claims else None,
                        "state": claims.state(guest) if claims else "down",
                        "port_mark": guest.mark,
                    }
                    for guest in node.guests
                ],
            }
            for node in self._lab.nodes
        ]
        head = {
            "name": self._lab.name,
            "policy": str(self._lab.policy),
            "state": "up" if self._ready.is_set() else "coming up",
            "time_scale": self._order.time_scale,
            "fingerprint": self._lab.fingerprint(),
            "access_log": self._order.access_log,
            "without": [str(one) for one in self._order.without],
            "services": [service.status() for service in self._services],
        }
        return [head, *nodes], []

    async def _enter(self, target: str | None) -> Answer:
        """Descriptors of the namespaces of a guest, a node, or (None) the bottle."""
        user, mnt, pid, net = (self._bottle[kind] for kind in ("user", "mnt", "pid", "net"))
        bottle = {"user": user, "mnt": mnt, "pid": pid, "net": net}
        if target in self._guests:
            inner = self._inits.namespaces(target, self._guests[target].net)
            # The bottle's user namespace first: from there the guest's others can be entered.
            found = {"bottle": user, **inner}
            if Protection.NAMESPACES in self._order.without:
                found = {**bottle, "net": inner["net"]}
        elif target is None:
            found = bottle
        else:
            for node in self._nodes:
                if node.node.name == target:
                    found = {**bottle, "net": node.net}
                    break
            else:
                raise BadInput(f"{target}: lab {self._lab.name} has no such guest or node")
        return [{"kinds": list(found)}], list(found.values())

    async def _reboot(self, guest: str) -> Answer:
        """End the guest's processes, take its link down and up again."""
        if guest not in self._guests:
            raise BadInput(f"{guest}: lab {self._lab.name} has no such guest")
        wired = self._guests[guest]
        self._inits.end(guest)
        with inside(wired.net), netlink.Netlink() as kernel:
            kernel.run((netlink.down("eth0", netlink.GUEST_INDEX),))
        await asyncio.sleep(0)  # the claimant is told, and has ceased to use its address
        with inside(wired.net), netlink.Netlink() as kernel:
            kernel.run((netlink.up("eth0", netlink.GUEST_INDEX),))
        return [{}], []

    async def _set(self, guest: str, properties: dict[str, str]) -> Answer:
        """Change a guest's properties, and tell those that it was given."""
        if guest not in self._guests:
            raise BadInput(f"{guest}: lab {self._lab.name} has no such guest")
        await self._ready.wait()
        assert self._placement is not None
        if properties:
            await self._placement.change(guest, properties)
        return [self._placement.properties(guest)], []

    async def _take_down(self) -> Answer:
        self._down.set()
        return [{}], []


def _dialect_options(dialects: Dialects) -> list[str]:
    """What the responder is told to speak, and how; what the lab does not say is its default."""
    options = []
    if dialects.names != Dialects().names:
        options += ["--dialects", ",".join(dialects.names)]
    if dialects.azure_rate is not None:
        options += ["--azure-rate", f"{dialects.azure_rate:g}"]
    if dialects.ec2_imdsv1 is not None:
        options += ["--ec2-imdsv1" if dialects.ec2_imdsv1 else "--no-ec2-imdsv1"]
    if dialects.ec2_hop_limit is not None:
        options += ["--ec2-hop-limit", str(dialects.ec2_hop_limit)]
    return options


def _is_root() -> bool:
    """Whether the lab is root's. One user's own lab knows that user only, whom it calls 0."""
    _, _, users = Path("/proc/self/uid_map").read_text().split()[:3]
    return int(users) > AGENT_USER


def _make_room_for_descriptors(lab: Lab) -> None:
    """Raise the limit of open files as far as the lab needs it, or say what to raise."""
    needed = 2 * len(lab.guests) + 16 * len(lab.nodes) + _SPARE_DESCRIPTORS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
        except (ValueError, OSError):
            raise MachineCannot(
                f"{len(lab.guests)} guests need {needed} open files, this user may have {hard}: "
                f"raise the limit with 'ulimit -Hn {needed}' as root, or in limits.conf"
            ) from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle(order: Order, directory: int) -> tuple[socket.socket, list[socket.socket]]:
    """Make the sockets that the machine sees, then dress the bottle so that nobody inside does."""
    here = f"/proc/self/fd/{directory}"
    control = _listen(f"{here}/{places.CONTROL}")
    agents = [
        _listen(f"{here}/{places.agent_socket(number)}") for number in range(len(order.lab.nodes))
    ]
    quiet = ns.MS_NOSUID | ns.MS_NODEV
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", quiet | ns.MS_NOEXEC)
    ns.mount("sysfs", "/sys", "sysfs", quiet | ns.MS_NOEXEC)
    if Path(order.hidden).is_dir():
        ns.mount("tmpfs", order.hidden, "tmpfs", quiet | ns.MS_RDONLY, "mode=755,size=4k")
    ns.mount("tmpfs", "/run", "tmpfs", quiet, "mode=755")
    STATE.mkdir(mode=0o755)
    socket.sethostname(order.lab.name)
    return control, agents


def _listen(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    os.chmod(path, 0o600)
    made.listen(64)
    return made


def main() -> int:
    """Be the supervisor of the lab that stands on standard input."""
    os.umask(0o022)
    directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.set_inheritable(int(sys.argv[2]), False)  # the lock: held until the last thread ends
    progress = Progress(int(sys.argv[3]))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
        os.chdir("/")
        ns.set_dumpable()
        ns.set_process_name(f"lab {order.lab.name}")
        control, agents = _settle(order, directory)
        asyncio.run(_supervise(order, directory, progress, control, agents))
    except NetemuError as error:
        log.error("%s", error)
        progress.failed(error)
        return error.exit_code
    except Exception as error:
        log.exception("the lab fails")
        progress.failed(NetemuError(f"the lab fails: {error!r}"))
        return 1
    return 0


async def _supervise(
    order: Order,
    directory: int,
    progress: Progress,
    control: socket.socket,
    agents: list[socket.socket],
) -> None:
    await Supervisor(order, directory, progress).run(control, agents)


if __name__ == "__main__":
    sys.exit(main())
