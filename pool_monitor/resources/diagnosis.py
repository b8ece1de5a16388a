"""From the figures of a sample to what is wrong: leaks, orphans and faults, added to the events of the sample."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pool_monitor import telemetry
from pool_monitor.clock import Clock
from pool_monitor.config import ResourcesConfig
from pool_monitor.events import LOOP_LAG, LOOP_RESUME, RESOURCE_LOOP
from pool_monitor.resources.block_fault import BlockFault
from pool_monitor.resources.fault_states import FaultChange
from pool_monitor.resources.faults import CONDITIONS, Condition, FaultWatch, execution_of
from pool_monitor.resources.orphans import OrphanWatch
from pool_monitor.resources.sample import Execution, Moment
from pool_monitor.resources.trends import LeakWatch
from pool_monitor.telemetry import EventName, Measurements, Metadata

_numbers = itertools.count()


class Diagnosis:
    """Judges every sample, and the event loop from its own events. One thread at a time calls `complete`."""

    def __init__(
        self,
        config: ResourcesConfig,
        clock: Clock,
        interval_s: float,
        *,
        conditions: Sequence[Condition] = CONDITIONS,
        orphans: OrphanWatch | None = None,
        monitor: str = "",
    ) -> None:
        self._clock, self._monitor = clock, monitor
        self._leaks = LeakWatch(interval_s)
        self._faults = FaultWatch(conditions)
        self._block = BlockFault(config.blocked_after, self._emit, self._on_block)
        watch = orphans or OrphanWatch(ending=config.orphans == "end")
        self._orphans = None if config.orphans == "off" else watch
        number = next(_numbers)
        self._handlers: dict[str, tuple[EventName, Callable[..., None]]] = {
            f"pool_monitor.resources.{number}.lag": (LOOP_LAG.name, self._on_lag),
            f"pool_monitor.resources.{number}.loop": (RESOURCE_LOOP.name, self._on_loop),
            f"pool_monitor.resources.{number}.loop_resume": (LOOP_RESUME.name, self._on_resume),
        }

    def attach(self) -> None:
        """Begin to take the events of the event loop."""
        for handler_id, (name, function) in self._handlers.items():
            telemetry.attach(handler_id, name, function)

    def close(self) -> None:
        """Take no more events. Every open fault is left, and emitted as that."""
        for handler_id in self._handlers:
            telemetry.detach(handler_id)
        self._block.close()
        for change in self._faults.book.close("measuring has ended"):
            self._emit(change)

    def complete(self, moment: Moment, executions: Sequence[Execution]) -> list[Execution]:
        """Return *executions* with the leaks of workers in them, and after them the faults that begin or end."""
        found = self._leaks.complete(moment, executions)
        orphans = () if self._orphans is None else self._orphans.look(moment.now_ns).values()
        wall_ns = self._clock.wall_ns()
        return found + [execution_of(change, wall_ns) for change in self._faults.judge(moment, found, orphans)]

    def _on_loop(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        if metadata.get("monitor", self._monitor) == self._monitor:
            self._block.begin(measurements, metadata)

    def _on_resume(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        if metadata.get("monitor", self._monitor) == self._monitor:
            self._block.end(measurements)

    def _on_lag(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        if metadata.get("monitor", self._monitor) != self._monitor:
            return  # of another monitor in this process, which may watch another event loop
        self._faults.add_lag(self._clock.monotonic_ns(), int(measurements["duration"]))

    def _on_block(self, where: str) -> None:
        self._faults.add_block(self._clock.monotonic_ns(), where)

    def _emit(self, change: FaultChange) -> None:
        execution = execution_of(change, self._clock.wall_ns())
        execution.spec.event.emit(execution.measurements, {**execution.metadata, "monitor": self._monitor})
