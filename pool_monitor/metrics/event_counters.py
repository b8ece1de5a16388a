"""Counters of events other than calls. `COUNTERS` lists them. Each only grows.

Counting begins when the collector is attached. No window and no history has these counters. The values of a label are
fixed; any other value counts as `OTHER`, so the number of counters does not depend on the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pool_monitor import events, telemetry
from pool_monitor.errors import Category
from pool_monitor.events import EventSpec
from pool_monitor.metrics.series import RowRegistry
from pool_monitor.snapshot import Breaker, Health
from pool_monitor.telemetry import FAILURES, EventName, HandlerFunction, Measurements, Metadata

OTHER = "other"


class CounterSpec(NamedTuple):
    """An event, and the counters that it increments."""

    name: str
    """The name of the metric, without its prefix and ``_total``."""
    help: str
    spec: EventSpec
    label: str = ""
    """The label, which is also a key of the metadata: there is one counter per value. Empty: there is one counter."""
    values: tuple[str, ...] = ()
    """Values of the label. Their counters exist from the start; the counter of `OTHER` is exported once above 0."""
    amount: str = ""
    """The measurement to add up; empty: count events."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Values of the label, one per counter; one empty value if there is no label."""
        return (*self.values, OTHER) if self.label else ("",)


COUNTERS = (
    CounterSpec(
        "retries",
        "Calls that were sent again after a failed attempt, by category of the error.",
        events.POOL_RETRY,
        "category",
        get_args(Category),
    ),
    CounterSpec(
        "breaker_transitions",
        "Transitions of the circuit breaker, by the state that it entered.",
        events.BREAKER_TRANSITION,
        "to",
        get_args(Breaker),
    ),
    CounterSpec(
        "worker_recycles",
        "Worker processes that were replaced as planned, by reason.",
        events.WORKER_RECYCLE,
        "reason",
        ("calls", "age", "rss", "restart"),
    ),
    CounterSpec(
        "worker_health_checks",
        "Checkups of workers, by verdict; every verdict except responsive is a missed checkup.",
        events.WORKER_HEALTH_CHECK,
        "verdict",
        get_args(Health),
    ),
    CounterSpec(
        "worker_log_lines",
        "Lines that targets wrote to their log.",
        events.WORKER_LOG,
        "level",
        ("debug", "info", "warning", "error", "critical"),
    ),
    CounterSpec(
        "worker_messages_dropped",
        "Events and log lines of targets that were dropped because sending them would have made the target wait.",
        events.WORKER_DROP,
        amount="count",
    ),
    CounterSpec("sessions_started", "Sessions that were used for the first time.", events.SESSION_START),
    CounterSpec("sessions_ended", "Sessions that were ended explicitly.", events.SESSION_END),
    CounterSpec(
        "sessions_expired",
        "Sessions that were dropped, by reason: unused for too long (ttl), or the oldest of too many (limit).",
        events.SESSION_EXPIRE,
        "reason",
        ("ttl", "limit"),
    ),
)

_STARTS = np.cumsum([0, *(len(counter.columns) for counter in COUNTERS)]).tolist()
COLUMNS: int = _STARTS[-1]
"""Counters per pool."""

CounterValues: TypeAlias = NDArray[np.int64]
"""Shape (pools, COLUMNS)."""


def by_counter(counters: CounterValues) -> Iterator[tuple[CounterSpec, list[list[int]]]]:
    """Each of `COUNTERS` with its values: a list per pool, in the order of `CounterSpec.columns`."""
    for counter, start in zip(COUNTERS, _STARTS, strict=False):
        yield counter, counters[:, start : start + len(counter.columns)].tolist()


class EventCounters:
    """The counters of the pools of *registry*. Events of other pools are ignored.

    *drop* is called for an event that cannot be read.
    """

    def __init__(self, registry: RowRegistry, drop: Callable[[BaseException], object]) -> None:
        self.counters: CounterValues = np.zeros((len(registry.pools), COLUMNS), np.int64)
        self._registry = registry
        self._drop = drop
        self.handlers: dict[str, tuple[EventSpec, HandlerFunction]] = {
            counter.name: (counter.spec, self._handler(counter, start))
            for counter, start in zip(COUNTERS, _STARTS, strict=False)
        }
        """The handlers to attach, with their events, by the last part of the handler id."""

    def _handler(self, counter: CounterSpec, start: int) -> HandlerFunction:
        columns = {value: start + number for number, value in enumerate(counter.columns)}
        last = start + len(columns) - 1

        def count(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            try:
                pool = metadata["pool"]
                collected = self._registry.is_collected(pool, metadata.get("pool_instance"))
                column = columns.get(metadata[counter.label], last) if counter.label else start
                amount = measurements[counter.amount] if counter.amount else 1
                if collected:
                    place = self._registry.pools.index(pool)
                    self.counters[place, column] += int(amount) * telemetry.weight(counter.spec.name)
            except FAILURES as error:
                self._drop(error)

        return count
