"""What answers cost: percentiles, the Snapshot, queries over the last hour, the page for Prometheus."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from benchmarks.calls import PAST, POOL, Past, Row, attached, done, emit_ended, grow_old, room_for, rows_of
from benchmarks.metrics_peers import PROMETHEUS, Prometheus, installed
from benchmarks.tables import Table
from benchmarks.turns import cpu_ns, in_turns
from pool_monitor import Monitor, MonitorConfig
from pool_monitor.clock import ManualClock
from pool_monitor.config import MetricsConfig
from pool_monitor.export.prometheus import render
from pool_monitor.metrics import WINDOWS
from pool_monitor.metrics.call_stats import SHARES
from pool_monitor.metrics.histogram import quantiles
from pool_monitor.snapshot import PoolView, WorkerView

ROUNDS = 9
ASKED = list(WINDOWS.values())[:3]
HDR = "HdrHistogram, ring of 60"
SLOTS, IN_SLOT = 60, 50
"""Of the ring: a five-minute window of ten calls a second."""


class Question(NamedTuple):
    """A query that is measured."""

    ask: Callable[[], object]
    before: Callable[[], object]
    """Not measured."""
    times: int = 1
    peer: str = ""
    """Name of the peer's answer, and how many of them the query takes."""
    of_peer: int = 1


class Slots:
    """A pool that has only gauges."""

    def __init__(self, workers: int) -> None:
        self.name = POOL
        self._status = PoolView(
            name=POOL, state="running", size=workers, busy=0, idle=workers, starting=0, draining=0, dead=0, waiting=0,
            queue_limit=10_000, sessions=0, restarts=0, completed=0,
        )  # fmt: skip
        self._workers = [
            WorkerView(
                id=f"{POOL}-{slot}", state="ready", state_age=1.0, pid=1, age=1.0, restarts=0, operation=None
            )
            for slot in range(workers)
        ]  # fmt: skip

    def status(self) -> PoolView:
        return self._status

    def workers(self) -> list[WorkerView]:
        return self._workers


class Watched(NamedTuple):
    """A monitor of a pool that has been busy for more than an hour."""

    monitor: Monitor
    clock: ManualClock
    rows: list[Row]

    def go_on(self) -> None:
        """Let a second pass, so that nothing of the last answer can be reused."""
        emit_ended(done(self.rows, 100))
        self.clock.advance(1)
        self.monitor._collector.tick()

    def percentiles(self) -> None:
        for window in ASKED:
            self.monitor._collector.pool_stats(POOL, window)

    def page(self) -> bytes:
        return render(self.monitor.snapshot(), self.monitor.metrics.totals())

    def range(self) -> object:
        now = self.clock.wall_ns() / 1e9
        return self.monitor.metrics.range(now - 880, now, "10s")


@contextmanager
def watched(series: int, per_second: int, workers: int = 1, past: Past = PAST) -> Iterator[Watched]:
    clock, rows = ManualClock(), rows_of(series, workers)
    config = MonitorConfig(metrics=MetricsConfig(series_limit=room_for(rows)))
    monitor = Monitor(Slots(workers), config=config, clock=clock)
    with attached(monitor._collector):
        grow_old(monitor._collector, clock, rows, per_second, past)
        yield Watched(monitor, clock, rows)


def table(rounds: int = ROUNDS, sizes: tuple[int, int] = (200, 2000), fleet: tuple[int, int] = (64, 5)) -> Table:
    workers, operations = fleet
    costs: dict[str, list[float]] = {}
    questions: dict[str, Question] = {}
    for series in sizes:
        with watched(series, -(-series // 3)) as one:
            found = _percentiles(one, series)
            if series == min(sizes):
                found = {**_of_one(one), **found}
            else:
                found[f"a page for Prometheus, {series:,} series"] = Question(one.page, one.go_on, peer=PROMETHEUS)
            costs |= measure(found, rounds)
            questions |= found
    with watched(3 * workers * operations, 2 * workers * operations, workers) as one:
        found = _answers(one, f"{workers} workers x {operations} operations")
        costs |= measure(found, rounds)
        questions |= found
    peers = _peers(rows_of(max(sizes)))
    costs |= measure(peers, rounds)
    return Table(
        "answers",
        f"Processor time, median of {rounds}. Each query comes a second after the last one. Each operation is called "
        "once a second, or twice on each of several workers, and the windows are full. All percentiles: "
        f"{len(SHARES)} of latency, queue and execution of every operation and of the whole pool, in "
        f"{', '.join(window.name for window in ASKED)}. {HDR}: the time to merge the ring of one series and read the "
        "same percentiles, multiplied by the number of series and windows. The page of prometheus_client has the same "
        "number of histograms, with 15 buckets, and of counters.",
        ["", "times cheaper", "ms", "peer", "its ms"],
        [[name, *_cells(question, statistics.median(costs[name]), costs)] for name, question in questions.items()],
    )


def _of_one(one: Watched) -> dict[str, Question]:
    totals = one.monitor.metrics.totals()
    ask = partial(quantiles, totals.counts[:1, :1].copy(), SHARES, totals.first)
    return {"percentiles of one series in one window": Question(ask, one.go_on, 100, HDR)}


def _percentiles(one: Watched, series: int) -> dict[str, Question]:
    totals = one.monitor.metrics.totals()
    raw = partial(quantiles, totals.counts, SHARES, totals.first)
    return {
        f"all percentiles, {series:,} series x {len(ASKED)} windows": Question(
            one.percentiles, one.go_on, 1, HDR, series * len(ASKED)
        ),
        f"percentiles of {series:,} histograms, without the rest": Question(raw, one.go_on, 1, HDR, series),
    }


def _answers(one: Watched, of: str) -> dict[str, Question]:
    metrics = one.monitor.metrics
    asks: dict[str, Callable[[], object]] = {
        f"Snapshot, {of}": one.monitor.snapshot,
        "range of 15 minutes by 10 s": one.range,
        "error rates by operation": metrics.error_rates,
        "summary of 15 minutes": metrics.summary,
        "totals": metrics.totals,
    }
    return {name: Question(ask, one.go_on) for name, ask in asks.items()}


def _peers(rows: list[Row]) -> dict[str, Question]:
    from hdrh.histogram import HdrHistogram

    def ring() -> Any:
        merged = HdrHistogram(1, 3_600_000_000, 2)
        for slot in slots:
            merged.add(slot)
        return merged.get_percentile_to_value_dict([share * 100 for share in SHARES])

    slots = []
    for number in range(SLOTS):
        slot = HdrHistogram(1, 3_600_000_000, 2)
        for one in done(rows[:1], IN_SLOT, number):
            slot.record_value(round(one.seconds[0] * 1e6))
        slots.append(slot)
    found = {HDR: Question(ring, lambda: None)}
    if installed(PROMETHEUS):
        from prometheus_client import generate_latest

        peer = Prometheus()
        for row in rows:
            peer.bound(row)
        peer.three_histograms(done(rows, len(rows)))
        found[PROMETHEUS] = Question(partial(generate_latest, peer.registry), lambda: None)
    return found


def measure(questions: dict[str, Question], rounds: int) -> dict[str, list[float]]:
    """Return ms of every answer in each round."""
    costs: dict[str, list[float]] = {name: [] for name in questions}
    for _, name in in_turns(list(questions), rounds, "answers"):
        question = questions[name]
        question.before()
        ns = cpu_ns(lambda question=question: [question.ask() for _ in range(question.times)])  # type: ignore[misc]
        costs[name].append(ns / question.times / 1e6)
    return costs


def _cells(question: Question, ms: float, costs: dict[str, list[float]]) -> list[str]:
    if not question.peer:
        return ["-", f"{ms:,.3f}", "-", "-"]
    if question.peer not in costs:
        return ["-", f"{ms:,.3f}", question.peer, "not installed"]
    its = statistics.median(costs[question.peer]) * question.of_peer
    return [f"{its / ms:.1f}", f"{ms:,.3f}", question.peer, f"{its:,.3f}"]
