"""Unix sockets between simulated processes.

A listening socket belongs to the lab, as in life: it outlives the process that serves it, and a
connection made meanwhile waits in its backlog. A stream loses nothing by itself; what can happen to
it is a delay, a cut between any two bytes, and silence in one direction or in both.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from netemu.simulation.loop import PROCESS, Loop, Process

# Delays of a message, seconds: mostly as on one machine; at times the other side is not scheduled.
USUAL: Final = (0.00005, 0.0005)
SLOW: Final = (0.005, 0.5)
_HEARTBEAT: Final = b"heartbeat"


@dataclass
class Weather:
    """The present behaviour of the network, for all connections; probabilities are per write."""

    slow: float = 0.0
    cut: float = 0.0
    lose: float = 0.0
    """Whole writes that are lost: what a defect between two processes may do to frames."""
    double: float = 0.0
    """Whole writes that arrive twice."""


@dataclass
class Listener:
    """A listening socket, by path. `server` accepts its connections; None: nobody does."""

    path: str
    factory: Callable[[], Any] | None = None
    server: Process | None = None
    backlog: list["Transport"] = field(default_factory=list)


class Server:
    """The result of create_unix_server."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def close(self) -> None:
        """Accept nothing more; the listening socket stays."""
        self._listener.factory = self._listener.server = None


class Network:
    """All sockets of one simulation."""

    def __init__(self, loop: Loop, seed: int) -> None:
        self.loop = loop
        self.weather = Weather()
        self._seed = seed
        self._connections = 0
        self._listeners: dict[str, Listener] = {}
        self.transports: dict[Transport, None] = {}
        self.unheard: set[tuple[str, str]] = set()
        """Processes, in pairs: what the first says on its feed does not reach the second."""
        loop.network = self

    def listen(self, path: str) -> Listener:
        """Make a listening socket."""
        return self._listeners.setdefault(path, Listener(path))

    def serve(self, listener: Listener, factory: Callable[[], Any]) -> Server:
        """Have the present process accept waiting connections, and new ones."""
        process = PROCESS.get()
        listener.factory, listener.server = factory, process
        if process is not None:
            process.at_end(Server(listener).close)
        waiting, listener.backlog = listener.backlog, []
        for transport in waiting:
            self._accept(listener, transport)
        return Server(listener)

    async def connect(self, path: str, factory: Callable[[], Any]) -> tuple[Any, Any]:
        """Connect the present process; it succeeds at once, whether anybody accepts or not."""
        listener = self._listeners.get(path)
        if listener is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        # A stream of randomness for each connection: others' traffic does not shift its delays.
        self._connections += 1
        draw = random.Random(f"{self._seed}/{self._connections}/{path}")
        here = Transport(self, PROCESS.get(), draw, path)
        there = Transport(self, None, draw, path)
        here.peer, there.peer = there, here
        protocol = factory()
        here.attach(protocol)
        if listener.factory is None:
            listener.backlog.append(there)
        else:
            self._accept(listener, there)
        return here, protocol

    def _accept(self, listener: Listener, transport: "Transport") -> None:
        assert listener.factory is not None
        transport.belong(listener.server)
        factory = listener.factory
        context = None if listener.server is None else listener.server.context()
        self.loop.call_soon(lambda: transport.attach(factory()), context=context)


@dataclass(frozen=True)
class _Name:
    """What a socket reports of itself."""

    path: str

    def getsockname(self) -> str:
        return self.path


class Transport(asyncio.Transport):
    """One end of a connection to the socket at `path`."""

    def __init__(
        self, network: Network, process: Process | None, draw: random.Random, path: str
    ) -> None:
        super().__init__()
        self._path = path
        self._network = network
        self._loop = network.loop
        self._draw = draw
        self._protocol: Any = None
        self._process: Process | None = None
        self._closing = False
        self._open = True
        self._reading = True
        self._inbox: list[bytes] = []
        self._ended = False  # the other end has ended, and all its data is in the inbox
        self._last_arrival = 0.0
        self.deaf = self.mute = False
        self.feeds = False
        """Whether it is an agent's end of a feed."""
        self.skip = False
        """Whether all writes but heartbeats are lost."""
        self.peer: Transport = self
        self.belong(process)
        network.transports[self] = None

    def belong(self, process: Process | None) -> None:
        """Have the connection end with a process."""
        self._process = process
        if process is not None:
            process.at_end(self._died)
            self.feeds = process.name.endswith("/agent") and self._path.endswith("/feed")

    def attach(self, protocol: Any) -> None:
        """Have a protocol hear what comes."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._deliver()

    # What a protocol asks of its transport.

    def write(self, data: Any) -> None:
        if self._closing or not self._open or not data:
            return
        payload = bytes(data)
        weather = self._network.weather
        if self.skip and _HEARTBEAT not in payload:
            return
        if weather.cut and self._draw.random() < weather.cut:
            payload = payload[: self._draw.randrange(len(payload))]
            self._send(payload)
            self._lose(ConnectionResetError("cut"))
            self._loop.call_soon(self.peer._lose, ConnectionResetError("cut"))
            return
        if weather.lose and self._draw.random() < weather.lose:
            return
        self._send(payload)
        if weather.double and self._draw.random() < weather.double:
            self._send(payload)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, payload: bytes) -> None:
        if not payload or self.mute or self.peer.deaf:
            return
        if self._network.unheard and self.feeds and self._ends() in self._network.unheard:
            return
        self._loop.call_at(self._arrival(), self.peer._arrived, payload, context=self.peer._where())

    def _ends(self) -> tuple[str, str]:
        here, there = self._process, self.peer._process
        return "" if here is None else here.name, "" if there is None else there.name

    def _arrival(self) -> float:
        weather = self._network.weather
        slow = weather.slow and self._draw.random() < weather.slow
        delay = self._draw.uniform(*(SLOW if slow else USUAL))
        # In order: later data of a stream does not overtake earlier data.
        self._last_arrival = max(self._last_arrival, self._loop.time() + delay)
        return self._last_arrival

    def _where(self) -> Any:
        return None if self._process is None else self._process.context()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.call_at(self._arrival(), self.peer._finished, context=self.peer._where())
        self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._closing = True
        self._loop.call_soon(self._lose, None)
        self._loop.call_at(self._arrival(), self.peer._finished, context=self.peer._where())

    def is_closing(self) -> bool:
        return self._closing or not self._open

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver, context=self._where())

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Name(self._path) if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    # Receiving.

    def _arrived(self, payload: bytes) -> None:
        if self._open:
            self._inbox.append(payload)
            self._deliver()

    def _finished(self) -> None:
        self._ended = True
        self._deliver()

    def _deliver(self) -> None:
        if self._protocol is None or not self._open:
            return
        while self._inbox and self._reading and not self._closing:
            self._protocol.data_received(self._inbox.pop(0))
        if self._ended and not self._inbox:
            self._protocol.eof_received()
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._open:
            return
        self._open, self._closing = False, True
        self._network.transports.pop(self, None)
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error, context=self._where())

    def _died(self) -> None:
        """The process has ended: the kernel closes its end, and the other hears of it."""
        if self._open:
            self._open = False
            self._network.transports.pop(self, None)
            self._loop.call_at(self._arrival(), self.peer._finished, context=self.peer._where())
