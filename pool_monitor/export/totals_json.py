"""`Totals` as JSON, without loss, so that programs can add up the histograms of several processes or days.

Durations are whole nanoseconds. A histogram names the index of its first bucket in the base-2 exponential histogram
of scale 5 (`pool_monitor.metrics.histogram`) and has the counts from there up to its last bucket in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pool_monitor.events import SESSION_KINDS
from pool_monitor.export.tabular import SCHEMA, json_elements
from pool_monitor.metrics.columns import (
    BY_CATEGORY,
    BY_SESSION_KIND,
    CATEGORIES,
    DEATHS,
    DISTRIBUTIONS,
    GAUGE_SUMS,
    GAUGES,
    MEASURED_NS,
    OUTCOMES,
    POOL_SUMS,
    SAMPLES,
)
from pool_monitor.metrics.event_counters import COUNTERS, by_counter
from pool_monitor.metrics.failure_histograms import FailureDurations
from pool_monitor.metrics.histogram import BUCKETS, FIRST_INDEX, SCALE, Ints
from pool_monitor.metrics.series import Names, RowKey
from pool_monitor.metrics.totals import Totals


class Histogram(Struct, frozen=True, kw_only=True):
    """Durations of calls."""

    sum_ns: int
    offset: int
    """Index of the first bucket: index *k* holds ``(2**(k/32), 2**((k+1)/32)]`` seconds."""
    counts: list[int]


class SeriesTotals(Struct, frozen=True, kw_only=True):
    """One operation on one worker. ``worker`` is None for calls that never reached one."""

    pool: str
    operation: str
    worker: str | None
    outcomes: dict[str, int]
    latency: Histogram
    queue: Histogram
    execution: Histogram
    """All three histograms hold only calls that ended well."""
    busy_ns: int | None = None
    """Time on the worker, of calls with any outcome; None: not known."""
    since: float | None = None
    """When the row began to count; None: not known."""


class FailureTotals(Struct, frozen=True, kw_only=True):
    """The calls of an operation that did not end well, by outcome."""

    pool: str
    operation: str
    outcome: str
    latency: Histogram
    since: float


class PoolTotals(Struct, frozen=True, kw_only=True):
    """The counts of one pool."""

    pool: str
    calls: dict[str, dict[str, int]]
    """By session kind and outcome."""
    errors: dict[str, int]
    """By category."""
    deaths: int
    measured_ns: int
    """Nanoseconds that were measured."""
    samples: int
    """How many samples of the gauges were taken."""
    sampled: dict[str, int]
    """Sums of the samples, by gauge."""
    occurrences: dict[str, dict[str, int]] | None = None
    """Counts of events other than calls (`pool_monitor.metrics.event_counters`), by counter and label; None: not known.
    """


class TotalsForm(Struct, frozen=True, kw_only=True):
    """The JSON object. ``since`` and ``at`` are seconds since the epoch."""

    schema: int
    scale: int
    since: float
    at: float
    pools: list[PoolTotals]
    rows: list[SeriesTotals]
    failures: list[FailureTotals] = []


_decode = msgspec.json.Decoder(TotalsForm).decode


def encode(totals: Totals) -> Iterator[bytes]:
    """The JSON object, piece by piece."""
    head = {"schema": SCHEMA, "scale": SCALE, "since": totals.since, "at": totals.at}
    yield msgspec.json.encode(head)[:-1] + b',"pools":['
    yield from json_elements(_pool_form(totals, number, pool) for number, pool in enumerate(totals.names.pools))
    yield b'],"rows":['
    yield from json_elements(_series_form(totals, row, key) for row, key in enumerate(totals.names.rows))
    yield b'],"failures":['
    yield from json_elements(_failure_form(totals.failures, number) for number in range(len(totals.failures.keys)))
    yield b"]}\n"


def decode(body: bytes) -> Totals:
    """The totals that `encode` made *body* of. Raises ValueError for any other body."""
    try:
        form = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not valid totals: {error}") from error
    if (form.schema, form.scale) != (SCHEMA, SCALE):
        raise ValueError(
            f"totals have schema {form.schema}, scale {form.scale}, but this version reads schema {SCHEMA}, "
            f"scale {SCALE}"
        )
    histograms: list[Histogram] = [getattr(row, name) for row in form.rows for name in DISTRIBUTIONS]
    return Totals(
        since=form.since,
        at=form.at,
        names=Names(
            tuple((row.pool, row.operation, row.worker) for row in form.rows), tuple(pool.pool for pool in form.pools)
        ),
        outcomes=_table([_in_order(row.outcomes, OUTCOMES) for row in form.rows], len(OUTCOMES)),
        sums=_table([histogram.sum_ns for histogram in histograms], len(DISTRIBUTIONS)),
        counts=_dense(histograms).reshape(-1, len(DISTRIBUTIONS), BUCKETS),
        first=0,
        pool_sums=_table([_pool_sums(pool) for pool in form.pools], POOL_SUMS),
        busy=_known([row.busy_ns for row in form.rows], np.int64),
        born=_known([row.since for row in form.rows], np.float64),
        failures=FailureDurations(
            keys=tuple((failed.pool, failed.operation, failed.outcome) for failed in form.failures),
            counts=_dense([failed.latency for failed in form.failures]),
            sums=np.array([failed.latency.sum_ns for failed in form.failures], np.int64),
            born=np.array([failed.since for failed in form.failures], np.float64),
        ),
        occurrences=_known([_occurrences(pool) for pool in form.pools], np.int64),
    )


def _series_form(totals: Totals, row: int, key: RowKey) -> SeriesTotals:
    latency, queue, execution = (
        _histogram_form(int(totals.sums[row, number]), totals.counts[row, number], totals.first)
        for number in range(len(DISTRIBUTIONS))
    )
    pool, operation, worker = key
    return SeriesTotals(
        pool=pool,
        operation=operation,
        worker=worker,
        outcomes=_named(OUTCOMES, totals.outcomes[row].tolist()),
        latency=latency,
        queue=queue,
        execution=execution,
        busy_ns=None if totals.busy is None else int(totals.busy[row]),
        since=None if totals.born is None else float(totals.born[row]),
    )


def _failure_form(failures: FailureDurations, number: int) -> FailureTotals:
    pool, operation, outcome = failures.keys[number]
    return FailureTotals(
        pool=pool,
        operation=operation,
        outcome=outcome,
        latency=_histogram_form(int(failures.sums[number]), failures.counts[number], 0),
        since=float(failures.born[number]),
    )


def _histogram_form(sum_ns: int, counts: Ints, first: int) -> Histogram:
    used = np.flatnonzero(counts)
    start, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
    return Histogram(sum_ns=sum_ns, offset=FIRST_INDEX + first + start, counts=counts[start:end].tolist())


def _dense(histograms: list[Histogram]) -> NDArray[np.int64]:
    dense = np.zeros((len(histograms), BUCKETS), np.int64)
    for counts, histogram in zip(dense, histograms, strict=True):
        start, length = histogram.offset - FIRST_INDEX, len(histogram.counts)
        if not 0 <= start <= BUCKETS - length:
            raise ValueError(
                f"not valid totals: {length} buckets from index {histogram.offset} on are outside the known buckets"
            )
        counts[start : start + length] = histogram.counts
    return dense


def _pool_form(totals: Totals, number: int, pool: str) -> PoolTotals:
    sums = totals.pool_sums[number].tolist()
    by_kind = _table(sums[BY_SESSION_KIND], len(OUTCOMES)).tolist()
    return PoolTotals(
        pool=pool,
        calls={kind: _named(OUTCOMES, counts) for kind, counts in zip(SESSION_KINDS, by_kind, strict=True)},
        errors=_named(CATEGORIES, sums[BY_CATEGORY]),
        deaths=sums[DEATHS],
        measured_ns=sums[MEASURED_NS],
        samples=sums[SAMPLES],
        sampled=_named(GAUGES, sums[GAUGE_SUMS]),
        occurrences=None
        if totals.occurrences is None
        else {
            counted.name: _named(counted.columns, counts)
            for counted, [counts] in by_counter(totals.occurrences[number : number + 1])
        },
    )


def _pool_sums(form: PoolTotals) -> list[int]:
    sums = [0] * POOL_SUMS
    by_kind = (_in_order(form.calls.get(kind, {}), OUTCOMES) for kind in SESSION_KINDS)
    sums[BY_SESSION_KIND] = [count for counts in by_kind for count in counts]
    sums[BY_CATEGORY] = _in_order(form.errors, CATEGORIES)
    sums[DEATHS], sums[MEASURED_NS], sums[SAMPLES] = form.deaths, form.measured_ns, form.samples
    sums[GAUGE_SUMS] = _in_order(form.sampled, GAUGES)
    return sums


def _occurrences(form: PoolTotals) -> list[int] | None:
    if form.occurrences is None:
        return None
    found = [_in_order(form.occurrences.get(counted.name, {}), counted.columns) for counted in COUNTERS]
    return [count for counts in found for count in counts]


def _known(values: list[Any], kind: Any) -> NDArray[Any] | None:
    """*values* as an array; None if any of them is None."""
    return None if None in values else np.array(values, kind)


def _named(names: Iterable[str], numbers: Iterable[int]) -> dict[str, int]:
    return dict(zip(names, numbers, strict=True))


def _in_order(numbers: Mapping[str, int], names: Iterable[str]) -> list[int]:
    return [numbers.get(name, 0) for name in names]


def _table(numbers: Any, columns: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64).reshape(-1, columns)
