"""What counting costs a service that has been running for more than an hour: recording, folding and ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from benchmarks.calls import Hour, an_hour, done, emit_ended, rows_of, skip_all
from benchmarks.metrics_peers import PROMETHEUS, Prometheus, installed
from benchmarks.tables import Table
from benchmarks.turns import Turn, cpu_ns, percentile
from pool_monitor.metrics.intake import BUFFER_EVENTS

LOADS = ((20, 1), (20, 10), (20, 100), (200, 1), (200, 10), (200, 100), (2000, 1), (2000, 10))
"""Series, and calls a second of each operation."""
SECONDS, MOST_SECONDS, CALLS = 61, 301, 20_000
"""How long each load is measured, and how many calls if it is to be measured longer."""
PEERS = ("three histograms", "one histogram")
PEER_CALLS = 20_000
"""How many of these calls the peer gets."""


class Steady(NamedTuple):
    """What one load costs, ns."""

    series: int
    per_second: int
    recording: float
    folding: float
    ticks: float
    folds: list[int]
    """Of each folding."""
    steps: list[int]
    """Of each step of a tick."""
    peer: dict[str, float]

    @property
    def all_in(self) -> float:
        return self.recording + self.folding + self.ticks


def measure(hour: Hour, seconds: int) -> Steady:
    """Continue for *seconds*, with calls one by one in random order. The peer gets the same calls."""
    collector, count = hour.collector, hour.per_second
    work = done(hour.rows, max(4 * BUFFER_EVENTS, count))
    loop_ns = cpu_ns(partial(skip_all, work)) / len(work)
    peers = _peers(work)
    recording, calls, folds, ticks = 0.0, 0, [], []
    spent = dict.fromkeys(peers, 0.0)
    asked = dict.fromkeys(peers, 0)
    for second in range(seconds):
        first = second * count % len(work)
        chosen = [*work[first : first + count], *work[: max(first + count - len(work), 0)]]
        for at in range(0, count, BUFFER_EVENTS - 1):
            part = chosen[at : at + BUFFER_EVENTS - 1]
            recording += cpu_ns(partial(emit_ended, part)) - loop_ns * len(part)
            folds.append(cpu_ns(partial(next, collector.ticking())))  # folds only: no second has passed
            calls += len(part)
        for name, turn in peers.items():
            if asked[name] < PEER_CALLS:
                same = turn.work[first : first + count]
                spent[name] += cpu_ns(partial(turn.run, same)) - cpu_ns(partial(turn.loop, same))
                asked[name] += len(same)
        hour.clock.advance(1)
        steps = collector.ticking()
        while ns := _step(steps):
            ticks.append(ns)
    peer = {name: spent[name] / asked[name] for name in peers}
    return Steady(hour.series, count, recording / calls, sum(folds) / calls, sum(ticks) / calls, folds, ticks, peer)


def _step(steps: Iterator[None]) -> int | None:
    """Return what the next of *steps* takes, ns; None after the last one."""
    ended: list[bool] = []
    ns = cpu_ns(lambda: ended.append(next(steps, True) is True))
    return None if ended == [True] else max(ns, 1)


def _peers(work: Sequence[Any]) -> dict[str, Turn]:
    if not installed(PROMETHEUS):
        return {}
    peer = Prometheus()
    return dict(zip(PEERS, (peer.three_histograms(work), peer.one_histogram(work)), strict=True))


def measured(loads: Sequence[tuple[int, int]] = LOADS, seconds: int | None = None) -> list[Steady]:
    steady = []
    for series, rate in loads:
        rows = rows_of(series)
        with an_hour(rows, rate * len(rows)) as hour:
            enough = min(max(SECONDS, CALLS // hour.per_second), MOST_SECONDS)
            steady.append(measure(hour, seconds or enough))
    return steady


def cost_table(steady: Sequence[Steady]) -> Table:
    head = ["cheaper than three histograms", "than one and a gauge", "record", "folded", "ticks", "all in", PROMETHEUS]
    busiest = min(one.all_in for one in steady)
    return Table(
        "all in, after an hour",
        "ns per call, when all windows are full and drop as much as they take in. Calls end one by one, in random "
        f"order. The list is folded when it holds {BUFFER_EVENTS - 1:,} calls, and each second, when the windows move "
        f"on. Beside it {PROMETHEUS}, bound, gets the same calls in turns: three histograms and a counter (which keep "
        "what ours keeps, without windows), or a histogram, a counter and a gauge up and down. With few calls, the "
        "constant cost of a second weighs on each of them. At the highest rate here, a core could take in "
        f"{1e9 / busiest:,.0f} calls a second.",
        ["", *head, "of a core"],
        [
            [
                _load(one),
                *(f"{one.peer[name] / one.all_in:.2f}" if one.peer else "-" for name in PEERS),
                *(f"{ns:,.0f}" for ns in (one.recording, one.folding, one.ticks, one.all_in)),
                f"{one.peer[PEERS[0]]:,.0f}" if one.peer else "not installed",
                f"{one.all_in * one.per_second / 1e7:.3f} %",
            ]
            for one in steady
        ],
    )


def pause_table(steady: Sequence[Steady]) -> Table:
    head = [[f"{what} p50 ms", "p99", "longest"] for what in ("folding", "step of a tick")]
    return Table(
        "pauses",
        f"For how long the event loop is blocked, in processor time: by folding up to {BUFFER_EVENTS - 1:,} calls, and "
        "by each step of a tick. Between the steps the loop runs other callbacks.",
        ["", *chain.from_iterable(head)],
        [[_load(one), *(cell for ns in (one.folds, one.steps) for cell in _pauses(ns))] for one in steady],
    )


def _load(one: Steady) -> str:
    return f"{one.series:,} series, {one.per_second:,} calls/s"


def _pauses(ns: Sequence[int]) -> list[str]:
    return [f"{percentile(ns, share) / 1e6:.2f}" for share in (0.5, 0.99, 1.0)]
