"""The benchmarks themselves: every pool they compare can be used and leaves nothing, and their tables are true."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import (
    bench_cost,
    bench_metrics,
    bench_peers,
    bench_pool,
    calls,
    figures,
    metrics_blocking,
    metrics_designs,
    metrics_memory,
    metrics_peers,
    metrics_queries,
    metrics_steady,
    metrics_store,
    peers,
    speed,
    tables,
    turns,
)
from benchmarks.__main__ import main as command
from benchmarks.load import PAYLOAD, Beat, Load, Slice, drive
from benchmarks.peers import ALL, BASE, FLOODED, PEERS, VARIANTS, Ours, OursMap, OursOnUvloop, Peer, Standard
from benchmarks.runner import Orphans, Runner, Trouble
from benchmarks.scenarios import Loss, Served
from benchmarks.tables import Table
from benchmarks.turns import Turn
from pool_monitor.clock import ManualClock
from pool_monitor.metrics import WINDOWS, Collector

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by their environment")
OURS = Ours.label


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made
    assert made.left() == []


class NotInstalled(Standard):
    label, package = "not there", "a_package_that_nobody_has"


class TestPools:
    @pytest.mark.slow
    @pytest.mark.gate
    @pytest.mark.parametrize("label", PEERS)
    def test_each_answers_a_call_and_leaves_nothing_when_closed(self, label: str, runner: Runner):
        if not PEERS[label].installed():
            pytest.skip(f"{PEERS[label].package} is not installed")
        child = runner.start(label, "answer", 2)
        assert child.read(dict, 30.0) == PAYLOAD
        assert child.finish() == []
        assert child.code == 0

    def test_ours_and_the_one_all_are_compared_with_need_nothing_installed(self):
        assert PEERS[OURS].installed()
        assert PEERS[BASE].installed()

    def test_one_that_is_not_installed_is_listed_as_that(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(ALL, NotInstalled.label, NotInstalled)
        assert peers.parted([BASE, NotInstalled.label]) == ([BASE], [NotInstalled.label])

    def test_a_choice_is_of_beginnings_and_brings_the_one_all_are_compared_with(self):
        assert bench_peers.chosen(None) == [*PEERS, *VARIANTS]
        assert set(bench_peers.chosen(["ANYIO", "pool_monitor,"])) == {
            BASE,
            "anyio.to_process",
            "pool_monitor, prefetch=1",
            "pool_monitor, monitored",
            "pool_monitor, on uvloop",
            "pool_monitor, map(in_flight=64)",
        }
        with pytest.raises(ValueError, match="no peer 'celery'; there are ProcessPoolExecutor, "):
            bench_peers.chosen(["celery"])


class TestLoad:
    async def test_every_caller_calls_once_however_short_the_slice(self):
        made: list[object] = []

        async def call(payload: object) -> None:
            made.append(payload)

        done = await drive(call, Load("small", 3, 0.0), then=lambda: made.append("then"))
        assert made == [PAYLOAD] * 3 + ["then"]
        assert done.calls == 3
        assert done.held_ms is None

    async def test_calls_at_a_rate_are_spread_over_the_slice(self):
        made: list[float] = []

        async def call(_payload: object) -> None:
            made.append(time.perf_counter())

        done = await drive(call, Load("small", 8, 0.2, rate=50.0))
        assert done.calls == len(made) == 10
        assert done.seconds >= 0.2
        assert all(at >= made[0] + 0.02 * number - 0.02 for number, at in enumerate(made))

    async def test_calls_at_a_rate_are_bounded(self):
        under_way: set[int] = set()
        most = 0

        async def call(_payload: object) -> None:
            nonlocal most
            under_way.add(id(asyncio.current_task()))
            most = max(most, len(under_way))
            await asyncio.sleep(0.001)
            under_way.discard(id(asyncio.current_task()))

        done = await drive(call, Load("small", 2, 0.001, rate=20_000.0))
        assert (done.calls, most) == (20, 2)

    async def test_a_call_that_fails_at_a_rate_ends_the_slice(self):
        async def call(_payload: object) -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await drive(call, Load("small", 1, 0.01, rate=500.0))

    async def test_a_slice_without_calls_has_no_figures_per_call(self):
        async def call(_payload: object) -> None:
            raise AssertionError("none was asked for")

        done = await drive(call, Load("small", 1, 0.0, rate=0.0))
        assert (done.calls, done.parent_us, done.workers_us, done.p50_us, done.p99_us) == (0, None, None, None, None)

    async def test_the_longest_turn_of_the_event_loop_is_measured(self):
        beat = Beat()
        await asyncio.sleep(0)
        time.sleep(0.02)
        await asyncio.sleep(0)
        beat.stop()
        assert beat.longest_s >= 0.02
        assert beat.longest_s == pytest.approx(0.02, abs=5.0)

    async def test_of_very_many_calls_at_once_the_longest_turn_is_told(self):
        async def call(_payload: object) -> None:
            await asyncio.sleep(0)

        done = await drive(call, Load("small", 100, 0.0, beats=True))
        assert done.calls == 100
        assert done.held_ms is not None
        assert 0.0 < done.held_ms <= done.seconds * 1e3


class TestRunner:
    def test_a_pool_serves_slices_of_load_until_told_to_end(self, runner: Runner):
        child = runner.start(OURS, "serve", 2)
        assert len(set(child.read(list[int], 30.0))) == 2
        for load in (Load("small", 2, 0.05), Load("1 MiB", 2, 0.05), Load("small", 2, 0.05, rate=100.0)):
            done = child.serve(load)
            assert isinstance(done, Slice)
            assert done.per_second > 0
            assert done.p50_us is not None
            assert done.p99_us is not None
            assert done.p50_us <= done.p99_us
            assert done.parent_us is not None
            assert done.workers_s > 0
            assert 0.0 <= done.others <= (os.cpu_count() or 1)
        assert child.finish() == []
        assert child.code == 0

    def test_a_pool_on_uvloop_is_used_from_that_loop(self):
        uvloop = pytest.importorskip("uvloop")
        loop = OursOnUvloop.loop()
        loop.close()
        assert isinstance(loop, uvloop.Loop)

    def test_one_that_does_not_answer_hangs_and_is_ended(self, runner: Runner):
        child = runner.start(BASE, "serve", 2)
        assert len(child.read(list[int], 30.0)) == 2
        assert child.read(Slice, 0.0) == Trouble("hangs")
        assert runner.left()
        child.end()
        assert runner.left() == []

    def test_leaving_it_ends_whatever_is_still_there(self):
        with Runner() as runner:
            child = runner.start(BASE, "serve", 2)
            assert len(child.read(list[int], 30.0)) == 2
            assert len(runner.left()) == 3
        assert runner.left() == []
        child.end()

    def test_one_that_fails_says_why(self, runner: Runner):
        assert runner.ask("no such pool", "answer", 2, dict, 30.0) == Trouble("failed: KeyError: 'no such pool'")

    def test_what_a_killed_parent_leaves_is_counted_and_ended(self, runner: Runner):
        found = []
        for label in (BASE, OURS):
            child = runner.start(label, "orphan", 2)
            pids = child.read(list[int], 30.0)
            assert not isinstance(pids, Trouble)
            found.append(child.kill_parent(pids, patience=0.2 if label == BASE else 10.0))
            child.end()
        theirs, ours = found
        assert (theirs.workers, theirs.workers_left, theirs.gone_ms) == (2, 2, None)
        assert (ours.workers_left, ours.others_left) == (0, 0)
        assert ours.gone_ms is not None

    @pytest.mark.parametrize("scenario", ["cold", "lose_idle"])
    def test_our_pool_serves_with_all_its_workers_in_the_end(self, scenario: str, runner: Runner):
        result = runner.ask(OURS, scenario, 2, Served, 30.0)
        assert isinstance(result, Served)
        assert result.full_ms is not None
        assert result.first_ms is not None
        assert not result.silent


class TestTables:
    def test_a_terminal_gets_columns_in_line(self):
        table = tables.Table("speed", "what it is", ["", "calls/s"], [["a", "1"], ["long name", "1,234"]])
        assert tables.text(table).splitlines() == [
            "speed",
            "what it is",
            "",
            "           calls/s",
            "a                1",
            "long name    1,234",
        ]

    def test_a_readme_gets_markdown(self):
        table = tables.Table("speed", "what it is", ["", "calls/s"], [["a|b", "1"]])
        assert tables.markdown(table).splitlines() == [
            "### speed",
            "",
            "what it is",
            "",
            "|  | calls/s |",
            "| --- | ---: |",
            "| a\\|b | 1 |",
        ]

    def test_a_start_has_its_ratio_and_what_a_further_worker_costs(self):
        few = {BASE: [Served(10.0, 12.0)], OURS: [Served(5.0, 6.0), Served(7.0, 8.0), Trouble("hangs")]}
        more = {BASE: [Served(10.0, 20.0)], OURS: [Trouble("failed: x")]}
        assert figures.cold_table(few, more, ["y"]).rows == [
            [BASE, "10.0", "1.00", "12.0", "2.0"],
            [OURS, "6.0 (hangs 1 of 3)", "0.60", "7.0 (hangs 1 of 3)", "-"],
            ["y", "not installed", "-", "-", "-"],
        ]

    def test_losing_an_idle_worker_is_told_with_what_callers_got(self):
        broken = Served(errors={"BrokenProcessPool": 700})
        rows = figures.idle_table(
            {
                BASE: [broken, broken],
                "silent": [Served(silent=True), Served(1.0, 400.0)],
                OURS: [Served(1.0, 2.0, {"WorkerDied": 1}), Served(3.0, 4.0, {"WorkerDied": 1})],
                "quiet": [Served(1234.0, 2345.0)],
            },
            [],
        ).rows
        assert rows == [
            [BASE, "never", "never", "BrokenProcessPool at every call", "no"],
            ["silent", "1.0 (hangs 1 of 2)", "400 (hangs 1 of 2)", "no answer", "1 of 2"],
            [OURS, "2.0", "3.0", "1 x WorkerDied", "yes"],
            ["quiet", "1,234", "2,345", "nothing", "yes"],
        ]

    def test_losing_a_busy_worker_is_told_with_what_else_was_lost(self):
        after = Served(1.0, 2.0)
        rows = figures.busy_table(
            {
                BASE: [Loss("BrokenProcessPool", 1.5, 5, 5, Served(errors={"BrokenProcessPool": 9}))],
                "silent": [Loss(None, None, 5, 0, Served(silent=True))],
                "again": [Loss("", None, 5, 0, after)],
                OURS: [Loss("WorkerDied", 1.0, 5, 0, after)],
                "z": [Trouble("hangs")],
            },
            [],
        ).rows
        assert rows == [
            [BASE, "BrokenProcessPool", "1.5", "5 of 5", "broken"],
            ["silent", "no answer", "-", "0 of 5", "hangs"],
            ["again", "its result: it ran again", "-", "0 of 5", "serves"],
            [OURS, "WorkerDied", "1.0", "0 of 5", "serves"],
            ["z", "hangs", "-", "-", "-"],
        ]

    def test_cancelling_is_told_as_a_time_or_as_no(self):
        results = {BASE: [Served(first_ms=1.0)], OURS: [Served(1.0, 2.0)]}
        assert figures.cancel_table(results, ["y"]).rows == [[BASE, "no"], [OURS, "2.0"], ["y", "not installed"]]

    def test_orphans_are_counted_workers_and_helpers_apart(self):
        results = {BASE: [Orphans(2, 2, 1, 1, None)], OURS: [Orphans(2, 0, 0, 0, 7.0)]}
        assert figures.orphan_table(results, []).rows == [[BASE, "2 of 2", "1 of 1", "-"], [OURS, "0 of 2", "-", "7.0"]]


def slice_of(calls: int, others: float = 0.0, parent_s: float = 0.01) -> Slice:
    """A slice of a second."""
    return Slice(calls, 1.0, 100.0, 1234.5, parent_s, None, 0.02, others)


class TestSpeed:
    def test_undisturbed_slices_count(self):
        assert speed.quiet([0.0, 0.3, 0.1, 0.2]) == [0, 2]

    def test_where_too_few_slices_are_undisturbed_the_half_disturbed_least_counts(self):
        assert speed.quiet([0.0, 1.5, 0.3, 1.9]) == [0, 2]
        assert speed.quiet([0.4, 0.3, 0.2]) == [1, 2]
        assert speed.quiet([]) == []

    def test_a_ratio_is_the_median_of_the_rounds_in_which_both_count(self):
        base = [slice_of(100), slice_of(200), slice_of(400, others=0.5), slice_of(100)]
        ours = [slice_of(200), slice_of(800), slice_of(400), slice_of(900, others=0.5)]
        assert [one.calls / other.calls for one, other in speed.pairs(ours, base)] == [2.0, 4.0]
        [_, row, _] = speed.speed_table("speed", {BASE: base, OURS: ours, "x": Trouble("hangs")}).rows
        assert row == [OURS, "400", "3.00", "100", "1,234", "25.0", "50.0"]

    def test_a_table_says_how_many_slices_count(self):
        quiet, disturbed = slice_of(10), [slice_of(10, others=used) for used in (0.2, 0.3, 0.7)]
        made = {BASE: [quiet, quiet, disturbed[2]], OURS: [quiet] * 3, "x": disturbed}
        table = speed.speed_table("speed", made)
        assert "2 to 3 of 3 slices count: in the others, other processes used over 0.1 processors." in table.about
        assert "up to 0.30 processors: x." in table.about

    def test_what_cannot_be_measured_is_not_made_up(self):
        mapped = slice_of(10)._replace(p50_us=None, p99_us=None)
        table = speed.speed_table("speed", {"map": [mapped], "x": Trouble("hangs"), "none": []})
        assert table.rows == [
            ["map", "10", "-", "-", "-", "1,000.0", "2,000.0"],
            ["x", "hangs", *"-----"],
            ["none", *"------"],
        ]

    def test_each_case_has_the_pools_and_the_ways_of_ours_that_it_is_about(
        self, monkeypatch: pytest.MonkeyPatch, runner: Runner
    ):
        monkeypatch.setitem(PEERS, NotInstalled.label, NotInstalled)
        here, missing = peers.parted([OursMap.label, OursOnUvloop.label])
        made = list(speed.speed_tables(runner, here, [*missing, NotInstalled.label], 0.01, 1))
        others = {OursOnUvloop.label, NotInstalled.label}
        assert list(map(names, made)) == [
            {NotInstalled.label},
            others,
            {OursMap.label, *others},
            {NotInstalled.label},
        ]
        assert all(float(row[1].replace(",", "")) > 0 for table in made for row in table.rows if row[0] in here)

    def test_a_pool_that_fails_costs_its_own_rows_only(self, monkeypatch: pytest.MonkeyPatch, runner: Runner):
        load = Load("small", 1, 0.01)
        good, bad = speed.speeds(runner, [(BASE, load), ("no such pool", load)], 1).values()
        assert isinstance(good, list)
        assert bad == Trouble("failed: KeyError: 'no such pool'")

    def test_very_many_calls_at_once_are_made_beside_those_of_asyncio(self, runner: Runner):
        table = bench_pool.flood_table(runner, calls=50, rounds=1)
        assert names(table) == set(FLOODED)
        assert all(float(row[1].replace(",", "")) >= 0 for row in table.rows)


class TestCost:
    @pytest.mark.slow
    @pytest.mark.gate
    def test_what_a_monitor_adds_is_measured(self, runner: Runner):
        found = bench_cost.measured(runner, "", Load("small", 2, 0.02, rate=100.0), rounds=2, sittings=1)
        assert isinstance(found, bench_cost.Cost)
        assert len(found.added) == 1
        assert found.added_us == []

    def test_slices_are_added_up_before_they_are_compared(self):
        [first, second] = bench_cost.added_up([slice_of(10, others=0.1)] * 5 + [slice_of(7, others=0.3)])
        assert (first.calls, first.seconds, first.parent_s, first.others) == pytest.approx((50, 5.0, 0.05, 0.1))
        assert (second.calls, second.others) == (7, 0.3)

    def test_at_a_rate_cores_are_compared(self):
        found = bench_cost.cost(Load("small", 1, 1.0, rate=10.0), [(slice_of(10, parent_s=0.03), slice_of(10))])
        assert found.added == pytest.approx([0.02])
        assert (found.bare, found.added_us) == ([0.01], [])

    def test_at_full_speed_calls_are_compared(self):
        pair = (slice_of(8_000, parent_s=0.96), slice_of(10_000, parent_s=1.0))
        found = bench_cost.cost(Load("small", 1, 1.0), [pair])
        assert found.added_us == pytest.approx([20.0])
        assert found.added == pytest.approx([0.2])  # at the rate without a monitor

    def test_what_cannot_be_told_from_nothing_is_shown_as_that(self):
        assert bench_cost.amount([0.5, 0.6, 0.7]) == ["0.60", "0.50 to 0.70"]
        assert bench_cost.amount([-0.02, 0.01, 0.041]) == ["< 0.05", "-"]
        assert bench_cost.amount([-0.061, -0.03, -0.02]) == ["< 0.07", "-"]
        assert bench_cost.amount([0.0, 0.0, 0.0]) == ["< 0.01", "-"]

    @pytest.mark.parametrize(
        ("points", "rate"),
        [
            ([(0, 0.001), (1000, 0.002), (5000, 0.018)], 3000.0),
            ([(5000, 0.018), (0, 0.001), (1000, 0.002)], 3000.0),
            ([(0, 0.001), (1000, 0.002)], None),
            ([(0, 0.02), (1000, 0.03)], 0.0),
            ([], None),
        ],
    )
    def test_the_rate_up_to_which_it_is_little_lies_between_those_measured(
        self, points: list[tuple[float, float]], rate: float | None
    ):
        assert bench_cost.reach(points) == (None if rate is None else pytest.approx(rate))

    def test_a_table_has_both_figures_and_the_rate_below_a_hundredth_of_a_core(self):
        costs = {
            "idle": bench_cost.Cost([0.0] * 3, [0.001] * 3, [0.0005, 0.001, 0.0015], []),
            "10,000 calls/s": bench_cost.Cost([1e4] * 3, [0.5] * 3, [0.018, 0.019, 0.021], []),
            "full speed": bench_cost.Cost([5e4] * 3, [1.0] * 3, [0.03] * 3, [0.6, 0.6, 0.7]),
            "x": Trouble("hangs"),
        }
        table = bench_cost.table(costs, 0.2)
        assert table.rows == [
            ["idle", "0", "0.10", "0.10", "0.05 to 0.15", "-", "-"],
            ["10,000 calls/s", "10,000", "50.00", "1.90", "1.80 to 2.10", "-", "-"],
            ["full speed", "50,000", "100.00", "3.00", "3.00 to 3.00", "0.60", "0.60 to 0.70"],
            ["x", "hangs", *"-----"],
        ]
        assert "With a confidence of 95 %, it is below 1% of a core up to 4,400 calls/s." in table.about

    @pytest.mark.parametrize(
        ("added", "said"), [(0.001, "below 1% of a core up to every rate here"), (0.02, "cannot tell whether")]
    )
    def test_a_table_claims_no_rate_that_was_not_measured(self, added: float, said: str):
        assert said in bench_cost.table({"idle": bench_cost.Cost([0.0], [0.001], [added], [])}, 0.2).about


class TestTurns:
    def test_every_round_begins_with_another_one(self):
        assert list(turns.in_turns("abc", 2, "")) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]

    def test_each_is_settled_and_measured_while_it_is_ready(self):
        seen: list[str] = []

        @contextmanager
        def ready() -> Iterator[None]:
            seen.append("ready")
            yield
            seen.append("over")

        def noted(what: str) -> Callable[..., None]:
            return lambda *_work: seen.append(what)

        turn = Turn(noted("run"), noted("loop"), "x", noted("settle"), ready)
        assert [len(costs) for costs in turns.warm({"a": turn}, 1, "").values()] == [1]
        assert seen == ["ready", "run", "settle", "loop", "run", "settle", "over"]
        seen.clear()
        assert [len(costs) for costs in turns.cold({"a": turn}, 1, "", singles=2).values()] == [1]
        assert seen == ["ready", "run", "settle", "run", "run", "loop", "loop", "settle", "over"]

    def test_a_ratio_is_that_of_the_middle_round(self):
        assert turns.ratio([10.0, 30.0, 90.0], [10.0, 10.0, 10.0]) == 3.0

    def test_an_interval_gets_narrower_with_more_rounds(self):
        assert turns.interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
        low, high = turns.interval([float(value) for value in range(101)])
        assert (low, high) == (40.0, 60.0)

    def test_a_percentile_is_one_of_the_values(self):
        values = [float(value) for value in range(1, 101)]
        assert [turns.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
        assert turns.percentile([7.0], 0.5) == 7.0


class TestMetrics:
    """Each table, in a tiny version: whether it can be made, never what it says."""

    def test_an_hour_fills_every_window_with_calls_of_every_operation(self):
        with calls.an_hour(calls.rows_of(6, workers=2), 3) as hour:
            stats = {name: hour.collector.pool_stats(calls.POOL, window) for name, window in WINDOWS.items()}
            assert hour.collector.self_view().overflowed == 0
            assert hour.series == 6
        for name, window in WINDOWS.items():
            assert stats[name].covered_seconds >= window.seconds - window.step
            assert stats[name].total.ok == pytest.approx(3 * stats[name].covered_seconds, rel=0.05)
            assert stats[name].workers.keys() == {"bench-0", "bench-1"}

    def test_a_collector_tells_apart_as_many_operations_as_there_is_room_for(self):
        rows = calls.rows_of(2100)
        collector = Collector([calls.POOL], ManualClock(), series_limit=calls.room_for(rows))
        with calls.attached(collector):
            calls.emit_ended([calls.done([row], 1)[0] for row in rows])
            assert collector.self_view().overflowed == 0

    def test_what_is_told_are_calls_with_three_durations(self):
        one = calls.done([("work", "bench-0")], 1)[0]
        latency, queue, execution = one.seconds
        assert latency == pytest.approx(queue + execution)
        assert one.row == ("work", "bench-0")

    @pytest.mark.parametrize("name", metrics_designs.DESIGNS)
    def test_every_design_counts_every_duration(self, name: str):
        rows = calls.rows_of(9)
        design = metrics_designs.DESIGNS[name](rows)
        with calls.attached(design):
            for _ in range(2):
                calls.emit_ended(calls.done(rows, 20))
                design.fold()
            assert design.counted() == 2 * 3 * 20

    def test_every_peer_counts_every_duration(self):
        work = calls.done(calls.rows_of(9), 20)
        prometheus = pytest.importorskip("prometheus_client")
        peer = metrics_peers.Prometheus()
        for turn in (peer.three_histograms(work), peer.with_labels(work), peer.one_histogram(work)):
            turn.loop(turn.work)
            turn.run(turn.work)
        page = prometheus.generate_latest(peer.registry).decode().splitlines()

        def total(beginning: str) -> float:
            return sum(float(line.split()[-1]) for line in page if line.startswith(beginning))

        assert [total(f"{name}_seconds_count") for name in ("latency", "queue", "execution")] == [60.0, 40.0, 40.0]
        assert total("calls_total") == 60.0
        assert total("under_way") == 0.0

    @pytest.mark.parametrize("exponential", [False, True])
    def test_opentelemetry_counts_every_duration(self, exponential: bool):
        pytest.importorskip("opentelemetry.sdk.metrics")
        peer = metrics_peers.OpenTelemetry(exponential=exponential)
        turn = peer.three_histograms(calls.done(calls.rows_of(9), 20))
        turn.run(turn.work)
        data = peer.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        counted = {metric.name: sum(_points(metric)) for metric in metrics}
        assert counted == {"latency": 20, "queue": 20, "execution": 20, "calls": 20}
        kinds = {type(metric.data).__name__ for metric in metrics}
        assert kinds == {"Sum", "ExponentialHistogram" if exponential else "Histogram"}

    def test_telling_is_compared_hot_scattered_and_cold(self):
        table = metrics_blocking.table(rounds=1, calls=3)
        assert {metrics_blocking.OURS, "pool_monitor, no handler"} <= names(table)

    @pytest.mark.slow
    @pytest.mark.gate
    def test_what_is_not_installed_is_listed_as_that(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(metrics_peers, "MODULES", dict.fromkeys(metrics_peers.MODULES, "a_package_that_nobody_has"))
        assert [row for row in metrics_blocking.table(1, 3).rows if row[1] == "not installed"] == [
            [package, "not installed", *"-----"] for package in metrics_peers.MODULES
        ]
        with calls.an_hour(calls.rows_of(3), 2) as hour:
            steady = [metrics_steady.measure(hour, 2)]
        assert metrics_steady.cost_table(steady).rows[0][-2] == "not installed"
        rows = metrics_queries.table(1, sizes=(3, 6), fleet=(1, 1)).rows
        assert [row[-1] for row in rows if row[3] == metrics_peers.PROMETHEUS] == ["not installed"]

    def test_the_designs_are_compared_at_every_number_of_series(self):
        assert names(metrics_designs.table(rounds=1, calls=3)) == set(metrics_designs.DESIGNS)

    def test_all_in_is_what_telling_folding_and_ticks_take(self):
        [steady] = metrics_steady.measured([(3, 2)], seconds=3)
        assert steady.all_in == steady.recording + steady.folding + steady.ticks
        assert (steady.series, steady.per_second, len(steady.folds)) == (3, 2, 3)
        assert len(steady.steps) >= 3
        assert names(metrics_steady.cost_table([steady])) == {"3 series, 2 calls/s"}
        assert names(metrics_steady.pause_table([steady])) == {"3 series, 2 calls/s"}

    def test_answers_are_asked_for(self):
        table = metrics_queries.table(1, sizes=(3, 6), fleet=(2, 2))
        assert {"Snapshot, 2 workers x 2 operations", "all percentiles, 6 series x 3 windows"} <= names(table)
        assert "a page for Prometheus, 6 series" in names(table)

    def test_memory_is_that_of_a_process_of_its_own(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(metrics_memory, "installed", lambda _package: False)
        table = metrics_memory.table([(3, 1)])
        [ours, *rest] = table.rows
        assert ours[0] == "pool_monitor, 3 series, 1 a second of each"
        assert float(ours[2]) > 0
        assert [row[1] for row in rest] == ["not installed"] * len(metrics_peers.MODULES)

    def test_the_memory_of_a_peer_is_measured(self):
        pytest.importorskip("prometheus_client")
        assert metrics_memory.measure(metrics_peers.PROMETHEUS, 6, 0).series == 6

    def test_a_history_is_written_second_by_second(self):
        written, flushes, busy, idle = asyncio.run(metrics_store.measure(6, 3))
        assert len(flushes) == 3
        assert busy
        assert idle
        assert len(written) == 3
        assert len(metrics_store.table(6, 2).rows) == 4

    def test_tables_are_chosen_by_beginnings(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(bench_metrics, "MADE", {"one": lambda: [Table("first", "", ["a"], [["b"]])], "two": list})
        assert bench_metrics.chosen(None) == ["one", "two"]
        assert bench_metrics.chosen(["t"]) == ["two"]
        monkeypatch.setattr(sys, "argv", ["benchmarks", "metrics", "--only", "o", "--markdown"])
        command()
        assert "### first" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["metrics", "--only", "nothing"], "no table 'nothing'; there are blocking, "),
            (["peers", "--only", "nothing"], "no peer 'nothing'; there are "),
            (["--only", "blocking"], "--only needs one of peers, metrics before it"),
            (["nothing"], "no benchmark nothing; there are telemetry, "),
        ],
    )
    def test_what_there_is_not_is_refused_before_anything_is_measured(
        self, given: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *given])
        with pytest.raises(SystemExit):
            command()
        assert said in capsys.readouterr().err


def names(table: Table) -> set[str]:
    """What its rows are about; every row is as long as the head."""
    assert {len(row) for row in table.rows} == {len(table.head)}
    return {row[0] for row in table.rows}


def _points(metric: Any) -> list[int]:
    points = metric.data.data_points
    return [point.count if hasattr(point, "count") else point.value for point in points]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("render", [False, True])
def test_the_whole_benchmark_of_the_peers_prints_its_tables(render: bool, capsys: pytest.CaptureFixture[str]):
    bench_peers.main(0.02, [OURS], as_markdown=render, rounds=2, few=1)
    out, err = capsys.readouterr()
    titles = (
        "small payload, 1 caller",
        "small payload, 64 callers",
        "1 MiB",
        "cold start",
        "idle worker",
        "busy worker",
        "cancel",
        "the parent",
    )
    assert all(title in out for title in titles)
    assert "left behind: nothing" in err


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_benchmarks_of_ours_alone_print_their_tables(capsys: pytest.CaptureFixture[str]):
    bench_pool.main(0.02, as_markdown=True, rounds=1, flood=100)
    bench_cost.main(0.02, as_markdown=True, rounds=1, sittings=1)
    out, err = capsys.readouterr()
    titles = ("1 caller", "64 callers", "1 MiB", "100 calls at once", "what a monitor costs")
    assert all(title in out for title in titles)
    assert err.count("left behind: nothing") == 2


def test_every_pool_has_a_name_of_its_own():
    assert all(issubclass(kind, Peer) and kind.label == label for label, kind in ALL.items())
