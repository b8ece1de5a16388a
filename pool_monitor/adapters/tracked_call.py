"""The state that an adapter keeps of a call, and of the slot that the call runs on. `CallTracker` changes it."""

from __future__ import annotations

import itertools
import time
from typing import TypeAlias

Holder: TypeAlias = int | tuple[int, int]
"""A worker that holds a slot: the id of a thread of this process, or the ids of another process and a thread in it."""

_ids = itertools.count(1 << 40)  # the ids of a Pool's calls begin at 1


class TrackedCall:
    """One call, from the moment it is made to its end. Times are monotonic nanoseconds."""

    __slots__ = ("attempts", "begun_ns", "id", "operation", "reported", "slot", "started_ns", "stopped_ns")

    def __init__(self, operation: str) -> None:
        self.id = next(_ids)
        self.operation = operation
        self.started_ns = time.monotonic_ns()
        self.begun_ns: int | None = None
        """When its latest attempt began to run; None if no beginning has been seen."""
        self.stopped_ns: int | None = None
        """When its latest attempt stopped running; None while it runs."""
        self.slot: WorkerSlot | None = None
        self.attempts = 0
        self.reported = False
        """Whether events are emitted for it; False if the relay had no room."""


class WorkerSlot:
    """One stable place of a pool, and the calls that run on it."""

    __slots__ = ("calls", "holder", "id", "last_ended", "number", "since_ns")

    def __init__(self, pool: str, number: int) -> None:
        self.id = f"{pool}-{number}"
        self.number = number
        self.calls: dict[int, TrackedCall] = {}
        self.holder: Holder | None = None
        self.last_ended = 0
        """The id of the call that ended on it last; 0 if no call has."""
        self.since_ns = 0
        """When it last became busy or idle; 0 if it never had a call."""

    @property
    def pid(self) -> int | None:
        """The id of the process that holds it; None for a thread of this process."""
        return self.holder[0] if isinstance(self.holder, tuple) else None
