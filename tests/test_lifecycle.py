"""The worker lifecycle: transitions in the table happen; all others raise and change nothing."""

from __future__ import annotations

import random
from itertools import product
from typing import get_args

import pytest

from pool_monitor.pool.policy.lifecycle import COUNTED_AS, LIFECYCLE, TRANSITIONS, Lifecycle, State
from pool_monitor.pool.policy.restarts import Backoff
from pool_monitor.snapshot import PoolView, WorkerState
from pool_monitor.state_machine import IllegalTransition

TRIGGERS = sorted({trigger for row in TRANSITIONS.values() for trigger in row})
ALLOWED = {
    ("initializing", "loaded"): "ready",
    ("initializing", "stop"): "terminating",
    ("initializing", "exited"): "terminated",
    ("ready", "checkout"): "busy",
    ("ready", "degrade"): "degraded",
    ("ready", "recycle"): "ready",
    ("ready", "stop"): "terminating",
    ("ready", "exited"): "terminated",
    ("busy", "checkin"): "ready",
    ("busy", "stop"): "terminating",
    ("busy", "exited"): "terminated",
    ("degraded", "recover"): "ready",
    ("degraded", "recycle"): "ready",
    ("degraded", "stop"): "terminating",
    ("degraded", "exited"): "terminated",
    ("terminating", "exited"): "terminated",
    ("terminated", "start"): "initializing",
}


@pytest.mark.parametrize(("state", "trigger"), list(product(State, [*TRIGGERS, "no such trigger"])))
def test_every_state_meets_every_trigger(state: State, trigger: str) -> None:
    lifecycle = Lifecycle(100)
    lifecycle.state = state
    after = ALLOWED.get((state.value, trigger))
    if after is None:
        with pytest.raises(IllegalTransition, match=rf"'{trigger}' in state '{state.value}'"):
            lifecycle.step(trigger, 200)
        assert (lifecycle.state, lifecycle.since_ns) == (state, 100)
    else:
        assert lifecycle.step(trigger, 200) == lifecycle.state == State(after)
        assert lifecycle.since_ns == 200
        assert (lifecycle.state, lifecycle.since_ns) == (State(after), 200)


def test_every_state_can_be_reached_from_a_new_slot_and_every_state_can_end() -> None:
    assert LIFECYCLE.reachable(Lifecycle(0).state) == set(State)
    assert all(State.TERMINATED in LIFECYCLE.reachable(state) for state in State)


def test_states_are_those_of_the_snapshot_and_each_is_counted() -> None:
    assert {state.value for state in State} == set(get_args(WorkerState))
    assert set(COUNTED_AS) == set(State)
    assert set(COUNTED_AS.values()) <= set(PoolView.__struct_fields__)


def test_pauses_between_starts_grow_stay_in_bounds_and_begin_anew() -> None:
    backoff = Backoff(0.1, 2.0, random.Random())
    pauses = [backoff.next() for _ in range(200)]
    assert all(0.1 <= pause <= 2.0 for pause in pauses)
    assert max(pauses) > 0.3
    backoff.reset()
    assert backoff.next() <= 0.3
