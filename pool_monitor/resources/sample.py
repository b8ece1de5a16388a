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


class Unknown(ValueError):
    """A figure cannot be known now. The text is the reason, for a person."""


def reason_of(error: BaseException) -> str:
    """Why a figure could not be read, in a few words of one line."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, TimeoutError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, (Unknown, TimeoutError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return one_line(text, 200) or type(error).__name__


def one_line(text: str, most: int) -> str:
    """Return at most *most* printable characters of *text*, on one line. Of a long text, only the beginning is read."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 5 * most]).split())[:most]


class Slot(NamedTuple):
    """One slot whose process is to be measured."""

    pool: PoolIdentity
    worker: WorkerView


class Moment(NamedTuple):
    """The state of the service when a sample is taken, read on the event loop."""

    now_ns: int
    """The monotonic clock, read in the sampling thread just before the samplers run."""
    slots: Sequence[Slot]
    tasks: int | None = None
    """Tasks of the event loop that have not ended."""
    oldest_task_ns: int | None = None
    """Since the oldest of these tasks was first seen."""
    interval_ns: int = 10**9
    """The time between samples, as it is set now."""


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
        """Store what *read* returns under *name*; an error of reading leaves it out with a reason, None leaves it out
        without one.
        """
        try:
            value = read()
        except UNREADABLE as error:
            self.missing[name] = reason_of(error)
            return
        if value is not None:
            self.values[name] = value

    def take_all(self, names: Sequence[str], read: Callable[[], Sequence[Any]]) -> None:
        """Store several figures that are read together. An error of reading leaves all of them out."""
        try:
            values = read()
        except UNREADABLE as error:
            self.missing.update(dict.fromkeys(names, reason_of(error)))
            return
        self.values.update((name, value) for name, value in zip(names, values, strict=True) if value is not None)


class Sampler(Protocol):
    """Measures one kind of resource."""

    def sample(self, moment: Moment) -> Sequence[Execution]:
        """Read now. Runs in a thread, may block for milliseconds, and never raises for what cannot be read."""
