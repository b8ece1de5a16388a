"""The plug for a part of the monitor: what a part brings, and what it is handed.

A part is one thing that a monitor does beside collecting: keep a history, push metrics, serve a socket. To add one,
write a class with the methods of `Part`, a line in part_table.py, a section of the configuration, and a
field of `MonitorView` if it has something to show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from msgspec import Struct

from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

    from pool_monitor.clock import Clock
    from pool_monitor.metrics import LiveMetrics
    from pool_monitor.metrics.block import Block
    from pool_monitor.metrics.series import Names
    from pool_monitor.snapshot import Snapshot


class Part(Protocol):
    """One part of a monitor. Its constructor only stores; entering it begins its work, leaving it ends that."""

    async def __aenter__(self) -> Self:
        """Begin. Raises ConfigError for a wrong configuration, which ends the entering of the monitor.

        Anything else that is raised is a failure of the outside, or a defect: the part is tried again later.
        `PartUnavailable` says so without a traceback in the log.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End, within the limits of the host."""

    def view(self) -> Struct | None:
        """What a Snapshot shows of the part, as the field of `MonitorView` with its name; None: nothing."""

    def tick(self) -> None:
        """Do what is due once a second, in less than a millisecond. Raises when a background task has failed."""


class PartUnavailable(Exception):
    """A part cannot run now, for the reason that is its text."""


class Context(NamedTuple):
    """What a part may use of the monitor. The pools are out of its reach."""

    service: str
    """The name of the monitored service."""
    clock: Clock
    snapshot: Callable[[], Snapshot]
    metrics: LiveMetrics
    """Questions about the last hour, in memory."""
    on_second: Callable[[Callable[[int, Block, Names], object] | None], None]
    """`Collector.on_second`: sets the one listener that gets each second's block."""
    asgi: Callable[[], Starlette]
    """Makes the app of the monitor's HTTP face."""
    degraded: Callable[[str, str], None]
    """``degraded(part, reason)`` emits ``monitor.degrade`` and logs. To be called once when an outage begins."""
    recovered: Callable[[str, str], None]
    """``recovered(part, what)`` does the same when the outage is over; *what* says what works again."""


class Limits(NamedTuple):
    """How much a part may take, in seconds."""

    enter: float = 10.0
    """To be entered. The history waits 5 s for its disk."""
    leave: float = 15.0
    """To be left. The history waits 10 s for its last flush, and a push may take 2 s."""
    cancel: float = 1.0
    """To end after it has been cancelled, before it stays behind."""
    sync: float = 0.25
    """For one `Part.tick` or `Part.view`."""
    slow: int = 3
    """So many in a row that take longer are a failure; a machine that was asleep makes one."""
    pause: float = 1.0
    pause_max: float = 60.0
    """Pause before a part is entered again: the first, and the longest. The pause is the first one again when a part
    has run for the longest."""


def raise_if_ended(task: asyncio.Task[Any]) -> None:
    """Raise what has ended *task*, a background task that ends only when its part is left."""
    if task.done():
        raise error_of(task)


def error_of(task: asyncio.Task[Any]) -> Exception:
    """What has ended *task*, as an error that is no cancellation of whoever raises it."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        return error
    return PartUnavailable("its task has ended" if error is None else f"its task was ended by {describe(error)}")
