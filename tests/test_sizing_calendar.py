"""The schedule and the season of a pool: what is asked for by the time of day and week, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pool_monitor.config import ScheduleEntry, TunerConfig, load
from pool_monitor.config.tuner import days_of
from pool_monitor.errors import ConfigError
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.sizing import Sizer
from pool_monitor.tuner.sizing.schedule import Schedule
from pool_monitor.tuner.sizing.season import DAYS, ROWS, PoolSeason
from tests.helpers.sized import QUIET

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def scheduled(*entries: ScheduleEntry, pool: str = "text") -> Schedule:
    return Schedule(pool, entries, BERLIN)


OFFICE = ScheduleEntry(days="mon-fri", start="09:00", end="18:00", min_size=6)
NIGHT = ScheduleEntry(days="fri", start="22:00", end="02:00", min_size=9)
NOON = ScheduleEntry(days="mon,wed", start="12:00", end="13:00", min_size=8)

# -- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-30 08:58:59", None),
        ("2026-11-30 08:59:00", 6),  # a minute before, so that the workers are ready at nine
        ("2026-11-30 08:59:30", 6),
        ("2026-11-30 11:59:30", 8),  # the highest of those that overlap
        ("2026-11-30 13:00:00", 6),
        ("2026-11-30 17:59:59", 6),
        ("2026-11-30 18:00:00", None),
        ("2026-11-28 12:00:00", None),  # a Saturday
        ("2026-12-04 23:59:59", 9),
        ("2026-12-05 01:59:59", 9),  # the night of Friday is over on Saturday
        ("2026-12-05 02:00:00", None),
        ("2026-12-04 01:00:00", None),  # the night of Thursday has none
    ],
)
def test_the_floor_of_a_schedule(when: str, expected: int | None) -> None:
    assert scheduled(OFFICE, NIGHT, NOON).floor_at(at(when), 2.0) == expected


@pytest.mark.parametrize(
    ("cold_start", "first"), [(0.0, "08:59:00"), (30.0, "08:59:00"), (90.0, "08:57:00"), (600.0, "08:40:00")]
)
def test_workers_that_take_long_to_start_are_asked_for_earlier(cold_start: float, first: str) -> None:
    schedule = scheduled(OFFICE)
    assert schedule.floor_at(at(f"2026-11-30 {first}") - 1, cold_start) is None
    assert schedule.floor_at(at(f"2026-11-30 {first}"), cold_start) == 6


def test_an_entry_that_begins_after_midnight_is_seen_the_day_before() -> None:
    schedule = scheduled(ScheduleEntry(days="tue", start="00:00", end="06:00", min_size=5))
    assert schedule.floor_at(at("2026-11-30 23:59:10"), 2.0) == 5


def test_an_entry_whose_end_is_its_beginning_holds_for_a_day() -> None:
    schedule = scheduled(ScheduleEntry(days="mon", start="08:00", end="08:00", min_size=5))
    assert schedule.floor_at(at("2026-12-01 07:59:59"), 2.0) == 5
    assert schedule.floor_at(at("2026-12-01 08:00:00"), 2.0) is None


def test_an_entry_of_another_pool_does_not_count() -> None:
    other = ScheduleEntry(start="00:00", end="23:59", min_size=5, pool="other")
    assert scheduled(other).floor_at(at("2026-11-30 12:00:00"), 2.0) is None
    assert scheduled(other, pool="other").floor_at(at("2026-11-30 12:00:00"), 2.0) == 5


def test_an_entry_in_the_hour_that_does_not_exist_is_not_lost() -> None:
    """On 29 March 2026 the clock goes from 02:00 to 03:00."""
    schedule = scheduled(ScheduleEntry(start="02:30", end="03:15", min_size=5))
    assert schedule.floor_at(at("2026-03-29 03:14:00"), 2.0) == 5
    assert schedule.floor_at(at("2026-03-29 04:15:00"), 2.0) is None


def test_an_entry_in_the_hour_that_comes_twice_holds_both_times() -> None:
    """On 25 October 2026 the clock goes from 03:00 back to 02:00."""
    schedule = scheduled(ScheduleEntry(start="02:15", end="02:45", min_size=5))
    assert schedule.floor_at(at("2026-10-25 02:20:00", fold=0), 2.0) == 5
    assert schedule.floor_at(at("2026-10-25 02:40:00", fold=1), 2.0) == 5
    assert schedule.floor_at(at("2026-10-25 02:45:00", fold=1), 2.0) is None


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_an_entry_keeps_its_time_of_day_when_the_clock_is_changed(day: str) -> None:
    schedule = scheduled(ScheduleEntry(start="09:00", end="10:00", min_size=5))
    assert schedule.floor_at(at(f"{day} 08:58:59"), 2.0) is None
    assert schedule.floor_at(at(f"{day} 09:00:00"), 2.0) == 5
    assert schedule.floor_at(at(f"{day} 10:00:00"), 2.0) is None


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon", {0}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("sat, sun", {5, 6}),
        ("Sat-Mon", {5, 6, 0}),
        ("mon,wed-thu", {0, 2, 3}),
        ("mon-sun", {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_the_days_of_an_entry(text: str, days: set[int]) -> None:
    assert days_of(text) == days


@pytest.mark.parametrize("text", ["", "monday", "mon-", "mon;tue", "1-5", "mon-fry"])
def test_days_that_are_none_are_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ConfigError, match="days"):
        ScheduleEntry(days=text, start="09:00", end="10:00", min_size=1)


@pytest.mark.parametrize("clock", ["9:00", "24:00", "09:60", "noon"])
def test_a_time_of_day_that_is_none_is_refused(clock: str) -> None:
    with pytest.raises(ConfigError, match="start"):
        ScheduleEntry(start=clock, end="10:00", min_size=1)


# -- the season -------------------------------------------------------------------------------------------------------


def learned(
    needs: Callable[[datetime], int | None], days: int, first: str = "2026-03-02", step: int = 300
) -> PoolSeason:
    """Return a season that was shown *needs* for *days* from 2 March 2026, a Monday."""
    season, wall = PoolSeason(BERLIN), at("2026-03-02 00:00:00")
    for _ in range(days * 86400 // step):
        season.observe(wall + step - 1, step, needs(datetime.fromtimestamp(wall, BERLIN)))
        wall += step
    season.observe(wall + 1, 1, None)
    return season


def office(moment: datetime) -> int:
    return 6 if 9 <= moment.hour < 18 else 2


@pytest.mark.parametrize(
    ("clock", "expected"),
    [("08:53:59", 2), ("08:55:00", 6), ("08:59:30", 6), ("12:00:00", 6), ("17:59:00", 6), ("18:00:01", 2)],
)
def test_a_rise_of_every_day_is_expected_five_minutes_before_it(clock: str, expected: int) -> None:
    season = learned(office, 14)
    assert season.floor_at(at(f"2026-03-16 {clock}"), 2.0) == expected


def test_the_next_rise_is_known_with_its_time_its_size_and_the_days_that_have_shown_it() -> None:
    rise = learned(office, 14).upcoming(at("2026-03-16 03:00:00"))
    assert rise is not None
    assert (rise.at, rise.size, rise.days, rise.of) == (at("2026-03-16 08:55:00"), 6, 14, 14)


def test_nothing_is_expected_in_the_first_week() -> None:
    season = learned(office, 4)
    assert season.floor_at(at("2026-03-06 12:00:00"), 2.0) is None
    assert season.upcoming(at("2026-03-06 03:00:00")) is None


@pytest.mark.parametrize(("day", "expected"), [("2026-03-16", 6), ("2026-03-20", 6), ("2026-03-21", 2)])
def test_a_week_end_that_is_quiet_stays_quiet(day: str, expected: int) -> None:
    days = (datetime.fromisoformat(day) - datetime.fromisoformat("2026-03-02")).days
    season = learned(lambda moment: office(moment) if moment.weekday() < 5 else 2, days)
    assert season.floor_at(at(f"{day} 11:00:00"), 2.0) == expected


def test_a_day_of_the_week_that_is_different_is_learned_after_three_weeks() -> None:
    season = learned(lambda moment: 9 if moment.weekday() == 0 and moment.hour == 7 else 2, 21)
    assert season.floor_at(at("2026-03-23 07:20:00"), 2.0) == 9
    assert season.floor_at(at("2026-03-24 07:20:00"), 2.0) == 2


def test_a_flash_crowd_of_one_day_teaches_nothing() -> None:
    season = learned(lambda moment: 40 if moment.day == 10 and moment.hour == 15 else office(moment), 14)
    assert season.floor_at(at("2026-03-16 15:20:00"), 2.0) == 6


def test_a_holiday_makes_nothing_forgotten() -> None:
    season = learned(lambda moment: 2 if moment.day == 11 else office(moment), 14)
    assert season.floor_at(at("2026-03-18 11:00:00"), 2.0) == 6  # a Wednesday, as the holiday was


def test_a_day_that_is_unlike_the_others_is_left_alone_after_half_an_hour() -> None:
    season = learned(office, 14)
    begin = at("2026-03-16 09:00:00")
    for minute in range(40):
        season.observe(begin + 60 * minute, 60, 2)
    assert season.floor_at(begin + 2400, 2.0) is None
    season.observe(begin + 2460, 60, 5)  # the load has come all the same
    assert season.floor_at(begin + 2520, 2.0) == 6


def test_a_shape_that_has_changed_for_good_is_unlearned_within_a_week() -> None:
    season = learned(lambda moment: office(moment) if moment.day < 16 else 2, 21)
    assert season.floor_at(at("2026-03-23 11:00:00"), 2.0) == 2


def test_a_rise_keeps_its_time_of_day_when_the_clock_is_put_forward() -> None:
    season = learned(office, 28)  # the last day is 29 March, on which the clock goes forward
    assert season.floor_at(at("2026-03-30 08:53:00"), 2.0) == 2
    assert season.floor_at(at("2026-03-30 08:56:00"), 2.0) == 6


def test_what_was_learned_survives_a_restart_and_is_bounded() -> None:
    season = learned(office, 40, step=1800)
    state = season.state()
    assert len(state) <= DAYS * (4 + 2 * ROWS) + 8 <= 17 * 1024
    again = PoolSeason(BERLIN)
    again.restore(state)
    assert again.state() == state
    assert again.upcoming(at("2026-04-11 03:00:00")) == season.upcoming(at("2026-04-11 03:00:00"))


@pytest.mark.parametrize(
    "state", [b"", b"season0\nxyz", b"season1\n" + b"x" * 17, b"season1\n" + b"\xff" * 580, b"\0" * 9999]
)
def test_a_state_that_is_none_is_ignored(state: bytes) -> None:
    season = PoolSeason(BERLIN)
    season.restore(state)
    assert season.state() == b"season1\n"


# -- both, with a policy ----------------------------------------------------------------------------------------------


class Small:
    """A policy that wants three workers."""

    why = "three are enough"

    def decide(self, _observation: Observation) -> int:
        return 3


class Broken:
    def decide(self, _observation: Observation) -> int:
        raise ZeroDivisionError("never mind")


def seen(when: str, **more: float) -> Observation:
    return QUIET._replace(now=1.0, wall=at(when), **more)


def sizer(policy: object, *entries: ScheduleEntry) -> Sizer:
    return Sizer("text", TunerConfig(schedule=entries), policy, BERLIN)  # type: ignore[arg-type]


def test_a_schedule_has_its_workers_asked_for_before_it_begins() -> None:
    one = sizer(Small(), OFFICE)
    assert one.decide(seen("2026-11-30 08:50:00"))[:3] == (3, "policy", None)
    early = one.decide(seen("2026-11-30 08:59:00"))
    assert (early.wanted, early.origin, early.floor) == (6, "schedule", 6)
    assert early.why == "the schedule asks for at least 6; three are enough"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 6),
        ({"high": 5}, 5),
        ({"low": 7, "size": 7}, 7),
        ({"worker_memory": 100, "memory_free": 110}, 5),
        ({"worker_memory": 100, "memory_free": -500}, 4),
        ({"cpus": 2.0, "cpu_fraction": 1.0}, 6),
    ],
)
def test_a_schedule_stays_in_the_range_and_in_the_memory(more: dict[str, float], expected: int) -> None:
    assert sizer(Small(), OFFICE).decide(seen("2026-11-30 12:00:00", **more)).wanted == expected


def test_a_schedule_is_followed_when_the_policy_raises() -> None:
    sizing = sizer(Broken(), OFFICE).decide(seen("2026-11-30 12:00:00"))
    assert (sizing.wanted, sizing.origin) == (6, "schedule")
    assert isinstance(sizing.error, ZeroDivisionError)


def test_a_policy_that_raises_changes_nothing_where_there_is_no_schedule() -> None:
    sizing = sizer(Broken()).decide(seen("2026-11-30 12:00:00"))
    assert sizing.wanted is None
    assert isinstance(sizing.error, ZeroDivisionError)


@pytest.mark.parametrize("wall", [float("nan"), float("inf"), -5.0, 1e15])
def test_a_wall_clock_that_cannot_be_right_is_left_out(wall: float) -> None:
    assert sizer(Small(), OFFICE).decide(QUIET._replace(wall=wall)).wanted == 3
    assert sizer(Small(), OFFICE).upcoming(wall) is None


def test_a_rise_that_comes_every_day_is_met_before_it_comes() -> None:
    """Two weeks of calls, then a day: by the policy's own measure of what the load needs."""
    chance, policy_sizes = random.Random(3), {}
    one, size, now, begin = Sizer("text", TunerConfig(), zone=BERLIN), 2, 0.0, at("2026-03-02 00:00:00")
    while now < 14.5 * 86400:
        now += 300
        moment = datetime.fromtimestamp(begin + now - 300, BERLIN)
        rate = 8.0 if 9 <= moment.hour < 18 else 0.5
        arrivals = max(0, round(chance.gauss(300 * rate, (300 * rate) ** 0.5)))
        calls = [(now - 2, now - 2, now - 1.5)] * min(arrivals, 20)
        sizing = one.decide(
            QUIET._replace(
                now=now,
                wall=begin + now,
                interval=300.0,
                size=size,
                busy=round(rate * 0.5 * len(calls) / max(1, arrivals)),
                arrivals=arrivals,
                calls=calls,  # type: ignore[arg-type]
                wait_target=0.5,
            )
        )
        size = sizing.wanted or size
        policy_sizes[begin + now] = (size, sizing.origin)
    assert policy_sizes[at("2026-03-03 08:55:00")] == (2, "policy")
    assert policy_sizes[at("2026-03-16 08:55:00")] == (6, "season")
    coming = one.upcoming(at("2026-03-17 03:00:00"))
    assert coming is not None
    assert coming.why == "be at 6 by 08:55: so it was on 13 of the last 13 days"


def test_a_season_that_is_not_followed_is_learned_all_the_same() -> None:
    one = sizer(Small())
    for minute in range(0, 14 * 1440, 5):
        when = at("2026-03-02 00:00:00") + 60 * minute
        one._season.observe(when, 300, office(datetime.fromtimestamp(when, BERLIN)))  # type: ignore[union-attr]
    assert one.decide(seen("2026-03-16 09:10:00"), follow_season=False)[:3] == (3, "policy", None)
    assert one.decide(seen("2026-03-16 09:10:00"), follow_season=True)[:3] == (6, "season", 6)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('days = "mon-fry", from = "09:00"', "[tuner.schedule[0]] days = 'mon-fry': 'fry' is no day"),
        ('from = "9:00"', "tuner.schedule[0].from=\"9:00\": needs a time of day, such as '08:55'"),
        ('start = "09:00"', "[tuner.schedule[0]] has no field 'start'"),
        ('from = "09:00", size = 3', "[tuner.schedule[0]] has no field 'size'; did you mean 'min_size'?"),
    ],
)
def test_a_schedule_in_a_file_is_refused_with_its_place(tmp_path: Path, entry: str, words: str) -> None:
    path = tmp_path / "service.toml"
    path.write_text(f'[tuner]\nschedule = [{{{entry}, to = "18:00", min_size = 6}}]\n')
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert words in str(refused.value)


def test_a_schedule_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text('[tuner]\nschedule = [{days = "mon-fri", from = "08:55", to = "18:00", min_size = 6}]\n')
    tuner = load(path).tuner
    assert tuner.schedule == (ScheduleEntry(days="mon-fri", start="08:55", end="18:00", min_size=6),)
