"""A worker as the pool sees it: a slot, the table of its states, and the process that fills it at the moment."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from pool_monitor.pool.queue import WaitQueue

if TYPE_CHECKING:
    from pool_monitor.errors import ProtocolError
    from pool_monitor.pool.calls import Call
    from pool_monitor.pool.transport.base import Ready, Transport

_HISTORY = 32  # transitions a slot remembers


class State(StrEnum):
    """Where a slot stands; the values are those of `snapshot.WorkerState`."""

    __hash__ = str.__hash__  # Enum's own runs Python code, and every call looks states up six times

    INITIALIZING = "initializing"
    READY = "ready"
    BUSY = "busy"
    DEGRADED = "degraded"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


TRANSITIONS: dict[State, dict[str, State]] = {
    State.INITIALIZING: {"loaded": State.READY, "stop": State.TERMINATING, "exited": State.TERMINATED},
    State.READY: {
        "checkout": State.BUSY,
        "degrade": State.DEGRADED,
        "stop": State.TERMINATING,
        "exited": State.TERMINATED,
    },
    State.BUSY: {"checkin": State.READY, "stop": State.TERMINATING, "exited": State.TERMINATED},
    State.DEGRADED: {"recover": State.READY, "stop": State.TERMINATING, "exited": State.TERMINATED},
    State.TERMINATING: {"exited": State.TERMINATED},
    State.TERMINATED: {"start": State.INITIALIZING},
}
"""``state -> trigger -> state``. What is not here is illegal."""

COUNTED_AS = {
    State.INITIALIZING: "starting",
    State.READY: "idle",
    State.BUSY: "busy",
    State.DEGRADED: "idle",
    State.TERMINATING: "draining",
    State.TERMINATED: "dead",
}
"""Which of the counts in `snapshot.PoolView` a state adds to."""


class IllegalTransition(RuntimeError):
    """The table has no such transition: a defect of the pool, not of its user. Nothing was changed."""


class Moved(NamedTuple):
    """One transition: from where to where, why, and when (monotonic nanoseconds)."""

    before: State
    after: State
    trigger: str
    at_ns: int


class Lifecycle:
    """A position in `TRANSITIONS` and the last transitions that led there."""

    __slots__ = ("history", "since_ns", "state")

    def __init__(self, now_ns: int) -> None:
        self.state = State.TERMINATED
        self.since_ns = now_ns
        self.history: deque[Moved] = deque(maxlen=_HISTORY)

    def step(self, trigger: str, now_ns: int) -> Moved:
        """Follow *trigger*. Raises IllegalTransition when it is not allowed in this state."""
        after = TRANSITIONS[self.state].get(trigger)
        if after is None:
            raise IllegalTransition(f"{trigger!r} in state {self.state.value!r}")
        moved = Moved(self.state, after, trigger, now_ns)
        self.state, self.since_ns = after, now_ns
        self.history.append(moved)
        return moved


class Worker:
    """One slot of a pool. The slot's id is stable; processes come and go.

    Plain state: the pool changes it, on the event loop.
    """

    def __init__(self, pool: str, index: int, now_ns: int) -> None:
        self.id = f"{pool}-{index}"
        self.index = index
        self.lifecycle = Lifecycle(now_ns)
        self.wanted = True  # False: not to be replaced when it ends
        self.unwanted = asyncio.Event()  # set to wake a keeper that pauses between two tries
        self.transport: Transport | None = None
        self.ready: Ready | None = None
        self.call: Call | None = None  # what it is running; a call that has ended may still hold it up
        self.pinned: WaitQueue[Call] = WaitQueue()  # calls that insist on this slot
        self.processes = 0  # how many it has had, the present one included
        self.started_ns = now_ns  # of the present process
        self.died_ns: int | None = None  # of the last crash nobody has recovered from yet
        self.starts = 0  # tries since then
        self.end_reason: str | None = None  # why the process is being ended, if we end it
        self.broken: ProtocolError | None = None  # what its call is told when it spoke nonsense

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.lifecycle.state.value}>"
