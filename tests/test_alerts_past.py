"""The past as rules read it: the same from memory and from the history, unknown where it was not measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import telemetry
from pool_monitor.alerts import past as past_module
from pool_monitor.alerts.inputs import Input, Labels, Sample
from pool_monitor.alerts.instances import Instances
from pool_monitor.alerts.line import fit
from pool_monitor.alerts.past import Past, stretch_of
from pool_monitor.clock import ManualClock
from pool_monitor.config import HistoryConfig
from pool_monitor.config.history import Tier
from pool_monitor.errors import ConfigError
from pool_monitor.metrics import Collector, LiveMetrics
from pool_monitor.metrics.queries import PoolCounts
from pool_monitor.snapshot import ErrorRate, Summary
from pool_monitor.storage import History, HistoryMetrics
from tests.helpers import samples
from tests.helpers.stores import T0

MIB = 2**20
KEPT = HistoryConfig(tiers=(Tier(10, 6 * 3600), Tier(60, 7 * 86_400)))
POOL, WORK, SLOT = ("pool", "text"), ("operation", "work"), ("worker", "text-0")


def call(*, fails: bool = False, operation: str = "work", seconds: float = 0.01) -> None:
    about = {"pool": "text", "operation": operation, "worker": "text-0", "call_id": 1}
    ns = round(seconds * 1e9)
    measured = {"duration": ns, "queue_duration": 0, "execution_duration": ns, "attempts": 1}
    if fails:
        telemetry.execute(
            ("pool", "operation", "exception"), measured, {**about, "outcome": "error", "category": "operation"}
        )
    else:
        telemetry.execute(("pool", "operation", "stop"), measured, about)


def calls(number: int) -> None:
    for _ in range(number):
        call()


def sampled(rss: float, interval_s: float = 10.0) -> None:
    interval = {"interval": round(interval_s * 1e9)}
    about = {"pool": "text", "worker": "text-0", "pid": 1}
    telemetry.execute(("resource", "worker"), {**interval, "rss": round(rss)}, about)
    telemetry.execute(("resource", "host"), {**interval, "load1": rss / MIB}, {})


def growing(by: float) -> Callable[[int], None]:
    """Sample memory that grows by so many bytes per second."""

    def each(second: int) -> None:
        if second % 6 == 0:
            sampled(100 * MIB + second * by)

    return each


class Rig:
    """A collector, what it keeps, and the clock that drives it."""

    def __init__(self, collector: Collector, clock: ManualClock, history: History | None = None) -> None:
        self.collector, self.clock, self.history = collector, clock, history
        self.metrics = LiveMetrics(collector, lambda _window: samples.snapshot())
        self.asked = None if history is None else HistoryMetrics(history, clock)
        self.past = Past(self.metrics, lambda: self.asked, clock, 5.0, KEPT)
        self.second = 0

    def live(self, seconds: int, each: Callable[[int], object] = lambda _second: None) -> None:
        """Let *seconds* pass. *each* is called for every one of them, with its number. There is a tick every 3 s: with
        fewer, the time would not count as measured.
        """
        for number in range(1, seconds + 1):
            each(self.second)
            self.second += 1
            if number % 3 == 0 or number == seconds:
                self.clock.advance((number - 1) % 3 + 1)
                self.collector.tick()

    async def read(self, one: Input) -> dict[Labels, Sample]:
        await self.past.prepare([one])
        return {sample.labels: sample for sample in self.past.samples(one, Instances(samples.snapshot(workers=1)))}


@contextmanager
def _collector(clock: ManualClock) -> Iterator[Collector]:
    collector = Collector(["text"], clock)
    collector.attach()
    try:
        yield collector
    finally:
        collector.detach()


@pytest.fixture
def rig() -> Iterator[Rig]:
    clock = ManualClock(T0)
    with _collector(clock) as collector:
        yield Rig(collector, clock)


@asynccontextmanager
async def with_history(path: Path) -> AsyncIterator[Rig]:
    clock = ManualClock(T0)
    config = HistoryConfig(path=str(path), tiers=KEPT.tiers, flush_interval=3600.0)
    history = await History.open(path, config, clock=clock)
    try:
        with _collector(clock) as collector:
            collector.on_second(lambda start, block, names, errors: history.put(start, 1, block, names, errors))
            collector.on_gauges(lambda start, block: history.put_gauges(start, 1, block))
            rig = Rig(collector, clock, history)
            yield rig
            await rig.past.close()
    finally:
        await history.close()


def steps(rate_before: int, rate_after: int, at: int) -> Callable[[int], None]:
    def each(second: int) -> None:
        for number in range(rate_before if second < at else rate_after):
            call(fails=number == 0)

    return each


# -- a value of before ------------------------------------------------------------------------------------------------

RATE_BEFORE = Input(metric="operation.rate", window="1m", back=300.0)


def lived(seconds: int, *each: Callable[[int], None]) -> Rig:
    """Return a rig that several tests read, after so many seconds."""
    clock = ManualClock(T0)
    with _collector(clock) as collector:
        rig = Rig(collector, clock)
        rig.live(seconds, lambda second: [one(second) for one in each])
    return rig


@pytest.fixture(scope="module")
def seven_minutes() -> Rig:
    """Four calls a second, later one, and figures that grow by a MiB each minute."""
    return lived(
        420, steps(4, 1, at=300), lambda second: sampled(MIB * (second // 60 + 1)) if second % 10 == 0 else None
    )


@pytest.fixture(scope="module")
def ten_minutes() -> Rig:
    """Four calls a second, and memory that grows."""
    return lived(600, steps(4, 4, at=0), growing(1000))


async def test_the_value_of_before_is_that_of_its_window(seven_minutes: Rig) -> None:
    rig = seven_minutes
    found = await rig.read(RATE_BEFORE)
    assert found[WORK, POOL].value == pytest.approx(4.0)
    assert found[WORK, POOL].calls == 240
    ratio = await rig.read(Input(metric="operation.error_ratio", window="1m", back=300.0))
    assert ratio[WORK, POOL].value == pytest.approx(0.25)
    latency = await rig.read(Input(metric="pool.latency.p95", window="1m", back=300.0))
    assert latency[POOL,].value == pytest.approx(0.01, rel=0.02)
    assert latency[POOL,].calls == 180


async def test_an_operation_that_was_not_called_then_had_no_calls_and_no_ratio(seven_minutes: Rig) -> None:
    rig = seven_minutes
    chat: Labels = (("operation", "chat"), POOL)
    assert (await rig.read(RATE_BEFORE))[chat] == Sample(chat, 0.0, 0)
    ratio = await rig.read(Input(metric="operation.error_ratio", window="1m", back=300.0))
    assert ratio[chat] == Sample(chat, None, 0)


async def test_a_stretch_of_which_less_than_half_was_measured_is_unknown(rig: Rig) -> None:
    rig.live(315, steps(2, 2, at=0))
    assert (await rig.read(RATE_BEFORE))[WORK, POOL].value is None
    rig.live(30, steps(2, 2, at=0))
    assert (await rig.read(RATE_BEFORE))[WORK, POOL].value == pytest.approx(2.0, rel=0.1)


async def test_a_figure_of_before_is_the_mean_of_the_minute_before_it(seven_minutes: Rig) -> None:
    rig = seven_minutes
    found = await rig.read(Input(metric="worker.rss", back=300.0))
    assert found[POOL, SLOT].value == pytest.approx(2 * MIB)
    host = await rig.read(Input(metric="host.load1", back=300.0))
    assert host[()].value == pytest.approx(2.0)


async def test_the_past_of_a_worker_that_was_not_sampled_is_unknown(rig: Rig) -> None:
    rig.live(30, lambda _second: sampled(MIB))
    found = await rig.read(Input(metric="worker.uss", back=20.0))
    assert found == {(POOL, SLOT): Sample((POOL, SLOT), None)}


async def test_memory_and_history_give_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_history(tmp_path / "history.db") as rig:
        rig.live(200, lambda second: call(fails=second % 7 == 0, seconds=0.01 + second / 1e4))
        for metric in ("operation.rate", "operation.latency.p95", "pool.error_ratio", "worker.calls"):
            one = Input(metric=metric, window="1m", back=120.0)
            memory = await rig.read(one)
            with monkeypatch.context() as patch:
                patch.setattr(past_module, "MEMORY_S", 0)
                await rig.past.prepare([])
                history = await rig.read(one)
            assert history.keys() == memory.keys()
            assert any(sample.value for sample in memory.values())
            for labels, sample in memory.items():
                assert history[labels].value == pytest.approx(sample.value), labels
                assert history[labels].calls == sample.calls


# -- calls over a long time -------------------------------------------------------------------------------------------


async def test_calls_are_counted_with_the_time_that_was_measured(ten_minutes: Rig) -> None:
    rig = ten_minutes
    found = (await rig.read(Input(metric="operation.error_ratio", kind="calls", over=900.0)))[WORK, POOL]
    assert found.value == pytest.approx(0.25)
    assert [*found.more] == [2400, 600, pytest.approx(600, abs=1)]
    found = (await rig.read(Input(metric="pool.error_ratio", kind="calls", over=300.0)))[POOL,]
    assert [*found.more] == [pytest.approx(expected, rel=0.02) for expected in (1200, 300, 300)]
    found = (await rig.read(Input(metric="pool.error_ratio", kind="calls", over=3600.0)))[POOL,]
    assert (found.value, found.more[0]) == (None, 2400)


def test_counts_are_those_of_a_summary(rig: Rig) -> None:
    rig.live(90, lambda second: call(fails=second % 3 == 0, operation=f"work {second % 4}"))
    end = rig.clock.wall_ns() / 1e9
    [counted] = rig.metrics.deferred_counts(end - 60, end)().values()
    [whole] = rig.metrics.deferred_summary(end - 60, end)().pools.values()
    assert (counted.covered_s, counted.total.calls) == (whole.covered_seconds, whole.total.calls)
    assert counted.total.error_ratio == whole.total.error_ratio
    assert {name: (rate.calls, rate.errors) for name, rate in counted.operations.items()} == {
        name: (view.calls, view.errors) for name, view in whole.operations.items()
    }


async def test_more_than_an_hour_needs_a_history(rig: Rig) -> None:
    rig.live(10, steps(1, 1, at=0))
    with pytest.raises(LookupError, match="there is no history now"):
        await rig.read(Input(metric="pool.error_ratio", kind="calls", over=7200.0))


async def test_calls_of_before_a_restart_count(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with with_history(path) as rig:
        rig.live(120, steps(2, 2, at=0))
    async with with_history(path) as rig:
        rig.clock.advance(240)
        found = (await rig.read(Input(metric="operation.error_ratio", kind="calls", over=360.0)))[WORK, POOL]
    assert [*found.more] == [240, 120, pytest.approx(120, abs=2)]


# -- lines ------------------------------------------------------------------------------------------------------------


async def test_a_line_goes_through_the_figures_of_every_worker(ten_minutes: Rig) -> None:
    rig = ten_minutes
    found = (await rig.read(Input(metric="worker.rss", kind="fit", over=600.0)))[POOL, SLOT]
    slope, error, explained, points = found.more
    assert found.value == pytest.approx(100 * MIB + 600_000, rel=1e-4)
    assert slope == pytest.approx(1000, rel=0.01)
    assert error < 10  # figures have seven digits
    assert explained > 0.999
    assert 50 <= points <= past_module.POINTS


async def test_a_line_goes_through_the_rates_of_every_pool(rig: Rig) -> None:
    rig.live(900, lambda second: calls(second // 150))
    found = (await rig.read(Input(metric="pool.rate", kind="fit", over=900.0)))[POOL,]
    assert found.value == pytest.approx(5.3, abs=0.6)
    assert found.more[0] == pytest.approx(1 / 150, rel=0.1)
    counted = (await rig.read(Input(metric="pool.calls", kind="fit", window="5m", over=900.0)))[POOL,]
    assert counted.value == pytest.approx(300 * (found.value or 0), rel=0.05)  # in a window, not in a step


async def test_a_gap_in_a_line_is_left_out(rig: Rig) -> None:
    """Fifteen minutes of which the latest third was not measured: the line is that of the rest."""
    rig.live(600, growing(1000))
    rig.clock.advance(300)
    rig.collector.tick()
    found = (await rig.read(Input(metric="worker.rss", kind="fit", over=900.0)))[POOL, SLOT]
    assert found.value == pytest.approx(100 * MIB + 900_000, rel=1e-3)
    rig.clock.advance(300)
    rig.collector.tick()
    found = (await rig.read(Input(metric="worker.rss", kind="fit", over=900.0)))[POOL, SLOT]
    assert found == Sample((POOL, SLOT), None)  # less than half


async def test_a_line_through_what_is_not_kept_is_refused_in_words(rig: Rig) -> None:
    for metric in ("pool.sessions", "pool.busy_ratio", "monitor.memory_bytes", "loop.lag.p99"):
        with pytest.raises(LookupError, match=f"{metric} is not kept"):
            await rig.read(Input(metric=metric, kind="fit", over=1800.0))
    with pytest.raises(LookupError, match=r"there is no metric 'pool.nope'"):
        await rig.read(Input(metric="pool.nope", kind="fit", over=1800.0))


@given(
    st.lists(
        st.tuples(st.integers(-86_400, 0), st.floats(-1e9, 1e9)),
        min_size=3,
        max_size=60,
        unique_by=lambda pair: pair[0],
    )
)
def test_a_line_is_that_of_numpy(points: list[tuple[int, float]]) -> None:
    xs, ys = np.array([x for x, _ in points], float), np.array([y for _, y in points])
    line = fit(points)
    assert line is not None
    slope, value = np.polyfit(xs, ys, 1)
    scale = max(float(np.abs(ys).max()), 1.0)
    assert line.slope == pytest.approx(slope, rel=1e-6, abs=1e-6 * scale)
    assert line.value == pytest.approx(value, rel=1e-6, abs=1e-6 * scale)
    spread = float(((ys - ys.mean()) ** 2).sum())
    left = float(((ys - np.polyval((slope, value), xs)) ** 2).sum())
    if spread > 1e-6 * scale**2:
        assert line.explained == pytest.approx(1 - left / spread, abs=1e-6)
        assert line.slope_error == pytest.approx(
            np.sqrt(left / (len(points) - 2) / ((xs - xs.mean()) ** 2).sum()), rel=1e-4, abs=1e-6 * scale
        )


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(0.0, 1.0), (1.0, 2.0)], [(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]])
def test_there_is_no_line_through_too_few_points(points: list[tuple[float, float]]) -> None:
    assert fit(points) is None


def test_a_line_through_constant_values_is_level_and_certain() -> None:
    assert fit([(-float(x), 7.0) for x in range(10)]) == (7.0, 0.0, 0.0, 1.0, 10)


# -- reading ----------------------------------------------------------------------------------------------------------


class Disk:
    """A history whose answers the test gives."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def summary(self, _start: float, _end: float) -> Summary:
        self.asked += 1
        return samples.summary("text")

    async def counts(self, _start: float, _end: float) -> dict[str, PoolCounts]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return {"text": PoolCounts(7200.0, ErrorRate(calls=9, errors=1, error_ratio=1 / 9), {})}


LONG = Input(metric="pool.error_ratio", kind="calls", over=7200.0)


def slow(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    rig.asked = disk  # type: ignore[assignment]
    monkeypatch.setattr(past_module, "PATIENCE_S", 0.01)
    return disk


async def test_an_answer_is_used_for_its_lifetime(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = slow(rig, monkeypatch)
    disk.answers.set()
    for seconds, times in ((0, 1), (29, 1), (2, 2), (29, 2), (10, 3)):
        rig.clock.advance(seconds)
        await rig.read(LONG)
        assert disk.asked == times, "an answer about two hours holds for 30 s"


async def test_several_metrics_of_one_stretch_are_read_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = slow(rig, monkeypatch)
    disk.answers.set()
    wanted = [
        LONG,
        Input(metric="operation.error_ratio", kind="calls", over=7200.0),
        *(Input(metric=f"pool.{field}", window="5m", back=7200.0) for field in ("rate", "latency.p95", "calls")),
    ]
    await rig.past.prepare(wanted)
    assert disk.asked == len({stretch_of(one) for one in wanted}) == 2


async def test_a_slow_disk_delays_nothing_but_its_own_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = slow(rig, monkeypatch)
    with pytest.raises(LookupError, match="not read yet"):
        await rig.read(LONG)
    with pytest.raises(LookupError, match="not read yet"):
        await rig.read(LONG)
    assert disk.asked == 1, "it is not asked again while it owes an answer"
    disk.answers.set()
    await asyncio.sleep(0)
    await rig.read(LONG)
    disk.answers.clear()
    rig.clock.advance(40)
    assert await rig.read(LONG), "the answer of before is used"
    rig.clock.advance(100)
    with pytest.raises(LookupError, match="has not answered for 140 s"):
        await rig.read(LONG)
    await rig.past.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [(ConfigError("steps are kept for 60 s only"), "kept for 60 s"), (OSError("disk on fire"), "disk on fire")],
)
async def test_a_reading_that_fails_is_an_error_and_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    disk = slow(rig, monkeypatch)
    disk.answers.set()
    disk.error = error
    with pytest.raises(LookupError, match=words):
        await rig.read(LONG)
    disk.error = None
    rig.clock.advance(30)
    assert await rig.read(LONG)


async def test_what_no_rule_wants_any_more_is_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(rig, monkeypatch).answers.set()
    await rig.read(LONG)
    await rig.past.prepare([])
    with pytest.raises(LookupError, match="not read yet"):
        rig.past.samples(LONG, Instances(samples.snapshot()))
