"""A wall clock that is wrong, however much, whichever way, for however long: it deletes nothing that would be kept
without it, and what it put into the future is said to be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pool_monitor.cli.report_sources import ReportQuery, from_store
from pool_monitor.storage import HistoryConfig, Reader
from tests.helpers.stores import T0, calls, everything, fat, history_file, marks, rows_in, starts, writing

DAY, YEAR = 86_400, 365 * 86_400
FULL = 700
"""Seconds after which the two finer tiers of `SMALL` have had to let go of something."""


def kept(path: Path, step: int) -> list[int]:
    """The seconds after `T0` at which blocks of *step* begin that are in the file, not counting the finer ones."""
    with Reader(path) as found:
        connection = found._connection
        rows = connection.execute("SELECT start FROM blocks WHERE step = ? ORDER BY start", (step,)).fetchall()
    return [start - T0 for (start,) in rows]


@cache
def full() -> bytes:
    with TemporaryDirectory() as directory:
        return history_file(Path(directory) / "history.db", range(FULL)).read_bytes()


def after(path: Path, *seconds: Iterable[int]) -> Path:
    """A history that was full when its clock went on with these *seconds*; one process for each."""
    path.write_bytes(full())
    for some in seconds:
        history_file(path, some)
    return path


@pytest.fixture(scope="module")
def as_ever(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[int]]:
    """What is kept when the clock is right all the time."""
    path = after(tmp_path_factory.mktemp("as ever") / "history.db", range(FULL, FULL + 20))
    return {step: kept(path, step) for step in (1, 4, 16)}


@pytest.mark.parametrize("ahead", [DAY, 75 * YEAR, -3600, -60 * YEAR])
def test_a_clock_that_is_wrong_for_three_seconds_deletes_nothing(
    tmp_path: Path, as_ever: dict[int, list[int]], ahead: int
) -> None:
    path = after(
        tmp_path / "history.db",
        chain(range(FULL, FULL + 5), range(FULL + 5 + ahead, FULL + 8 + ahead), range(FULL + 8, FULL + 20)),
    )
    wrong = range(FULL + 5, FULL + 8)
    for step, before in as_ever.items():
        lost = set(before) - set(kept(path, step))
        assert lost <= ({second // step * step for second in wrong} if step == 1 else {FULL + 4})
    with Reader(path) as found:
        tier = found.tiers()[0]
        assert T0 + FULL - 100 < tier.since < T0 + FULL - 30  # as it is without that clock
        assert calls(found.read(T0 + FULL, T0 + FULL + 20, 1)) == 17
        assert calls(found.read(T0, T0 + FULL + 4, 16)) == FULL + 4


def test_a_clock_that_jumps_to_and_fro_deletes_nothing(tmp_path: Path, as_ever: dict[int, list[int]]) -> None:
    jumps = (FULL + number + (75 * YEAR if number % 2 else 0) for number in range(20))
    path = after(tmp_path / "history.db", jumps)
    assert set(as_ever[16]) - set(kept(path, 16)) <= {FULL + 4}
    assert len(set(as_ever[1]) - set(kept(path, 1))) <= 14  # ten are in the future, and room is made for four at once


@pytest.mark.parametrize("ahead", [3 * DAY, 75 * YEAR])
def test_a_clock_that_stays_ahead_makes_room_for_each_slot_as_it_comes(tmp_path: Path, ahead: int) -> None:
    path = after(tmp_path / "history.db", range(FULL + ahead, FULL + ahead + 30))
    finest = kept(path, 1)
    assert len(finest) - 4 <= 60
    assert finest[-30:] == list(range(FULL + ahead, FULL + ahead + 30))
    assert len([second for second in finest if second < FULL]) >= 30
    with Reader(path) as found:
        assert calls(everything(found, 16)) == FULL + 30


def test_a_machine_that_boots_in_1970_and_is_set_right_keeps_what_there_is(tmp_path: Path) -> None:
    path, boot = tmp_path / "history.db", 20 - T0
    after(path, range(boot, boot + 100), range(FULL + 60, FULL + 80))
    with Reader(path) as found:
        assert found.extent() == (16, T0 + FULL + 80)
        assert marks(found.read(T0, T0 + FULL + 84, 16)) == sum(range(FULL)) + sum(range(FULL + 60, FULL + 80))
        assert calls(found.read(16, 160, 16)) == 100
        assert found.tiers()[0].since > T0  # what was deleted before the boot is not said to be there
        assert calls(found.read(T0 + FULL + 60, T0 + FULL + 80, 1)) == 20
    # The newest 60 seconds, in the order they came.
    assert {*range(boot + 60, boot + 100), *range(FULL + 60, FULL + 80)} <= set(kept(path, 1))


def test_while_the_clock_is_behind_recent_time_can_be_asked_about(tmp_path: Path) -> None:
    boot = 32 - T0
    path = after(tmp_path / "history.db", range(boot, boot + 10))
    with Reader(path) as found:
        assert calls(found.read(32, 42, 1)) == 10


def test_slots_of_the_future_stay_until_the_size_limit_deletes_them_first_in_first_out(tmp_path: Path) -> None:
    path, limit = tmp_path / "history.db", 8 * 2**20
    with writing(path, HistoryConfig(tiers=((1, 10**6), (4, 10**6), (16, 10**6)), size_limit=limit)) as made:
        for number in [*range(DAY, DAY + 4), *range(8)]:
            made.write([fat(number)], T0 + number + 1)
            made.tidy(T0 + number + 1)
        assert kept(path, 1)[-4:] == list(range(DAY, DAY + 4))
        for number in range(8, 40):
            made.write([fat(number)], T0 + number + 1)
            made.tidy(T0 + number + 1)
            assert made.usage().file_bytes <= limit
    assert max(kept(path, 1)) == 39
    assert rows_in(path)[1] > 5


# -- what a report says -------------------------------------------------------------------------------------------


def reported(path: Path, asked: ReportQuery, now: int) -> tuple[int, int, int, tuple[str, ...]]:
    """From when to when, how many calls, and which doubts there are."""
    report = from_store(str(path), asked, T0 + now).report
    summary = report.summary
    return (
        int(summary.start - T0),
        int(summary.end - T0),
        sum(pool.total.calls for pool in summary.pools.values()),
        report.doubts,
    )


def test_a_report_ends_now_and_says_that_there_is_something_in_the_future(tmp_path: Path) -> None:
    glitch = 75 * YEAR
    path = history_file(tmp_path / "history.db", [*range(100), *range(glitch, glitch + 3), *range(103, 200)])
    for asked in (ReportQuery(), ReportQuery(since=3600), ReportQuery(start=T0)):
        start, end, found, doubts = reported(path, asked, now=200)
        assert (start, end, found) == (0, 200, 197)
        assert len(doubts) == 1
        assert doubts[0].startswith("1 block in the future, from 20")
        assert doubts[0].endswith(": the clock was ahead then, or is behind now; --start and --end select them")
    start, _end, found, doubts = reported(path, ReportQuery(start=T0 + glitch), now=200)
    assert (start - start % 16, found, len(doubts)) == (glitch - glitch % 16, 3, 1)
    assert reported(path, ReportQuery(end=T0 + 48, since=48), now=200)[:3] == (0, 48, 48)


def test_a_report_of_nothing_but_the_future_is_of_that(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(40))
    _start, end, found, [doubt] = reported(path, ReportQuery(), now=-DAY)
    assert (end, found) == (40, 40)
    assert "in the future" in doubt


def test_a_clock_of_another_machine_that_is_seconds_behind_is_no_future(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", range(40))
    assert reported(path, ReportQuery(), now=10) == (0, 40, 40, ())


def test_the_slots_of_a_clock_that_was_ahead_are_counted_once(tmp_path: Path) -> None:
    path = history_file(tmp_path / "history.db", [*range(20), *range(DAY, DAY + 40), *range(20, 40)])
    with Reader(path) as found:
        assert found.ahead(T0 + 1000) == len(starts(found.read(T0 + DAY, T0 + DAY + 48, 16)))
        assert found.ahead(T0 + 2 * DAY) == 0
        assert found.extent(end=T0 + 1000) == (T0, T0 + 40)
        assert found.extent(start=T0 + 1000) == (T0 + DAY, T0 + DAY + 48 - 48 % 16)
