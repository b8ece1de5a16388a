"""Slow operations over time: what is over, what was always so, and what the first minutes say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pool_monitor.advisor.extracts import served
from pool_monitor.advisor.former_times import FormerStretch, former_stretches, is_new
from pool_monitor.advisor.history import Calls, PoolHistory
from pool_monitor.advisor.patterns.slow_operation import slow_operation
from tests.helpers.worked_calls import Work

ALWAYS = math.inf


def _work(seconds: float, *at_times: tuple[float, float, float], rate: float = 1.5, **more: Any) -> Work:
    return Work(
        rate=rate, operations={"work": (1.0, 0.1, 0.7)}, seconds=seconds, at_times=at_times, **({"size": 3} | more)
    )


def _found(history: PoolHistory) -> list[str]:
    return [detection.subject for detection in slow_operation(history)]


def _forgetful(history: PoolHistory, calls: int) -> PoolHistory:
    """The same history, of which only the latest calls are in the buffer."""
    return history._replace(calls=Calls(*(column[-calls:] for column in history.calls)))


SILENT = {
    "quick in the first five minutes": _work(1_500, (0, 300, 0.5)),
    "quick in the first ten minutes": _work(2_400, (0, 600, 0.5)),
    "slow in the first ten minutes": _work(2_400, (0, 600, 3.0)),
    "slower after a quarter of an hour, and too little known": _work(1_500, (900, ALWAYS, 2.0)),
    "an hour with a hot cache": _work(9_000, (3_600, 7_200, 0.4)),
    "half an hour in which calls fail at once": _work(6_300, (2_400, 4_200, 0.05)),
    "a slowness that is over": _work(7_200, (3_600, 6_000, 1.6)),
    "a slowness of a few minutes": _work(7_200, (6_300, 6_600, 3.0)),
    "a bad minute": _work(7_200, (4_200, 4_320, 20.0), size=30),
}
TOLD = {
    "slow after twenty minutes": _work(2_400, (1_200, ALWAYS, 1.6)),
    "slow after a hot cache": _work(9_000, (2_400, 4_200, 0.5), (7_200, ALWAYS, 1.6)),
    "slow for the second time": _work(9_000, (2_400, 3_600, 1.6), (7_200, ALWAYS, 1.6)),
    "slow at the end of an hour of slowness": _work(7_200, (3_600, ALWAYS, 1.6)),
    "a few calls that take long": _work(5_400, long_calls=(0.05, 15.0, 3_000.0), size=8),
}


@pytest.mark.parametrize("work", SILENT.values(), ids=SILENT.keys())
def test_what_is_usual_or_over_is_no_slow_operation(work: Work) -> None:
    assert _found(work.history()) == []


@pytest.mark.parametrize("work", TOLD.values(), ids=TOLD.keys())
def test_what_is_new_and_goes_on_is_a_slow_operation(work: Work) -> None:
    assert _found(work.history()) == ["operation work"]


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (SILENT["an hour with a hot cache"], []),
        (SILENT["half an hour in which calls fail at once"], []),
        (_work(5_400, (0, 900, 0.6)), []),
        (TOLD["slow after a hot cache"], ["operation work"]),
        (TOLD["slow for the second time"], ["operation work"]),
    ],
)
def test_times_are_remembered_that_the_buffer_has_no_calls_of(work: Work, expected: list[str]) -> None:
    history = work.history()
    assert _found(_forgetful(history, 3_000)) == expected


@pytest.mark.parametrize(
    ("levels", "lasted", "new"),
    [
        ([0.0] * 4, 0.0, True),
        ([1.0, 1.0, 0.0, 0.0], 0.0, False),
        ([1.0, 0.0, 0.0, 0.0], 0.0, True),
        ([0.0, 0.0, 1.0, 1.0], 0.0, True),
        ([0.6, 0.6, 0.0, 0.0], 0.0, False),
        ([0.4, 0.4, 0.0, 0.0], 0.0, True),
        ([1.0] * 4, 0.0, False),
        ([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.0, False),
        ([0.0] * 4, 9_000.0, True),
        ([0.0] * 4, 9_900.0, False),
        ([], 0.0, False),
    ],
)
def test_a_level_is_new_if_it_was_rare_and_enough_is_known(levels: list[float], lasted: float, new: bool) -> None:
    former = [FormerStretch(600.0, level) for level in levels]
    assert is_new(former, 1.0, 1.0, lasted) is new


def test_the_same_hours_of_days_before_stand_for_themselves() -> None:
    history = _work(1_800).history()
    hours = np.arange(72) * 3600.0
    calls = np.full((72, 6), 300.0)
    night = (np.arange(72) % 24) < 6
    levels = np.where(night, 2.0, 0.0)[:, None] + np.zeros(6)
    long = history.by_operation[0]._replace(hours=hours, span_calls=calls, span_levels=levels)
    for now, level in ((72 + 3, 2.0), (72 + 12, 0.0)):
        found = former_stretches(long, served(history.calls), 0.0, now * 3600.0, now * 3600.0)
        assert len(found) >= 36
        assert {one.level for one in found} == {level}
