"""An event loop on virtual time, and the processes that run on it.

What is due next runs next, and the clock jumps there: nothing ever waits. A process is a context
variable, so each callback and task belongs to the process in which it was made. A process that has
crashed runs nothing more, not even `finally`; one that is paused runs what was due when it goes on.
"""

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Final, TypeVar

T = TypeVar("T")

# Seconds that a repository's transaction takes: long enough for others to run in between.
STORAGE_DELAY: Final = 0.002


class Process:
    """A simulated process: alive, paused, or dead for good."""

    def __init__(self, loop: "Loop", name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self._loop = loop
        self._parked: list[tuple[float, events.Handle]] = []
        self._at_end: list[Callable[[], None]] = []

    def at_end(self, action: Callable[[], None]) -> None:
        """Add what the kernel does when a process ends: it closes what the process had open."""
        self._at_end.append(action)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task in this process."""
        return self.context().run(self._loop.create_task, work)

    def context(self) -> Context:
        """A context in which callbacks and tasks are this process's."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return context

    def crash(self) -> None:
        """End at once: none of its code runs any more."""
        if not self.alive:
            return
        self.alive = False
        actions, self._at_end = self._at_end, []
        for action in actions:
            action()

    def pause(self) -> None:
        """Stop, as by SIGSTOP."""
        self.paused = True

    def go_on(self) -> None:
        """Go on; what fell due meanwhile is due now."""
        self.paused = False
        parked, self._parked = self._parked, []
        for when, handle in parked:
            self._loop.put(max(when, self._loop.time()), handle)

    def park(self, when: float, handle: events.Handle) -> None:
        """Keep a callback that falls due while it is paused."""
        self._parked.append((when, handle))


PROCESS: Final[ContextVar[Process | None]] = ContextVar("process", default=None)
"""The process that runs now; None is the simulation itself, and what never fails."""


# The most callbacks in one moment of virtual time; a lab of this size needs some hundred.
_MOST_AT_ONCE: Final = 100_000


class Stuck(Exception):
    """The awaited result cannot come: nothing is due any more, or the clock stands still."""


class Loop(asyncio.BaseEventLoop):
    """The loop. Its clock begins at 1,000 seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._heap: list[tuple[float, int, events.Handle]] = []
        self._numbers = count()
        self._at_once = 0
        # Coroutines of dead processes: if one were collected, its `finally` would run.
        self._graveyard: list[object] = []
        self._over = False
        self.problems: list[dict[str, Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.problems.append(context))
        self.network: Any = None
        self.storage_fault: Callable[[], str] = lambda: ""
        """Called before each piece of storage work. Returns "", or "before" or "after" if the
        process ends then.
        """

    def time(self) -> float:
        """The virtual clock, in seconds."""
        return self._now

    def _make_task(self, _loop: Any, work: Any, **options: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(work, loop=self, **options)
        self._graveyard.append(task)
        return task

    # Scheduling: one heap, in order of time and then of asking.

    def put(self, when: float, handle: events.Handle) -> None:
        """Have a handle run at a time."""
        heapq.heappush(self._heap, (when, next(self._numbers), handle))

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self.put(self._now, handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self.put(max(when, self._now), timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """The heap drops a cancelled timer when its time has come."""

    # Running.

    def run_until(self, moment: float) -> None:
        """Run everything that is due until `moment` of the virtual clock."""
        with self._running():
            while self._heap and self._heap[0][0] <= moment:
                self._step()
            self._now = max(self._now, moment)

    def run_until_complete(self, work: Any) -> Any:
        """Run until a future or coroutine is done. Raises Stuck if nothing is due before."""
        future = asyncio.ensure_future(work, loop=self)
        with self._running():
            while not future.done():
                if not self._heap:
                    raise Stuck(f"nothing is due, and {future!r} is not done")
                self._step()
        return future.result()

    @contextmanager
    def _running(self) -> Iterator[None]:
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(before)

    def _step(self) -> None:
        when, _, handle = heapq.heappop(self._heap)
        if when > self._now:
            self._now, self._at_once = when, 0
        self._at_once += 1
        if self._at_once > _MOST_AT_ONCE:
            raise Stuck(f"{handle!r} and others run without end, and no time passes")
        if handle.cancelled():
            return
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is not None and not process.alive:
            self._graveyard.append(handle)
        elif process is not None and process.paused:
            process.park(when, handle)
        else:
            handle._run()

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    # What else the code under test asks of a loop.

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Storage: the work is done in one go a little later, and its result is told later still.

        A crash comes before it, in between, or after it.
        """
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            process, fault = PROCESS.get(), self.storage_fault()
            if process is not None and fault:
                if fault == "after":
                    func(*args)
                process.crash()
                return
            try:
                result = func(*args)
            except Exception as error:
                self.call_later(STORAGE_DELAY, _set, future.set_exception, future, error)
            else:
                self.call_later(STORAGE_DELAY, _set, future.set_result, future, result)

        self.call_later(STORAGE_DELAY, work)
        return future

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Any], path: Any = None, **_: Any
    ) -> tuple[Any, Any]:
        made: tuple[Any, Any] = await self.network.connect(str(path), protocol_factory)
        return made

    async def create_unix_server(
        self, protocol_factory: Callable[[], Any], path: Any = None, *, sock: Any = None, **_: Any
    ) -> Any:
        return self.network.serve(sock, protocol_factory)

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError

    def _write_to_self(self) -> None:
        pass

    def get_debug(self) -> bool:
        return False

    def __del__(self) -> None:
        """Nothing of the machine's has to be closed."""


def _set(setter: Callable[[Any], None], future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        setter(value)
