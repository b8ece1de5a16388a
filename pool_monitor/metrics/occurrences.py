"""What is counted beside calls: events of pools, each a counter that only grows. `COUNTED` says which.

They are counted from the moment the collector was attached, and are in no window and no history. Labels come from a
list of what they can be; anything else counts as `OTHER`, so the number of counters does not depend on what is emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pool_monitor import events, telemetry
from pool_monitor.errors import Category
from pool_monitor.events import EventSpec
from pool_monitor.snapshot import Breaker, Health
from pool_monitor.telemetry import FAILURES, EventName, HandlerFunction, Measurements, Metadata

OTHER = "other"


class Counted(NamedTuple):
    """One event and the counters it makes."""

    name: str
    """Of the metric, without its prefix and ``_total``."""
    help: str
    spec: EventSpec
    label: str = ""
    """The key of the metadata that tells its counters apart, and the label; empty: there is one counter."""
    values: tuple[str, ...] = ()
    """What the label can be. These counters are there from the start, that of `OTHER` once it is above 0."""
    amount: str = ""
    """The measurement that is added up; empty: events are counted."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Values of the label, one per counter; one empty value where there is no label."""
        return (*self.values, OTHER) if self.label else ("",)


COUNTED = (
    Counted(
        "retries",
        "Calls that were sent again after an attempt had failed, by what kind of thing failed.",
        events.POOL_RETRY,
        "category",
        get_args(Category),
    ),
    Counted(
        "breaker_transitions",
        "How often the circuit breaker entered a state.",
        events.BREAKER_TRANSITION,
        "to",
        get_args(Breaker),
    ),
    Counted(
        "worker_recycles",
        "Worker processes that were replaced as planned, by why.",
        events.WORKER_RECYCLE,
        "reason",
        ("calls", "age", "rss", "restart"),
    ),
    Counted(
        "worker_health_checks",
        "Signs of life that workers were asked for, by what came of it; all but responsive were missed.",
        events.WORKER_HEALTH_CHECK,
        "verdict",
        get_args(Health),
    ),
    Counted(
        "worker_log_lines",
        "Lines that targets wrote to the log they are given.",
        events.WORKER_LOG,
        "level",
        ("debug", "info", "warning", "error", "critical"),
    ),
    Counted(
        "worker_messages_dropped",
        "Events and log lines of targets that were lost, because sending them would have made the target wait.",
        events.WORKER_DROP,
        amount="count",
    ),
    Counted("sessions_started", "Sessions that were used for the first time.", events.SESSION_START),
    Counted("sessions_ended", "Sessions that their owner ended.", events.SESSION_END),
    Counted(
        "sessions_expired",
        "Sessions that were dropped, by why: unused for too long, or the oldest of too many.",
        events.SESSION_EXPIRE,
        "reason",
        ("ttl", "limit"),
    ),
)

_STARTS = np.cumsum([0, *(len(counted.columns) for counted in COUNTED)]).tolist()
COLUMNS: int = _STARTS[-1]
"""Counters per pool."""

Counters: TypeAlias = NDArray[np.int64]
"""Shape (pools, COLUMNS)."""


def by_counted(counters: Counters) -> Iterator[tuple[Counted, list[list[int]]]]:
    """The counters of each of `COUNTED`: a list per pool, in the order of its `columns`."""
    for counted, start in zip(COUNTED, _STARTS, strict=False):
        yield counted, counters[:, start : start + len(counted.columns)].tolist()


class Occurrences:
    """The counters of *pools*. Events that cannot be read go to *leave_out*, those of other pools nowhere."""

    def __init__(self, pools: Sequence[str], leave_out: Callable[[BaseException], object]) -> None:
        self.counters: Counters = np.zeros((len(pools), COLUMNS), np.int64)
        self._places = {pool: place for place, pool in enumerate(pools)}
        self._leave_out = leave_out
        self.handlers: dict[str, tuple[EventSpec, HandlerFunction]] = {
            counted.name: (counted.spec, self._handler(counted, start))
            for counted, start in zip(COUNTED, _STARTS, strict=False)
        }
        """What to attach, by the end of an id."""

    def _handler(self, counted: Counted, start: int) -> HandlerFunction:
        columns = {value: start + number for number, value in enumerate(counted.columns)}
        last = start + len(columns) - 1

        def count(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            try:
                place = self._places.get(metadata["pool"])
                column = columns.get(metadata[counted.label], last) if counted.label else start
                amount = measurements[counted.amount] if counted.amount else 1
                if place is not None:
                    self.counters[place, column] += int(amount) * telemetry.weight(counted.spec.name)
            except FAILURES as error:
                self._leave_out(error)

        return count
