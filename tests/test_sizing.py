"""The policy that chooses the size of a pool, on loads of virtual time and on observations that lie."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.errors import ConfigError
from pool_monitor.tuner.observation import EndedCall, Observation
from pool_monitor.tuner.sizing import PRESETS, Preset, SizePolicy, caps, demand, make_policy
from pool_monitor.tuner.sizing.forecast import ArrivalForecast
from pool_monitor.tuner.sizing.service import StartCohorts, TimesOnWorker
from pool_monitor.tuner.sizing.stepping import Stepping
from tests.helpers.sized import QUIET, Load, exponential, live


def steady(rate: float, mean: float = 0.1) -> Load:
    return Load(lambda _now: rate, exponential(mean))


def fed(policy: SizePolicy, seconds: int, arrivals: int, *, service: float = 0.1, size: int = 8, begin: int = 0) -> int:
    """Show *policy* a load without chance and without a queue, and return the last size."""
    for second in range(begin + 1, begin + seconds + 1):
        calls = [EndedCall(second - 1.0, second - 1.0, second - 1.0 + service) for _ in range(arrivals)]
        busy = min(size, round(arrivals * service))
        seen = QUIET._replace(now=float(second), size=size, busy=busy, idle=size - busy, arrivals=arrivals, calls=calls)
        size = policy.decide(seen) or size
    return size


# -- what a load needs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "service", "cv2", "target", "expected"),
    [
        (80.0, 0.1, 1.0, 0.1, 11),  # 8 erlangs
        (80.0, 0.1, 0.0, 0.1, 10),  # calls of one length need fewer
        (80.0, 0.1, 9.0, 0.1, 13),  # calls of very different length need more
        (80.0, 0.1, 1.0, 10.0, 9),  # a wait that does not matter: just enough
        (0.0, 0.1, 1.0, 0.1, 1),
        (1e9, 1.0, 1.0, 0.1, 64),  # more than any size could do
    ],
)
def test_the_size_that_a_load_needs(rate: float, service: float, cv2: float, target: float, expected: int) -> None:
    assert demand.needed(rate, service, cv2, target, 0.05, 64) == expected


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(0, 1000),
    more=st.floats(0, 1000),
    service=st.floats(1e-4, 30),
    cv2=st.floats(0, 25),
    target=st.floats(1e-3, 30),
    miss=st.sampled_from([0.01, 0.05, 0.1]),
)
def test_more_calls_never_need_fewer_workers(
    rate: float, more: float, service: float, cv2: float, target: float, miss: float
) -> None:
    fewer = demand.needed(rate, service, cv2, target, miss, 64)
    assert fewer <= demand.needed(rate + more, service, cv2, target, miss, 64)
    assert fewer >= demand.needed(rate, service, cv2, 2 * target, miss, 64)


@pytest.mark.parametrize(("waiting", "expected"), [(0, 0), (8, 0), (9, 1), (78, 1), (79, 2)])
def test_a_backlog_asks_for_the_workers_that_end_it_in_time(waiting: int, expected: int) -> None:
    assert demand.backlog(waiting, 80.0, 0.1, 0.1, 7.0) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(7.0, 10), (0.7, 70), (0.07, 70)])
def test_a_backlog_asks_for_no_more_workers_than_calls_wait_in_it(seconds: float, expected: int) -> None:
    assert demand.backlog(78, 80.0, 1.0, 0.1, seconds) == expected


# -- the parts --------------------------------------------------------------------------------------------------------


def test_a_steady_rate_is_not_followed_when_it_varies_by_chance() -> None:
    forecast = ArrivalForecast()
    for second in range(1, 121):
        forecast.observe(float(second), 1.0, 80 + (9 if second % 2 else -9))
    assert forecast.rate(4.0) == pytest.approx(80, rel=0.02)


@pytest.mark.parametrize("rate", [0.3, 0.6, 1.0])
def test_a_rate_of_rare_calls_is_not_followed_when_it_varies_by_chance(rate: float) -> None:
    forecast, rng, spikes = ArrivalForecast(), np.random.default_rng(1), 0
    for second in range(1, 3601):
        forecast.observe(float(second), 1.0, int(rng.poisson(rate)))
        spikes += second > 120 and forecast.rate(11.0) > 2 * rate
    assert spikes <= 2


def test_a_jump_of_a_rate_of_rare_calls_is_followed_within_ten_seconds() -> None:
    forecast = ArrivalForecast()
    for second in range(1, 301):
        forecast.observe(float(second), 1.0, int(second % 2 == 0))
    for second in range(301, 311):
        forecast.observe(float(second), 1.0, 3)
    assert forecast.rate(0.0) > 2.4


def test_a_jump_of_the_rate_is_followed_within_three_seconds() -> None:
    forecast = ArrivalForecast()
    for second in range(1, 121):
        forecast.observe(float(second), 1.0, 40)
    for second in range(121, 124):
        forecast.observe(float(second), 1.0, 120)
    assert forecast.rate(0.0) > 85


def test_a_slope_is_followed_for_as_long_as_a_worker_takes_to_start() -> None:
    forecast = ArrivalForecast()
    for second in range(1, 61):
        forecast.observe(float(second), 1.0, 2 * second)
    assert forecast.rate(10.0) - forecast.rate(0.0) == pytest.approx(20.0, rel=0.05)


def test_a_rate_is_the_same_whatever_the_interval_it_was_seen_in() -> None:
    rates = []
    for steps, arrivals in ((1, 80), (10, 8), (4, 20)):
        forecast = ArrivalForecast()
        for step in range(1, 60 * steps + 1):
            forecast.observe(step / steps, 1 / steps, arrivals)
        rates.append(forecast.rate(4.0))
    assert rates == pytest.approx([80.0, 80.0, 80.0])


def test_the_mean_time_follows_a_change_within_sixty_calls_and_the_chance_of_single_calls_not_at_all() -> None:
    service = TimesOnWorker()
    assert service.mean is None
    for _ in range(100):
        service.observe([0.1] * 8)
    service.observe([1.0])
    assert service.mean == pytest.approx(0.1, rel=0.2)
    service.observe([0.25] * 60)
    assert service.mean == pytest.approx(0.2, rel=0.1)


def test_a_few_very_long_calls_are_no_change_of_the_mean_time_and_many_long_ones_are() -> None:
    service = TimesOnWorker()
    for _ in range(300):
        service.observe([0.1] * 9 + [0.9])
    usual = service.mean
    assert usual is not None
    service.observe([0.1] * 8 + [30.0])
    assert service.mean == pytest.approx(usual, rel=0.5)
    for _ in range(6):
        service.observe([3.0] * 10)
    assert service.mean is not None
    assert service.mean > 10 * usual


@settings(max_examples=20, deadline=None)
@given(times=st.lists(st.lists(st.floats(1e-4, 1e3), max_size=20), max_size=30))
def test_the_mean_time_is_one_that_calls_had(times: list[list[float]]) -> None:
    service = TimesOnWorker()
    for some in times:
        service.observe(some)
    every = [value for some in times for value in some]
    assert (service.mean is None) == (not every)
    if service.mean is not None:
        assert min(every) * 0.999 <= service.mean <= max(every) * 1.001


def test_cohorts_are_told_apart_by_the_start_of_a_call_and_are_bounded() -> None:
    cohorts = StartCohorts()
    cohorts.observe([EndedCall(0.0, 5.5, 5.6), EndedCall(0.0, 5.9, 6.2), EndedCall(0.0, 7.0, 8.0)])
    early = cohorts.between(5.0, 6.0)
    assert (early.calls, early.mean) == (2, pytest.approx(0.2))
    assert cohorts.between(8.0, 20.0).calls == 0
    cohorts.observe([EndedCall(float(second), float(second), second + 0.1) for second in range(5000)])
    assert len(cohorts._rows) <= 1500


def test_a_size_goes_up_at_once_and_down_after_a_minute_in_steps() -> None:
    stepping, sizes, size = Stepping(Preset()), [], 4
    for second in range(300):
        size = stepping.step(float(second), size, 20 if second < 60 else 5, cold_start=2.0)
        sizes.append(size)
    assert sizes[:4] == [8, 16, 20, 20]
    assert sizes[118] == 20  # needed until second 59, and held for a minute
    assert sorted(sizes[119:], reverse=True) == sizes[119:]
    assert sizes[-1] == 5
    assert max(a - b for a, b in itertools.pairwise(sizes)) <= 4


@pytest.mark.parametrize(("need", "wanted"), [(5, 5), (2, 3)])
def test_a_size_that_nobody_sets_is_wanted_again_and_again(need: int, wanted: int) -> None:
    """Where a person approves, the size stays: a proposal is made of what is wanted all the time."""
    stepping = Stepping(Preset())
    sizes = [stepping.step(float(second), 4, need, cold_start=2.0) for second in range(300)]
    assert set(sizes[70:]) == {wanted}


def test_a_second_growth_by_one_is_waited_for_like_the_first() -> None:
    stepping, size, sizes = Stepping(Preset()), 4, []
    for second in range(10):
        size = stepping.step(float(second), size, size + 1, cold_start=2.0)
        sizes.append(size)
    assert sizes == [4, 4, 4, 5, 5, 5, 5, 6, 6, 6]


def test_a_size_that_is_kept_although_fewer_are_needed_says_why() -> None:
    policy = SizePolicy()
    assert fed(policy, 20, 2, size=8) == 8
    assert "need 2 workers; a larger size is kept for 60 s at first" in policy.why


def test_a_load_that_the_range_cannot_serve_is_said_to_need_more() -> None:
    policy = SizePolicy()
    fed(policy, 60, 700, size=64)
    assert "need more than 64 workers" in policy.why


def test_a_size_is_held_longer_where_workers_take_long_to_start() -> None:
    stepping = Stepping(Preset())
    assert [stepping.hold(cold) for cold in (0.0, 2.0, 5.0, 30.0, 120.0)] == [60, 60, 150, 300, 600]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, None),
        ({"cpus": 12.0, "cpu_fraction": 1.0}, 13),
        ({"cpus": 4.0, "cpu_fraction": 0.25}, 17),
        ({"cpus": 12.0}, None),
        ({"cpus": math.nan, "cpu_fraction": 1.0}, None),
        ({"worker_memory": 100, "memory_free": 350}, 7),
        ({"worker_memory": 100, "memory_free": -150}, 2),
        ({"worker_memory": 100, "memory_free": 350, "cpus": 2.0, "cpu_fraction": 1.0}, 2),
    ],
)
def test_processors_and_memory_bound_the_size(seen: dict[str, float], expected: int | None) -> None:
    observation = QUIET._replace(**seen)
    cap = caps.lowest(caps.Processors().cap(observation), caps.memory(observation))
    assert (cap and cap.size) == expected


def test_workers_that_wait_for_a_processor_do_not_raise_the_cap() -> None:
    processors = caps.Processors()
    alone = QUIET._replace(now=1.0, cpus=12.0, cpu_fraction=1.0, busy=4)
    crowded = alone._replace(now=300.0, cpu_fraction=0.5, busy=24, size=24)
    later = alone._replace(now=7200.0, cpu_fraction=0.5)
    sizes = [cap.size for seen in (alone, crowded, later) if (cap := processors.cap(seen))]
    assert sizes == [13, 13, 26]


def test_what_idle_workers_take_of_the_processors_is_not_remembered() -> None:
    processors = caps.Processors()
    idle = QUIET._replace(now=1.0, cpus=12.0, cpu_fraction=3.0, busy=0)
    sizes = [cap.size for seen in (idle, idle._replace(cpu_fraction=1.0, busy=4)) if (cap := processors.cap(seen))]
    assert sizes == [4, 13]


# -- the policy on loads ----------------------------------------------------------------------------------------------


def test_a_load_without_chance_settles_on_one_size_and_stays_there() -> None:
    policy = SizePolicy()
    size = fed(policy, 120, 80, size=12)
    assert {fed(policy, 60, 80, begin=begin, size=size) for begin in range(120, 480, 60)} == {size}
    assert "80 calls per second of 100 ms need" in policy.why


@pytest.mark.parametrize("rate", [5.0, 60.0])
def test_a_steady_load_waits_rarely_and_its_size_seldom_turns(rate: float) -> None:
    first = QUIET._replace(size=8)
    life = live(SizePolicy(), steady(rate), 200, first=first)
    assert life.late < 0.03
    assert life.reversals <= 3
    assert max(life.sizes[70:]) <= 1.8 * (rate * 0.1) + 4


def test_the_size_seldom_turns_where_few_calls_take_very_long() -> None:
    """Lognormal times whose deviation is three times the mean of 0.1 s."""
    load = Load(lambda _now: 15.0, lambda chance, _busy, _now: chance.lognormvariate(-3.454, 1.517))
    lives = [live(SizePolicy(), load, 900, seed=seed, first=QUIET._replace(size=5)) for seed in (1, 2)]
    assert sum(life.reversals for life in lives) <= 10  # 20 an hour
    assert max(life.late for life in lives) < 0.02


def test_a_step_of_the_load_is_met_within_seconds_and_given_back_within_minutes() -> None:
    load = Load(lambda now: 120.0 if 60 <= now < 120 else 40.0, exponential(0.1))
    life = live(SizePolicy(), load, 330, first=QUIET._replace(size=8))
    assert life.sizes[70] >= 14
    assert life.late < 0.05
    assert life.sizes[-1] <= 9


@pytest.mark.parametrize("target", [0.0, 0.1, 30.0])
def test_fewer_workers_are_wanted_where_calls_may_wait(target: float) -> None:
    policy = SizePolicy()
    seen = {"calls": [EndedCall(0.0, 0.0, 0.1)] * 80, "arrivals": 80, "busy": 8, "idle": 4, "size": 12}
    for second in range(1, 100):
        policy.decide(QUIET._replace(now=float(second), wait_target=target, **seen))
    assert policy.needed is not None
    assert policy.needed == (9 if target == 30 else 10)


def test_calls_that_never_end_are_not_taken_for_an_idle_pool() -> None:
    """Arrivals without ends: what is under way has lasted longer than any call before it."""
    policy, size = SizePolicy(), fed(SizePolicy(), 1, 10)
    size = fed(policy, 120, 40)
    for second in range(121, 181):
        size = policy.decide(QUIET._replace(now=float(second), size=size, busy=size, idle=0, arrivals=40)) or size
        assert size >= 4
    assert size > 16


def test_the_presets_differ_in_what_they_give_back_and_not_in_what_they_take() -> None:
    load = Load(lambda now: 60.0 if now < 20 else 10.0, exponential(0.2))
    sizes = {name: live(make_policy(name), load, 140).sizes for name in PRESETS}
    assert sum(sizes["aggressive"]) < sum(sizes["balanced"]) < sum(sizes["conservative"])
    assert min(max(one[:20]) for one in sizes.values()) >= 14


# -- observations that lie --------------------------------------------------------------------------------------------

LIES: dict[str, dict[str, float]] = {
    "the clock stands": {"now": 100.0},
    "the clock goes back": {"now": 3.0},
    "the clock is unknown": {"now": math.nan},
    "an hour is missing": {"now": 3700.0, "interval": 3600.0},
    "the counter has begun again": {"now": 101.0, "arrivals": -4000},
    "the interval is unknown": {"now": 101.0, "interval": math.nan},
    "the busy workers are unknown": {"now": 101.0, "busy": math.nan},
    "the range is turned around": {"now": 101.0, "low": 9, "high": 3},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_observation_that_is_missing_or_wrong_never_makes_a_pool_smaller(lie: str) -> None:
    policy = SizePolicy()
    size = fed(policy, 100, 80, size=12)
    wrong = LIES[lie]
    assert policy.decide(QUIET._replace(now=101.0, size=size)._replace(**wrong)) is None
    assert policy.why == "the observation cannot be used: the size is kept"
    begin = wrong["now"] if math.isfinite(wrong["now"]) else 101.0
    for second in range(1, 60):  # and what comes after it is not believed for a minute
        assert (policy.decide(QUIET._replace(now=begin + second, size=size)) or size) >= size


def test_nothing_is_decided_before_a_call_has_ended() -> None:
    policy = SizePolicy()
    assert [policy.decide(QUIET._replace(now=float(second))) for second in range(1, 5)] == [None] * 4
    assert policy.needed is None


numbers = st.one_of(st.integers(-5, 2000), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))


@st.composite
def observations(draw: st.DrawFn) -> list[Observation]:
    """A few observations in which anything may be wrong, but for the range."""
    seen, now, low = [], 0.0, draw(st.integers(1, 8))
    high = low + draw(st.integers(0, 40))
    for _ in range(draw(st.integers(1, 20))):
        now += draw(st.sampled_from([0.1, 1.0, 1.0, 1.0, 5.0, 400.0, -3.0]))
        length = draw(st.sampled_from([0.001, 0.1, 3.0, -1.0, math.nan]))
        calls = [EndedCall(now - 1, now - 1, now - 1 + length)] * draw(st.integers(0, 30))
        seen.append(
            QUIET._replace(
                now=now,
                interval=draw(st.sampled_from([1.0, 1.0, 0.1, 400.0, 0.0, math.nan])),
                size=draw(st.integers(0, 60)),
                low=low,
                high=high,
                busy=draw(st.integers(0, 60)),
                waiting=draw(st.integers(0, 6000)),
                arrivals=draw(numbers),
                calls=calls,
                wait_target=draw(st.sampled_from([0.0, 1e-9, 0.1, 30.0])),
                cold_start=draw(st.sampled_from([0.0, 2.0, 60.0])),
                cpus=draw(st.sampled_from([None, 0.5, 8.0, math.nan])),
                cpu_fraction=draw(st.sampled_from([None, 0.0, 1.0, math.inf])),
                worker_memory=draw(st.sampled_from([None, 0, 1 << 28])),
                memory_free=draw(st.sampled_from([None, -(1 << 30), 1 << 32])),
            )
        )
    return seen


@settings(max_examples=10, deadline=None)
@given(observations(), st.sampled_from(sorted(PRESETS)))
def test_no_observation_leads_outside_the_range(seen: list[Observation], preset: str) -> None:
    policy = make_policy(preset)
    for one in seen:
        size = policy.decide(one)
        assert size is None or (one.low <= size <= one.high and isinstance(size, int))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 150), st.integers(1, 100), st.integers(5, 40))
def test_a_steady_load_that_is_larger_never_needs_a_smaller_size(rate: int, more: int, seconds: int) -> None:
    needs = []
    for arrivals in (rate, rate + more):
        policy = SizePolicy()
        for second in range(1, seconds + 1):
            calls = [EndedCall(second - 1.0, second - 1.0, second - 0.9)] * 10
            policy.decide(QUIET._replace(now=float(second), arrivals=2 * arrivals, busy=1, calls=calls))
        needs.append(policy.needed or 0)
    assert needs[1] >= needs[0]


# -- what a configuration names ---------------------------------------------------------------------------------------


class Constant:
    """A user's policy."""

    def decide(self, _observation: Observation) -> int:
        return 5


class Needy:
    def __init__(self, something: int) -> None: ...


def test_a_policy_of_the_user_is_loaded_and_each_pool_has_its_own() -> None:
    one, two = make_policy(f"{__name__}:Constant"), make_policy(f"{__name__}:Constant")
    assert one is not two
    assert one.decide(QUIET) == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("balance", "use conservative, balanced, aggressive, or 'module:Policy'"),
        (":Policy", "use conservative"),
        ("no_such_module_here:Policy", "the module no_such_module_here cannot be imported"),
        ("json:Policy", "json has no Policy"),
        ("json:JSONDecoder", "has no method decide(observation)"),
        ("math:pi", "is a float: name a class with decide()"),
        (f"{__name__}:Needy", "it is called without arguments"),
    ],
)
def test_a_policy_that_cannot_be_made_is_refused_with_the_remedy(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_policy(name)
    assert words in str(refused.value)
    assert repr(name) in str(refused.value)
