"""Decides which state a worker's slot is in next. No I/O: time is passed in (monotonic nanoseconds)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pool_monitor.state_machine import StateMachine


class State(StrEnum):
    """The state of a slot; the values are those of `snapshot.WorkerState`."""

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
        "recycle": State.READY,
        "degrade": State.DEGRADED,
        "stop": State.TERMINATING,
        "exited": State.TERMINATED,
    },
    State.BUSY: {"checkin": State.READY, "stop": State.TERMINATING, "exited": State.TERMINATED},
    State.DEGRADED: {
        "recover": State.READY,
        "recycle": State.READY,
        "stop": State.TERMINATING,
        "exited": State.TERMINATED,
    },
    State.TERMINATING: {"exited": State.TERMINATED},
    State.TERMINATED: {"start": State.INITIALIZING},
}
"""``state -> trigger -> state``. What is not here is illegal."""

LIFECYCLE = StateMachine("worker", State.TERMINATED, TRANSITIONS)
"""The machine that every slot follows, from the day it is made."""

COUNTED_AS = {
    State.INITIALIZING: "starting",
    State.READY: "idle",
    State.BUSY: "busy",
    State.DEGRADED: "idle",
    State.TERMINATING: "draining",
    State.TERMINATED: "dead",
}
"""Which of the counts in `snapshot.PoolView` a state adds to."""


class Transition(NamedTuple):
    """One transition: from where to where, why, and when (monotonic nanoseconds)."""

    before: State
    after: State
    trigger: str
    at_ns: int


class Lifecycle:
    """The state of one slot, and since when (monotonic nanoseconds)."""

    __slots__ = ("since_ns", "state")

    def __init__(self, now_ns: int) -> None:
        self.state = LIFECYCLE.first
        self.since_ns = now_ns

    def step(self, trigger: str, now_ns: int) -> Transition:
        """Follow *trigger*. Raises IllegalTransition when it is not allowed in this state."""
        before = self.state
        after = TRANSITIONS[before].get(trigger)  # as LIFECYCLE.step, without the call: every call steps twice
        if after is None:
            raise LIFECYCLE.illegal(before, trigger)
        self.state, self.since_ns = after, now_ns
        return tuple.__new__(Transition, (before, after, trigger, now_ns))  # as Transition(...), in half the time
