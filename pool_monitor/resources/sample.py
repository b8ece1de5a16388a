"""What a sampler is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pool_monitor.emit import PoolIdentity
from pool_monitor.events import EventSpec
from pool_monitor.snapshot import WorkerView

UNREADABLE = (OSError, ValueError, LookupError)
"""What reading /proc raises when something is not there, not allowed, or not as expected; psutil's errors are added
where it is used."""


class Slot(NamedTuple):
    """One slot whose process is to be measured."""

    pool: PoolIdentity
    worker: WorkerView


class Moment(NamedTuple):
    """The state of the service when a sample is taken, read on the event loop."""

    now_ns: int
    """The monotonic clock."""
    slots: Sequence[Slot]
    tasks: int | None = None
    oldest_task_ns: int | None = None


class Execution(NamedTuple):
    """One event to emit."""

    spec: EventSpec
    measurements: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(slots=True)
class Reading:
    """The figures of one subject, and why others are missing."""

    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, read: Callable[[], Any]) -> None:
        """Store what *read* returns under *name*; None, or an error of reading, leaves it out with a reason."""
        try:
            value = read()
        except UNREADABLE as error:
            self.missing[name] = f"{type(error).__name__}: {error}"[:200]
            return
        if value is not None:
            self.values[name] = value


class Sampler(Protocol):
    """Measures one kind of resource."""

    def sample(self, moment: Moment) -> Sequence[Execution]:
        """Read now. Runs in a thread, may block for milliseconds, and never raises for what cannot be read."""
