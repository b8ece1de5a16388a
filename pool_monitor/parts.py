"""The interface between a monitor and its parts: what a part implements, and what the monitor hands to it.

A part is one thing that a monitor does beside collecting: keep a history, push metrics, serve a socket. To add a part,
write a class with the methods of `Part`, a line in part_table.py, a section of the configuration, and, if Snapshots
show the part, a field of `MonitorView`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from msgspec import Struct

from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

    from pool_monitor.clock import Clock
    from pool_monitor.metrics import LiveMetrics
    from pool_monitor.metrics.collector import SecondListener
    from pool_monitor.metrics.gauges import GaugeBlock
    from pool_monitor.snapshot import PoolView, Snapshot, WorkerView
    from pool_monitor.tunable import Tunable


ItemT = TypeVar("ItemT")
ViewT = TypeVar("ViewT", bound=Struct)
SLICE_S = 0.002
"""Processor time that work on many things in the event loop takes at once."""


class Part(Protocol):
    """One part of a monitor. Its constructor only stores arguments; its work begins on entering and ends on leaving.

    It may have a ``held_bytes``, the memory that it holds now, in bytes. The monitor reads it every second, and the
    collector's windows give way for it.
    """

    async def __aenter__(self) -> Self:
        """Begin. Raises ConfigError for a wrong configuration; then entering the monitor fails too.

        After any other exception the part is tried again later. `PartUnavailable` is for failures outside the program:
        it is logged without a traceback.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End, within the limits of the runner."""

    def view(self) -> Struct | None:
        """What a Snapshot shows of the part, in the field of `MonitorView` with the part's name; None: nothing."""

    def tick(self) -> None:
        """Do the work of every second, in less than a millisecond. Raises when a background task has failed."""


class PartUnavailable(Exception):
    """A part cannot run now. The text is the reason."""


class Context(NamedTuple):
    """What a part may use of the monitor. It gives no access to the pools."""

    service: str
    """The name of the monitored service."""
    monitor: str
    """The id of the monitor, for the events of the part."""
    clock: Clock
    snapshot: Callable[[], Snapshot]
    """`Monitor.snapshot`: the Snapshot now, of five minutes."""
    snapshot_in_steps: Callable[[str], Iterator[Snapshot | None]]
    """The same, of the window that is given, where the pools need not be of one moment: yields None where others may
    work, and the Snapshot last. With ten pools, a Snapshot at once holds the event loop for 5 ms and more."""
    metrics: LiveMetrics
    """Queries of the last hour, in memory."""
    workers: Callable[[], Mapping[str, Sequence[WorkerView]]]
    """The gauges of the slots now, by pool: the processes to measure. A pool that cannot be read is left out."""
    pool_names: Sequence[str]
    """The names of the pools."""
    pool_instances: Mapping[str, str]
    """The ids of the pools that have one, by pool."""
    on_second: Callable[[SecondListener | None], None]
    """`Collector.on_second`: sets the single function that receives each second's block and failures."""
    know_errors: Callable[[Mapping[tuple[str, str], float]], None]
    """`GroupReader.know`: takes over when errors were first seen, from before the monitor was entered."""
    on_gauges: Callable[[Callable[[int, GaugeBlock], object] | None], None]
    """`Collector.on_gauges`: sets the single function that receives each second's readings of resources."""
    asgi: Callable[[], Starlette]
    """Makes the app of the monitor's HTTP interface."""
    degraded: Callable[[str, str], None]
    """``degraded(part, reason)`` emits ``monitor.degrade`` and logs. Call it once when an outage begins."""
    recovered: Callable[[str, str], None]
    """``recovered(part, what)`` does the same when the outage is over. *what* describes what works again."""
    outages: Callable[[], Mapping[str, str]]
    """Why each degraded part is degraded, by part."""
    alerts: Callable[[], Any]
    """The `alerts.manager.AlertManager` of the monitor. It outlives the part that drives it."""
    advisor: Callable[[], Any]
    """The `advisor.manager.Advisor` of the monitor."""
    tuner: Callable[[], Any]
    """The `tuner.manager.Tuner` of the monitor."""
    statuses: Callable[[], Iterator[PoolView]]
    """The gauges of every pool now. Pools whose gauges cannot be read are left out."""
    history: Callable[[], Any]
    """`Monitor.history`: queries of the history on disk (`storage.HistoryMetrics`); None while there is none."""
    record: Callable[[], Callable[..., None] | None]
    """`storage.part.HistoryPart.record`, which keeps an evaluation of alert rules; None while no history is kept."""
    tunables: Callable[[], Mapping[str, Sequence[Tunable]]]
    """What each pool offers to be changed while it runs, by pool: the only way back to a pool. A pool that offers
    nothing, or cannot be asked, is left out."""
    state: Callable[[], Any]
    """The `storage.shared_state.SharedState` of the monitor: what must survive a restart."""
    spent: Callable[[float], None]
    """Adds processor time that a thread of the part has spent, in seconds, to the monitor's own. For any thread."""


class Limits(NamedTuple):
    """How long the methods of a part may take, and how long the runner waits between tries. Seconds, except `slow`."""

    enter: float = 10.0
    """Longest time to enter a part. The history waits 5 s for its disk."""
    leave: float = 15.0
    """Longest time to leave a part. The history waits 10 s for its last flush, and a push may take 2 s."""
    cancel: float = 1.0
    """How long the runner waits for a part that it has cancelled."""
    sync: float = 0.25
    """Longest time for one `Part.tick` or `Part.view`."""
    slow: int = 3
    """A part fails when this many ticks or views in a row exceed `sync`. A machine that was asleep causes one."""
    pause: float = 1.0
    """First pause before a part is entered again. It applies again once a part has run for `pause_max`."""
    pause_max: float = 60.0
    """Longest pause before a part is entered again."""


def view_from(kind: type[ViewT], source: object) -> ViewT:
    """Return a *kind* with the attributes of *source* that its fields name."""
    return kind(**{name: getattr(source, name) for name in kind.__struct_fields__})


def raise_if_ended(task: asyncio.Task[Any]) -> None:
    """Raise the error that ended *task*, a background task that may end only when its part is left."""
    if task.done():
        raise error_of(task)


async def in_slices(items: Iterable[ItemT], spent: Callable[[float], None]) -> AsyncIterator[ItemT]:
    """Give *items* one by one. Whenever the work on them has taken `SLICE_S`, it is passed to *spent*, and others may
    use the event loop. So is what is left at the end.
    """
    began = time.thread_time()
    for item in items:
        if (held := time.thread_time() - began) > SLICE_S:
            spent(held)
            await asyncio.sleep(0)
            began = time.thread_time()
        yield item
    spent(time.thread_time() - began)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until *event* is set, for at most so many seconds. Returns whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    return event.is_set()


def error_of(task: asyncio.Task[Any]) -> Exception:
    """The error that ended *task*. A cancellation becomes a `PartUnavailable`, which does not cancel the caller."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        return error
    return PartUnavailable("its task has ended" if error is None else f"its task was ended by {describe(error)}")


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of *task*, so that asyncio does not log what is reported as degraded."""
    if not task.cancelled():
        task.exception()
