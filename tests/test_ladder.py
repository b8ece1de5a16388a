"""The ladder of modes and the forecast of memory, on numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.metrics.ladder import MODES, Ladder, Mode, Rungs
from pool_monitor.metrics.memory_forecast import StepSizes, needed, step_sizes
from pool_monitor.state_machine import IllegalTransition

DOWN = [Mode.FULL, Mode.SAMPLED, Mode.COUNTERS, Mode.OFF]


def walk(ladder: Ladder, pressures: list[float], start: int = 0) -> list[Mode]:
    """The mode after each second."""
    modes = []
    for second, pressure in enumerate(pressures, start):
        ladder.step(pressure, float(second))
        modes.append(ladder.mode)
    return modes


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("trigger", ["down", "up"])
def test_the_modes_are_neighbours(mode: Mode, trigger: str) -> None:
    at = DOWN.index(mode) + (1 if trigger == "down" else -1)
    if 0 <= at < len(DOWN):
        assert MODES.step(mode, trigger) is DOWN[at]
    else:
        with pytest.raises(IllegalTransition):
            MODES.step(mode, trigger)


@pytest.mark.parametrize(
    ("pressures", "expected"),
    [
        ([1.0] * 10, Mode.FULL),
        ([1.01] * 2, Mode.FULL),
        ([1.01] * 3, Mode.SAMPLED),
        ([1.01, 1.01, 0.99] * 5, Mode.FULL),
        ([1.2], Mode.FULL),
        ([1.21], Mode.SAMPLED),
        ([1.21, 0.9], Mode.SAMPLED),
        ([1.21] * 3, Mode.OFF),
        ([9.9] * 30, Mode.OFF),
        ([1.21, *[0.69] * 30], Mode.SAMPLED),
        ([1.21, *[0.69] * 31], Mode.FULL),
        ([1.21, *[0.7] * 60], Mode.SAMPLED),
        ([1.21, *[0.69] * 20, 0.7, *[0.69] * 30], Mode.SAMPLED),
    ],
)
def test_when_the_ladder_steps(pressures: list[float], expected: Mode) -> None:
    assert walk(Ladder(), pressures)[-1] is expected


def test_the_whole_walk_down_and_up_takes_one_step_at_a_time() -> None:
    modes = walk(Ladder(), [2.0] * 3 + [0.1] * 100)
    changes = [modes[0]] + [mode for before, mode in itertools.pairwise(modes) if mode is not before]
    assert changes == [Mode.SAMPLED, Mode.COUNTERS, Mode.OFF, Mode.COUNTERS, Mode.SAMPLED, Mode.FULL]


def test_a_step_up_that_does_not_hold_doubles_the_wait_up_to_its_limit() -> None:
    ladder, ups, second = Ladder(Rungs(wait=10, wait_max=40)), [], 0.0
    ladder.step(9.0, second)
    for _ in range(5):
        began = second
        while not ladder.step(0.1, second):
            second += 1
        ups.append(second - began)
        second += 1
        ladder.step(9.0, second)
        second += 1
    assert ups == [10, 20, 40, 40, 40]


def test_after_a_step_up_that_holds_the_wait_is_short_again() -> None:
    ladder = Ladder(Rungs(wait=10, wait_max=40))
    walk(ladder, [9.0, 9.0, 9.0, *[0.1] * 11, 9.0])
    assert ladder.mode is Mode.OFF
    modes = walk(ladder, [0.1] * 60, start=20)
    assert [modes.index(mode) for mode in (Mode.COUNTERS, Mode.SAMPLED, Mode.FULL)] == [20, 41, 52]


def test_the_pressure_above_decides_about_steps_up() -> None:
    ladder = Ladder()
    ladder.step(2.0, 0.0)
    for second in range(100):
        assert not ladder.step(0.1, float(second), above=0.7)
    assert ladder.mode is Mode.SAMPLED


@given(st.lists(st.floats(0, 3) | st.just(float("inf")), max_size=300))
def test_the_ladder_never_skips_a_mode_and_never_steps_against_the_pressure(pressures: list[float]) -> None:
    ladder, before = Ladder(), Mode.FULL
    for second, pressure in enumerate(pressures):
        changed = ladder.step(pressure, float(second))
        moved = DOWN.index(ladder.mode) - DOWN.index(before)
        assert changed == (moved != 0)
        assert moved in ((0, 1) if pressure > 1 else (0, -1) if pressure < 0.7 else (0,))
        before = ladder.mode


# -- the forecast -----------------------------------------------------------------------------------------------------


def minute(held: int = 0, newest: float | None = None, leaving: int = 0) -> StepSizes:
    return StepSizes(60, 1, held, newest, leaving)


def hour(held: int = 0, newest: float | None = None, leaving: int = 0) -> StepSizes:
    return StepSizes(60, 60, held, newest, leaving)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([minute(), hour()], [0, 0]),
        ([minute(newest=10), hour()], [10, 10]),
        ([minute(newest=10), hour(newest=200)], [10, 200]),
        ([minute(newest=10), hour(newest=5)], [10, 10]),
        ([minute(newest=10), hour(newest=9999)], [10, 600]),
        ([minute(newest=0), hour(newest=9999)], [0, 0]),
    ],
)
def test_a_coarser_step_is_as_large_as_its_finer_steps_allow(windows, expected) -> None:
    assert step_sizes(windows) == expected


def test_a_short_burst_needs_what_it_takes_and_not_an_hour_of_it() -> None:
    began = [minute(held=1000, newest=100), hour(held=1000)]
    assert needed(began) == 1000 + 60 * 100 + 1000 + 100
    assert needed([minute(held=6000, newest=100, leaving=6000), hour(held=90_000, newest=3000)]) == 6000 + 93_000


def test_full_windows_need_nothing_once_the_load_has_ended() -> None:
    assert needed([minute(held=6000, newest=0), hour(held=90_000, newest=3000)]) == 0


def test_where_only_the_first_windows_are_essential_the_others_need_one_step() -> None:
    windows = [minute(held=10**6, newest=100), hour(held=10**6, newest=3000)]
    assert (needed(windows), needed(windows, 1)) == (60 * 100 + 60 * 3000, 60 * 100 + 3000)
