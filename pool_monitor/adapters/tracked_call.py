"""The two records that an adapter keeps: a call, and the slot it runs on. Plain state: `CallTracker` changes it."""

from __future__ import annotations

import itertools
import time
from typing import TypeAlias

Holder: TypeAlias = int | tuple[int, int]
"""A worker that holds a slot: the id of a thread of this process, or the id of another process and a thread in it."""

_ids = itertools.count(1 << 40)  # those of a Pool's calls begin at 1


class TrackedCall:
    """One call, from the moment it is requested to its one end. Times are monotonic nanoseconds."""

    __slots__ = ("attempts", "begun_ns", "id", "operation", "reported", "slot", "started_ns", "stopped_ns")

    def __init__(self, operation: str) -> None:
        self.id = next(_ids)
        self.operation = operation
        self.started_ns = time.monotonic_ns()
        self.begun_ns: int | None = None
        """When its latest attempt began to run; None: none has been seen to."""
        self.stopped_ns: int | None = None
        """When that attempt stopped running; None while it runs."""
        self.slot: WorkerSlot | None = None
        self.attempts = 0
        self.reported = False
        """Whether events are emitted for it: not when the relay had no room."""


class WorkerSlot:
    """One stable place of a pool, and the calls that run on it."""

    __slots__ = ("calls", "holder", "id", "last_ended", "number", "since_ns")

    def __init__(self, pool: str, number: int) -> None:
        self.id = f"{pool}-{number}"
        self.number = number
        self.calls: dict[int, TrackedCall] = {}
        self.holder: Holder | None = None
        self.last_ended = 0
        """The id of the call that ended on it last; 0: none has."""
        self.since_ns = 0
        """When it became busy, or idle; 0: it never had a call."""

    @property
    def pid(self) -> int | None:
        """The process that holds it; None for a thread of this process."""
        return self.holder[0] if isinstance(self.holder, tuple) else None
