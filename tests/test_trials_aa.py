"""How often a change that changes nothing gets a wrong verdict, by kind of load, and how small a harm is found.

The calls of a run are drawn at once, and played through a queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pool_monitor.advisor.history import ERROR, OK, Calls, PoolHistory
from pool_monitor.advisor.replay import replay
from pool_monitor.tuner.comparison import TrialWindow, judge, plain_harm
from tests.helpers.gates import IN_GATES
from tests.helpers.trial_rig import history_of

AT, END, MOST = 620.0, 750.0, 130.0
Floats = NDArray[np.float64]
Rate = Callable[[Floats], Floats]


def steady(random: Any) -> Rate:
    return lambda times: np.full(len(times), 83.0)


def drift(random: Any) -> Rate:
    """A fifth more calls from the change on."""
    return lambda times: np.where(times < AT, 83.0, 99.6)


def bursty(random: Any) -> Rate:
    """50 and 100 calls a second by turns, for 20 s each in the mean."""
    switches = np.cumsum(random.exponential(20, 200))
    return lambda times: np.where(np.searchsorted(switches, times) % 2, 50.0, 100.0)


def drawn(seed: int, load: Callable[[Any], Rate], slower: float = 1.0, cv: float = 1.0) -> tuple[Floats, int]:
    """Rows of arrival, start, end and outcome, in the order of the ends; and the size of the pool. 1 % fails, and a
    few times half of the calls fail for 5 s.
    """
    random = np.random.default_rng(seed)
    size = 11 if load is bursty else 10
    times = np.cumsum(random.exponential(1 / MOST, int(END * MOST * 1.1)))
    times = times[times < END]
    times = times[random.random(len(times)) < load(random)(times) / MOST]
    sigma = np.sqrt(np.log(1 + cv * cv))
    services = 0.1 * random.lognormal(-sigma * sigma / 2, sigma, len(times))
    services = np.where(times >= AT, services * slower, services)
    started = times + replay(times, services, size)
    failed = random.random(len(times)) < 0.01
    for burst in random.random(random.poisson(2.5)) * END:
        failed |= (times > burst) & (times < burst + 5) & (random.random(len(times)) < 0.5)
    rows = np.stack([times, started, started + services, np.where(failed, ERROR, OK)], 1)
    return rows[np.argsort(rows[:, 2], kind="stable")], size


def seen(rows: Floats, size: int, now: float) -> PoolHistory:
    """What is known at *now*."""
    mine = rows[rows[:, 2] <= now]
    none = np.full(len(mine), -1, dtype=np.int32)
    kinds = np.zeros(len(mine), dtype=np.int32)
    calls = Calls(mine[:, 0], mine[:, 1], mine[:, 2], kinds, none, mine[:, 3].astype(np.int32), none)
    count = int(now)
    arrivals = np.bincount(rows[:, 0].astype(int), minlength=int(END) + 10)[:count].astype(float)
    seconds = np.stack([arrivals, np.full(count, float(size)), np.zeros(count)], 1)
    return history_of(calls, now, seconds, 0.1, size)


def verdict(rows: Floats, size: int) -> str:
    """The verdict of a trial of a setting that is no size."""
    window = TrialWindow("other", 1, 2, AT - 600, AT, AT + 10, 300)
    for now in np.arange(AT + 5, END + 1, 5.0):
        if plain_harm(seen(rows, size, float(now)), window):
            return "harm"
    return judge(seen(rows, size, END), window).verdict


@pytest.mark.parametrize(
    ("load", "seeds"),
    [
        pytest.param(steady, 15, marks=IN_GATES),
        pytest.param(drift, 15, marks=IN_GATES),
        pytest.param(bursty, 15, marks=IN_GATES),
    ],
)
def test_a_change_that_changes_nothing_gets_no_verdict_of_harm_or_good(load: Any, seeds: int) -> None:
    wrong = [seed for seed in range(seeds) if verdict(*drawn(seed, load)) != "no_harm"]
    assert len(wrong) <= seeds // 15, wrong


@pytest.mark.parametrize(
    ("slower", "expected", "seeds"),
    [
        (1.25, "harm", 1),
        pytest.param(1.1, "harm", 8, marks=IN_GATES),
        pytest.param(0.9, "better", 8, marks=IN_GATES),
    ],
)
def test_calls_that_take_longer_or_less_are_noticed(slower: float, expected: str, seeds: int) -> None:
    missed = [seed for seed in range(seeds) if verdict(*drawn(seed, steady, slower, 0.5)) != expected]
    assert len(missed) <= seeds // 8, missed
