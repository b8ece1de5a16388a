"""The figures of resources in the history: as measured at every age, once, bounded, and safe from crafted files."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.errors import ConfigError
from pool_monitor.metrics.gauges import (
    LEVELS,
    SUBJECTS_MAX,
    GaugeBlock,
    GaugeStore,
    OpenGauges,
    TimedGauges,
    merged,
    resource_range,
)
from pool_monitor.metrics.timespan import TimeSpan
from pool_monitor.storage import History, HistoryMetrics, Reader
from pool_monitor.storage.gauges import ROOM_MAX, SHARE, PendingGauges, packed, unpacked
from tests.helpers.stores import SMALL, T0, pending_blocks, writing
from tests.helpers.support import eventually, ops_pool


def block(readings: dict[str, dict[str, float]]) -> GaugeBlock:
    opened = OpenGauges()
    for subject, figures in readings.items():
        opened.add(subject, figures)
    made = opened.close()
    assert made is not None
    return made


def of_second(number: int) -> GaugeBlock:
    return block({"host": {"load1": float(number)}, "worker p-0": {"rss": 1e6 + number, "fds": 8}})


def as_dict(found: GaugeBlock) -> dict[tuple[str, str], tuple[int, float, float]]:
    counts, means, highs = (array.tolist() for array in found[2:])
    return {
        (subject, figure): (counts[row][column], means[row][column], highs[row][column])
        for row, subject in enumerate(found.subjects)
        for column, figure in enumerate(found.figures)
        if counts[row][column]
    }


def written(path: Path, numbers: Iterable[int], config: HistoryConfig = SMALL) -> Path:
    with writing(path, config) as made:
        for number in numbers:
            made.write([PendingGauges(T0 + number, 1, of_second(number)), *pending_blocks([number])], T0 + number + 1)
            made.tidy(T0 + number + 1)
    return path


def loads(path: Path, start: int, end: int, step: int) -> tuple[list[float | None], list[float | None]]:
    asked = TimeSpan(T0 + start, T0 + end, step)
    with Reader(path) as found:
        answer = resource_range(found.gauges(asked.start, asked.end, step), asked, "host")
    [series] = answer.series
    return list(series.mean), list(series.high)


# -- blocks -------------------------------------------------------------------------------------------------------

READINGS = st.dictionaries(
    st.sampled_from(["host", "loop", "worker p-0"]),
    st.dictionaries(st.sampled_from(["rss", "load1", "lag"]), st.floats(-(2.0**40), 2.0**40, width=32), min_size=1),
    min_size=1,
)


@given(st.lists(READINGS, min_size=1, max_size=8), st.data())
def test_blocks_add_up_to_the_same_in_any_order_and_grouping(readings: list[Any], data: st.DataObject) -> None:
    blocks = [block(each) for each in readings]
    whole = as_dict(merged(blocks))
    for key, (count, mean, high) in whole.items():
        values = [each[key[0]][key[1]] for each in readings if key[1] in each.get(key[0], {})]
        assert count == len(values)
        assert high == max(values)
        assert mean == pytest.approx(sum(values) / len(values), rel=1e-5, abs=max(map(abs, values)) * 1e-6 + 1e-37)
    cut = data.draw(st.integers(0, len(blocks)))
    parts = [merged(some) for some in (blocks[cut:], blocks[:cut]) if some]
    for key, (count, mean, high) in as_dict(merged(parts)).items():
        assert (count, high) == (whole[key][0], whole[key][2])
        assert mean == pytest.approx(whole[key][1], rel=1e-5, abs=1e6)


@given(st.lists(READINGS, min_size=1, max_size=4))
def test_a_block_is_read_from_its_body_as_it_was(readings: list[Any]) -> None:
    made = merged([block(each) for each in readings])
    found = unpacked(packed(made))
    assert (found.subjects, found.figures) == (made.subjects, made.figures)
    for ours, theirs in zip(made[2:], found[2:], strict=True):
        assert np.array_equal(ours, theirs)


def test_subjects_beyond_the_limit_are_refused() -> None:
    opened = OpenGauges()
    assert all(opened.add(f"worker {number}", {"rss": 1}) for number in range(SUBJECTS_MAX))
    assert not opened.add("one more", {"rss": 1})
    assert opened.add("worker 0", {"rss": 3})


def test_memory_holds_an_hour_within_its_limit() -> None:
    store, made = GaugeStore(500_000), of_second(1)
    for second in range(4000):
        store.add(second, made)
        assert store.nbytes <= 500_000
    kept = [timed.start for timed in store.read(10, 0)]
    assert 3999 - LEVELS[1][1] <= kept[0] <= 3999 - LEVELS[1][1] + 20
    small = GaugeStore(3000)
    for second in range(100):
        small.add(second, of_second(second))
        assert small.nbytes <= 3000
    assert [timed.start for timed in small.read(1, 0)][-1] == 99


@pytest.mark.parametrize("gap", [0, 7, 35])
def test_each_reading_is_in_the_steps_of_memory_once(gap: int) -> None:
    store = GaugeStore(10**7)
    seconds = [*range(995, 1300), *range(1300 + gap, 1700)]
    for second in seconds:
        store.add(second, of_second(second))
    for step in (10, 60):
        found = [as_dict(timed.block)["host", "load1"][0] for timed in store.read(step, 0)]
        assert sum(found) == len(seconds)


def test_a_range_of_too_many_values_is_refused() -> None:
    many = block({f"worker {number}": {"rss": 1.0} for number in range(5000)})
    asked = TimeSpan(0, 1000, 1)
    with pytest.raises(ConfigError, match="ask for one subject, such as 'worker 0'"):
        resource_range([TimedGauges(5, 1, many)], asked, None)
    assert len(resource_range([TimedGauges(5, 1, many)], asked, "worker 7").series) == 1


# -- the file -----------------------------------------------------------------------------------------------------


def test_every_tier_has_each_reading_once(tmp_path: Path) -> None:
    path = written(tmp_path / "history.db", range(100))
    mean, high = loads(path, 0, 112, 16)
    assert high == [15, 31, 47, 63, 79, 95, 99]
    assert mean == [7.5, 23.5, 39.5, 55.5, 71.5, 87.5, 97.5]
    assert loads(path, 0, 100, 4)[1] == [float(number) for number in range(3, 100, 4)]
    found = loads(path, 0, 100, 1)[1]
    assert found[:20] == [None] * 20, "older than the retention of the finest tier"
    assert found[-60:] == [float(number) for number in range(40, 100)]


def test_a_step_that_no_tier_divides_is_refused_with_those_there_are(tmp_path: Path) -> None:
    config = HistoryConfig(tiers=((2, 60), (4, 600)))
    path = written(tmp_path / "history.db", range(20), config)
    with Reader(path) as found, pytest.raises(ConfigError, match="has steps of 2, 4 s; a step of 3 s is no multiple"):
        found.gauges(T0, T0 + 9, 3)


def test_what_is_written_after_a_restart_continues_at_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    for first in range(0, 100, 7):
        written(path, range(first, min(first + 7, 100)))
    assert loads(path, 0, 96, 16)[1] == [15, 31, 47, 63, 79, 95]


def test_gauges_take_their_share_of_the_file_at_most(tmp_path: Path) -> None:
    config = HistoryConfig(tiers=((1, 10**6), (60, 10**7)), size_limit=8 * 2**20)
    path = tmp_path / "history.db"
    rng = np.random.default_rng(1)
    with writing(path, config) as made:
        for number in range(45):
            noise = rng.random(2500) * 1e9
            readings = {f"worker {at}": {"rss": value, "uss": value / 3} for at, value in enumerate(noise.tolist())}
            made.write([PendingGauges(T0 + number, 1, block(readings))], T0 + number)
            made.tidy(T0 + number)
    with closing(sqlite3.connect(path)) as connection:
        size, rows = connection.execute("SELECT total(length(body)), count(*) FROM gauges").fetchone()
    assert size <= config.size_limit / SHARE
    assert rows > 10
    assert path.stat().st_size <= config.size_limit


_NAN = np.array([np.nan], "<f4").tobytes()
_ONE = np.array([1], "<u4").tobytes(), np.array([1], "<f4").tobytes(), np.array([1], "<f4").tobytes()
BODIES: dict[str, Any] = {
    "is text": "hello",
    "is a number": 5,
    "is nothing": b"",
    "is noise": np.random.default_rng(1).bytes(300),
    "is cut off": packed(of_second(1))[:-3],
    "is of another version": zlib.compress(msgspec.msgpack.encode([2, ["a"], ["b"], *_ONE])),
    "has arrays of another size": zlib.compress(msgspec.msgpack.encode([1, ["a", "c"], ["b"], *_ONE])),
    "has a subject twice": zlib.compress(msgspec.msgpack.encode([1, ["a", "a"], ["b"], *(part * 2 for part in _ONE)])),
    "has a name without end": zlib.compress(msgspec.msgpack.encode([1, ["a" * 10**6], ["b"], *_ONE])),
    "holds no numbers": zlib.compress(msgspec.msgpack.encode([1, ["a"], ["b"], _ONE[0], _NAN, _NAN])),
    "holds far too much": zlib.compress(b"\x95\x01" + bytes(8 * ROOM_MAX)),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_was_made_by_hand_costs_itself_at_most(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "history.db", range(20))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE gauges SET body = ? WHERE step = 1 AND start = ?", (BODIES[kind], T0 + 19))
        connection.commit()
    with Reader(path) as found:
        starts = [timed.start - T0 for timed in found.gauges(T0, T0 + 40, 1)]
        assert starts == list(range(19))
        assert found.damaged == 1 or kind in ("is text", "is a number")
    written(path, range(20, 40))
    assert loads(path, 0, 40, 4)[1] == [*map(float, (3, 7, 11, 15, 18, 23, 27, 31, 35, 39))]


# -- beside a service ---------------------------------------------------------------------------------------------


async def test_gauges_in_memory_and_in_the_file_are_one_answer(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    config = HistoryConfig(path=str(tmp_path / "history.db"), tiers=SMALL.tiers, flush_interval=3600.0)
    history = await History.open(tmp_path / "history.db", config, clock=clock)
    metrics = HistoryMetrics(history, clock)
    for number in range(10):
        history.put_gauges(T0 + number, 1, of_second(number))
        if number == 4:
            await history.flush()
    clock.advance(10)
    [series] = (await metrics.resources(T0, step="1s", subject="host")).series
    assert series.high == tuple(map(float, range(10)))
    assert (history.stats().held, history.stats().dropped) == (0, 0)
    await history.close()
    assert loads(tmp_path / "history.db", 0, 10, 1)[1] == [*map(float, range(10))]


@pytest.mark.processes("figures of a process")
async def test_the_figures_of_a_service_outlive_it(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    config = MonitorConfig(
        history=HistoryConfig(path=str(path)),
        resources=ResourcesConfig(interval=0.5, gpu=False),
        service=ServiceConfig(socket=False),
    )
    async with ops_pool(size=1) as pool, Monitor(pool, config=config) as monitor:
        name = pool.status().name
        slot = f"worker {name}-0"
        await eventually(
            lambda: any(each.subject == slot for each in monitor.metrics.resources(monitor.metrics.since).series)
        )

        def resident() -> int | None:
            return monitor.snapshot().pools[name].workers[f"{name}-0"].rss

        await eventually(lambda: resident() is not None)
        live = resident() or 0
        assert monitor.history is not None
        now = int(monitor.snapshot().taken_at)
        found = await monitor.history.resources(now - 60, now + 1, "1s", subject=slot)
        assert "rss" in {series.figure for series in found.series}
    with Reader(path) as reader:
        asked = TimeSpan(now - 60, now + 60, 60)
        after = resource_range(reader.gauges(asked.start, asked.end, 60), asked, slot)
    [rss] = [series for series in after.series if series.figure == "rss"]
    assert max(value for value in rss.high if value is not None) == pytest.approx(live, rel=0.2)
