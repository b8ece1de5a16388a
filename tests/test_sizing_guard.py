"""The guard of the size: it takes a growth back that has made calls slower, and no other."""

from __future__ import annotations

import random

import pytest

from pool_monitor.tuner.observation import EndedCall
from pool_monitor.tuner.sizing import SizePolicy
from pool_monitor.tuner.sizing.guard import GUARD, Guard, GuardState
from pool_monitor.tuner.sizing.service import StartCohorts
from tests.helpers.sized import QUIET, Load, live


class Scene:
    """A guard that is shown sizes, and calls whose mean time the test says."""

    def __init__(self) -> None:
        self.guard, self.cohorts, self.now, self._chance = Guard(), StartCohorts(), 0.0, random.Random(7)

    def second(self, size: int, mean: float, calls: int = 80) -> GuardState:
        self.now += 1
        times = [self._chance.expovariate(1 / mean) for _ in range(calls)]
        self.cohorts.observe([EndedCall(self.now - 1, self.now - 1, self.now - 1 + time) for time in times])
        self.guard.look(self.now, size, mean, 2.0, self.cohorts)
        return self.guard.state

    def seconds(self, count: int, size: int, mean: float, calls: int = 80) -> list[GuardState]:
        return [self.second(size, mean, calls) for _ in range(count)]


def test_a_growth_after_which_calls_take_as_long_as_before_is_harmless() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1)
    states = scene.seconds(20, 16, 0.1)
    assert states[0] is GuardState.CHECKING
    assert states[-1] is GuardState.WATCHING
    assert scene.guard.rollbacks == 0


def test_a_growth_that_makes_calls_slower_and_no_more_of_them_is_taken_back() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1)
    scene.seconds(3, 16, 0.1)
    while scene.second(16, 0.2) is not GuardState.ROLLED_BACK:
        assert scene.now < 30
    assert scene.guard.ceiling == 10
    assert scene.guard.limit(scene.now, 16, 2.0) == 10
    assert scene.guard.why() == "above 10 workers calls became slower"


def test_a_ceiling_ends_after_two_minutes_and_growth_beyond_it_is_small() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1)
    scene.seconds(3, 16, 0.1)
    while scene.second(16, 0.2) is not GuardState.ROLLED_BACK:
        assert scene.now < 60
    scene.seconds(118, 10, 0.1)
    assert scene.guard.state is GuardState.ROLLED_BACK
    scene.seconds(3, 10, 0.1)
    assert scene.guard.state is GuardState.WATCHING
    assert scene.guard.limit(scene.now, 10, 2.0) == 12
    scene.seconds(3, 12, 0.1)
    scene.seconds(20, 12, 0.1)
    assert scene.guard.limit(scene.now, 12, 2.0) is None, "a small growth that was harmless opens the way again"


def test_a_second_ceiling_stands_twice_as_long() -> None:
    scene = Scene()
    lengths = []
    for _ in range(2):
        scene.seconds(10, 10, 0.1)
        scene.seconds(3, 16, 0.1)
        while scene.second(16, 0.3) is not GuardState.ROLLED_BACK:
            assert scene.now < 1000
        began = scene.now
        while scene.second(10, 0.1) is GuardState.ROLLED_BACK:
            assert scene.now < 1000
        lengths.append(scene.now - began)
    assert lengths == [120, 240]


def test_a_rollback_after_which_calls_are_as_slow_as_before_was_wrong_and_is_lifted() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1)
    scene.seconds(3, 16, 0.1)
    while scene.second(16, 0.2) is not GuardState.ROLLED_BACK:
        assert scene.now < 60
    states = scene.seconds(20, 10, 0.2)
    assert GuardState.IMMUNE in states
    assert scene.guard.false_rollbacks == 1
    assert scene.guard.ceiling is None


def test_too_few_calls_judge_nothing() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1, calls=1)
    states = scene.seconds(60, 16, 1.0, calls=1)
    assert GuardState.ROLLED_BACK not in states
    assert states[-1] is GuardState.WATCHING


def test_a_gap_ends_an_episode_and_leaves_a_ceiling() -> None:
    scene = Scene()
    scene.seconds(10, 10, 0.1)
    assert scene.second(16, 0.1) is GuardState.CHECKING
    scene.guard.gap()
    assert scene.guard.state is GuardState.WATCHING
    assert scene.second(16, 0.1) is GuardState.WATCHING


def test_every_state_of_the_guard_can_be_reached_and_left() -> None:
    assert GUARD.reachable(GUARD.first) == set(GuardState)
    assert all(GUARD.table[state] for state in GuardState)


@pytest.mark.parametrize("cores", [8])
def test_a_pool_whose_workers_share_a_bottleneck_does_not_grow_without_end(cores: int) -> None:
    def service(chance: random.Random, busy: int, _now: float) -> float:
        crowd = max(1.0, busy / cores * (1 + 0.05 * (busy - cores)))
        return chance.expovariate(10.0) * crowd

    load = Load(lambda now: 100.0 if 40 <= now < 80 else 50.0, service)
    policy = SizePolicy()
    life = live(policy, load, 120, first=QUIET._replace(size=8))
    assert policy.guard.rollbacks == 1
    assert life.sizes[-1] <= 2 * cores


def test_calls_that_have_become_slower_by_themselves_take_no_growth_back() -> None:
    def service(chance: random.Random, _busy: int, now: float) -> float:
        return chance.expovariate(10.0) * (2.5 if now >= 40 else 1.0)

    policy = SizePolicy()
    live(policy, Load(lambda _now: 50.0, service), 120, first=QUIET._replace(size=8))
    assert policy.guard.rollbacks == 0
