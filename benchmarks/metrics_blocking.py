"""What the telemetry of one call costs the code that ends the call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from benchmarks import turns
from benchmarks.calls import POOL, Row, attached, done, emit_ended, room_for, rows_of, skip_all
from benchmarks.metrics_peers import MODULES, OPENTELEMETRY, PROMETHEUS, OpenTelemetry, Prometheus, installed
from benchmarks.tables import Table
from benchmarks.turns import Turn
from pool_monitor import telemetry
from pool_monitor.clock import SystemClock
from pool_monitor.events import OPERATION_STOP
from pool_monitor.metrics import Collector
from pool_monitor.metrics.intake import BUFFER_EVENTS

ROUNDS, SERIES = 15, 2000
SLICE = min(1000, BUFFER_EVENTS - 1)
"""Calls per slice: so few that the collector does not fold meanwhile."""
BASE = f"{PROMETHEUS}, bound: three histograms, a counter"
OURS = "pool_monitor, the collector attached"


def table(rounds: int = ROUNDS, calls: int = SLICE) -> Table:
    one, many = (contenders(rows_of(series), calls) for series in (1, SERIES))
    columns = [
        turns.warm(one, rounds, "one series"),
        turns.warm(many, rounds, "many series"),
        turns.cold(many, rounds, "cold"),
    ]
    rows = [[name, *(cell for column in columns for cell in _cells(column, name))] for name in one]
    rows += [[package, "not installed", *"-----"] for package in MODULES if not installed(package)]
    return Table(
        "telemetry of one call, the part that blocks",
        f"What the pool pays when a call ends, ns, and how many times cheaper that is than {BASE}. Ours is all of "
        "`call_events.ended` without folding; theirs the bare calls. One row: the same three series again and again. "
        f"Scattered: {SERIES:,} series in random order. Cold: the same, with the caches filled with something else "
        f"before every call. Median of {rounds} rounds.",
        ["", "one row: times cheaper", "ns", "scattered: times cheaper", "ns", "cold: times cheaper", "ns"],
        rows,
    )


def contenders(rows: list[Row], calls: int) -> dict[str, Turn]:
    work, found = done(rows, calls), {}
    if installed(PROMETHEUS):
        found[BASE] = Prometheus().three_histograms(work)
        found[f"{PROMETHEUS}, bound: a gauge up and down, a histogram, a counter"] = Prometheus().one_histogram(work)
        found[f"{PROMETHEUS}, labels(): three histograms, a counter"] = Prometheus().with_labels(work)
    if installed(OPENTELEMETRY):
        for exponential, kind in ((False, "explicit"), (True, "exponential")):
            peer = OpenTelemetry(exponential=exponential)
            found[f"{OPENTELEMETRY}: three {kind} histograms, a counter"] = peer.three_histograms(work)
    collector = Collector([POOL], SystemClock(), series_limit=room_for(rows))
    ours: dict[str, tuple[Callable[[], AbstractContextManager[object]], Callable[[], object]]] = {
        "pool_monitor, no handler": (nullcontext, _nothing),
        "pool_monitor, one handler that does nothing, with mappings": (_no_op, _nothing),
        OURS: (partial(attached, collector), collector.tick),
    }
    for name, (ready, settle) in ours.items():
        found[name] = Turn(emit_ended, skip_all, work, settle, ready)
    return found


def _cells(costs: dict[str, list[float]], name: str) -> list[str]:
    ratio = f"{turns.ratio(costs[BASE], costs[name]):.2f}" if BASE in costs else "-"
    return [ratio, f"{statistics.median(costs[name]):,.0f}"]


def _nothing(*_: Any) -> None:
    pass


@contextmanager
def _no_op() -> Iterator[None]:
    telemetry.attach("benchmark", OPERATION_STOP.name, _nothing)
    try:
        yield
    finally:
        telemetry.detach("benchmark")
