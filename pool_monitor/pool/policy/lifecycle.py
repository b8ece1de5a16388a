"""Decides the next state of a worker's slot. No I/O: time is passed in (monotonic nanoseconds)."""

from __future__ import annotations

from enum import StrEnum

from pool_monitor.state_machine import StateMachine


class State(StrEnum):
    """The state of a slot; the values are those of `snapshot.WorkerState`."""

    __hash__ = str.__hash__  # Enum's runs Python code, and every call looks up states six times

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
"""``state -> trigger -> state``. All other transitions are illegal."""

LIFECYCLE = StateMachine("worker", State.TERMINATED, TRANSITIONS)
"""The state machine that every slot follows from its creation."""

COUNTED_AS = {
    State.INITIALIZING: "starting",
    State.READY: "idle",
    State.BUSY: "busy",
    State.DEGRADED: "idle",
    State.TERMINATING: "draining",
    State.TERMINATED: "dead",
}
"""The count of `snapshot.PoolView` that each state adds to."""


class Lifecycle:
    """The state of one slot, and the time of its last transition (monotonic nanoseconds)."""

    __slots__ = ("since_ns", "state")

    def __init__(self, now_ns: int) -> None:
        self.state = LIFECYCLE.first
        self.since_ns = now_ns

    def step(self, trigger: str, now_ns: int) -> State:
        """Follow *trigger*, and return the new state. Raises IllegalTransition if it is not allowed in this state."""
        after = TRANSITIONS[self.state].get(trigger)  # as LIFECYCLE.step, without the call: every call steps twice
        if after is None:
            raise LIFECYCLE.illegal(self.state, trigger)
        self.state, self.since_ns = after, now_ns
        return after
