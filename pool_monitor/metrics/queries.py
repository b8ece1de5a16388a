"""Ranges, summaries and error rates of blocks, from memory or from disk. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.events import SESSION_KINDS
from pool_monitor.metrics.block import Block, merge
from pool_monitor.metrics.call_stats import busy_share, fields_of
from pool_monitor.metrics.columns import (
    ACCEPTED,
    BUSY,
    BY_CATEGORY,
    CATEGORIES,
    DEATHS,
    FAILED,
    GAUGE_SUMS,
    GAUGES,
    MEASURED_NS,
    OUTCOMES,
    PEAK_GAUGES,
    PEAKS,
    POOL_SUMS,
    SAMPLES,
    by_session_kind,
)
from pool_monitor.metrics.histogram import Ints
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import Names, RowKey
from pool_monitor.metrics.timespan import TimeSpan
from pool_monitor.snapshot import CallStats, ErrorRate, OperationView, Point, PoolSummary, Range, Summary

BY = ("operation", "worker", "category", "session_kind")
Group = Literal["pool", "operation", "worker"]


class Selection(NamedTuple):
    """The calls that a query is about. None selects all."""

    pool: str | None = None
    operation: str | None = None
    worker: str | None = None

    def rows(self, names: Names) -> NDArray[np.bool_]:
        """Whether each row is selected."""
        wanted = [
            all(asked is None or asked == name for asked, name in zip(self, key, strict=True)) for key in names.rows
        ]
        return np.array(wanted, np.bool_)


def check_known(names: Names, selection: Selection) -> None:
    """Raise UnknownName when *selection* has a name that is not among *names*."""
    columns: tuple[tuple[str, str | None, Iterable[Any]], ...] = (
        ("pool", selection.pool, names.pools),
        ("operation", selection.operation, (key[1] for key in names.rows)),
        ("worker", selection.worker, (key[2] for key in names.rows)),
    )
    for what, asked, measured in columns:
        if asked is not None and asked not in (found := set(measured)):
            raise unknown_name(what, asked, found)


def unknown_name(what: str, asked: str, measured: Iterable[str | None]) -> UnknownName:
    """The error for a query of *asked*, which is not among the *measured* names. *what*: such as ``"pool"``."""
    found = sorted({name for name in measured if name is not None})
    shown = ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
    return UnknownName(f"{what} {asked!r} was not measured; measured: {shown or 'nothing yet'}")


def range_of(recording: Recording, asked: TimeSpan, selection: Selection) -> Range:
    """The calls of *selection*, step by step."""
    step_of = [(timed.start - asked.start) // asked.step for timed in recording.blocks]
    inside = [(timed, step) for timed, step in zip(recording.blocks, step_of, strict=True) if 0 <= step < asked.steps]
    wanted = selection.rows(recording.names)
    chosen = [number for number, name in enumerate(recording.names.pools) if selection.pool in (None, name)]
    pools = _pools([(timed.block, step) for timed, step in inside], asked.steps, chosen)
    of_pools = selection.operation is None and selection.worker is None
    covered_s = pools.covered_s()
    calls = fields_of([(timed.block, np.where(wanted, step, -1)) for timed, step in inside], asked.steps, covered_s)
    return Range(
        start=float(asked.start),
        end=float(asked.end),
        step=float(asked.step),
        pool=selection.pool,
        operation=selection.operation,
        worker=selection.worker,
        points=tuple(
            Point(
                start=float(asked.start + step * asked.step),
                covered_seconds=covered_s[step],
                **fields,
                **(pools.gauges(step) if of_pools else {}),
            )
            for step, fields in enumerate(calls)
        ),
    )


def ranges(recording: Recording, asked: TimeSpan, by: Group) -> dict[Selection, Range]:
    """The calls of each pool, operation or worker, step by step, by what selects it."""
    if by == "pool":
        return {Selection(pool): range_of(recording, asked, Selection(pool)) for pool in recording.names.pools}
    keys = [
        Selection(pool, operation) if by == "operation" else Selection(pool, worker=worker)
        for pool, operation, worker in recording.names.rows
    ]
    wanted = [key for key in keys if key.operation is not None or key.worker is not None]
    return {key: range_of(calls, asked, key) for key, calls in recording.by(keys, wanted).items()}


def error_rates(block: Block, names: Names, by: str, pool: str | None = None) -> dict[str, ErrorRate]:
    """How many calls failed, per value of *by*. Raises ConfigError when *by* is not in `BY`."""
    if by in ("operation", "worker"):
        at = BY.index(by) + 1
        found: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(OUTCOMES), np.int64))
        for row, tallies in zip(block.rows.tolist(), block.tallies, strict=True):
            name = names.rows[row][at]
            if name is not None and pool in (None, names.rows[row][0]):
                found[name] += tallies[: len(OUTCOMES)]
        return {name: _error_rate(found[name]) for name in sorted(found)}
    if by not in BY:
        raise ConfigError(f"error_rates(by={by!r}): choose one of {', '.join(BY)}")
    chosen = [pool in (None, names.pools[number]) for number in block.pools.tolist()]
    sums = block.pool_sums[chosen].sum(axis=0)
    return _by_category(sums) if by == "category" else _by_session_kind(sums)


class PoolCounts(NamedTuple):
    """The calls of one pool over a span of time."""

    covered_s: float
    """Seconds of that time that were measured."""
    total: ErrorRate
    operations: dict[str, ErrorRate]


def counts(recording: Recording) -> dict[str, PoolCounts]:
    """The calls of every pool. This adds up no histogram, so it takes less than a summary, and no long step."""
    names = recording.names
    tallies = np.zeros((len(names.rows), len(OUTCOMES)), np.int64)
    measured = np.zeros(len(names.pools), np.int64)
    for _start, _length, block in recording.blocks:
        tallies[block.rows] += block.tallies[:, : len(OUTCOMES)]
        measured[block.pools] += block.pool_sums[:, MEASURED_NS]
    of: dict[str, dict[str, NDArray[np.int64]]] = {pool: {} for pool in names.pools}
    for row, (pool, operation, _worker) in enumerate(names.rows):
        if pool in of and tallies[row].any():
            of[pool][operation] = of[pool].get(operation, 0) + tallies[row]
    return {
        pool: PoolCounts(
            covered_s=float(measured[number]) / 1e9,
            total=_error_rate(np.sum(list(of[pool].values()), axis=0) if of[pool] else tallies[:0].sum(axis=0)),
            operations={name: _error_rate(found) for name, found in of[pool].items()},
        )
        for number, pool in enumerate(names.pools)
    }


def summary_of(recording: Recording, asked: TimeSpan) -> Summary:
    """A summary of every pool in the blocks of *asked*."""
    inside = merge([timed.block for timed in between(recording, asked).blocks])
    return summary(inside, recording.names, asked.start, asked.end)


def between(recording: Recording, asked: TimeSpan) -> Recording:
    """The blocks of *recording* in the time of *asked*."""
    return recording._replace(blocks=[timed for timed in recording.blocks if asked.start <= timed.start < asked.end])


def summary(block: Block, names: Names, start: float, end: float) -> Summary:
    """A summary of every pool in *block*, which was counted from *start* to *end*."""
    pools = [names.pools[number] for number in block.pools.tolist()]
    calls = Recording(names, [TimedBlock(0, 0, block)]).by([pool for pool, _operation, _worker in names.rows], pools)
    return Summary(
        start=start,
        end=end,
        pools={
            name: _pool_summary(_pools([(block, 0)], 1, [number]), calls[name])
            for number, name in zip(block.pools.tolist(), pools, strict=True)
        },
    )


def _pool_summary(pools: _Pools, calls: Recording) -> PoolSummary:
    covered_s, sums = pools.covered_s()[0], pools.sums[0]
    total = _stats(calls, covered_s, lambda _key: "total")
    operations = _stats(calls, covered_s, lambda key: key[1])
    workers = _stats(calls, covered_s, lambda key: key[2])
    busy_s = {name: busy for name, (_fields, busy) in operations.items()}
    busy_of_workers = [busy for _fields, busy in workers.values()]
    gauges = pools.gauges(0)
    return PoolSummary(
        covered_seconds=covered_s,
        total=CallStats(**total["total"][0]) if total else CallStats(rate=0.0 if covered_s else None),
        operations={
            name: OperationView(operation=name, **operations[name][0])
            for name in sorted(operations, key=lambda name: (-busy_s[name], name))
        },
        workers={name: CallStats(**fields) for name, (fields, _busy) in workers.items()},
        by_category=_by_category(sums),
        by_session_kind=_by_session_kind(sums),
        busy_seconds=sum(busy_s.values()),
        utilisation=busy_share(busy_of_workers, gauges["size"], covered_s),
        **gauges,
    )


def _stats(
    calls: Recording, covered_s: float, name_of: Callable[[RowKey], str | None]
) -> dict[str, tuple[dict[str, Any], float]]:
    """For each name that *name_of* returns: the fields of a `CallStats` of its rows, and their seconds on workers."""
    used = {row for timed in calls.blocks for row in timed.block.rows.tolist()}
    called: dict[str, int] = {}
    group = np.full(len(calls.names.rows), -1)
    for row in sorted(used):
        name = name_of(calls.names.rows[row])
        if name is not None:
            group[row] = called.setdefault(name, len(called))
    busy_ns = np.zeros(len(called) + 1, np.int64)  # the last element collects the rows without a name (group -1)
    for timed in calls.blocks:
        np.add.at(busy_ns, group[timed.block.rows], timed.block.tallies[:, BUSY])
    fields = fields_of([(timed.block, group) for timed in calls.blocks], len(called), [covered_s] * len(called))
    return {name: (fields[at], float(busy_ns[at] / 1e9)) for name, at in sorted(called.items())}


class _Pools(NamedTuple):
    """The sums and peaks of the selected pools, per group of blocks."""

    sums: Ints
    """Added up over the pools."""
    peaks: Ints
    """The highest peak of any of the pools."""
    pools: int
    """How many pools are selected."""

    def covered_s(self) -> list[float]:
        """Seconds measured, per group."""
        seconds: list[float] = (self.sums[:, MEASURED_NS] / self.pools / 1e9).tolist()
        return seconds

    def gauges(self, group: int) -> dict[str, Any]:
        """The fields of a `Point` that do not count calls."""
        sums, peaks = self.sums[group].tolist(), self.peaks[group].tolist()
        samples = sums[SAMPLES] / self.pools
        mean = {
            gauge: total / samples if samples else None for gauge, total in zip(GAUGES, sums[GAUGE_SUMS], strict=True)
        }
        # Two pools may have had their peaks at different times.
        known = samples and self.pools == 1
        highest = {f"{gauge}_max": peak if known else None for gauge, peak in zip(PEAK_GAUGES, peaks, strict=True)}
        return {"deaths": sums[DEATHS], **{gauge: mean[gauge] for gauge in ("size", "busy", "waiting")}, **highest}


def _pools(blocks: Iterable[tuple[Block, int]], groups: int, chosen: list[int]) -> _Pools:
    """The sums and peaks of the *chosen* pools in each of *groups* groups."""
    sums = np.zeros((groups, POOL_SUMS), np.int64)
    peaks = np.zeros((groups, PEAKS), np.int64)
    for block, group in blocks:
        some = np.isin(block.pools, chosen)
        sums[group] += block.pool_sums[some].sum(axis=0)
        peaks[group] = np.maximum(peaks[group], block.pool_peaks[some].max(axis=0, initial=0))
    return _Pools(sums, peaks, max(len(chosen), 1))


def _error_rate(outcomes: Ints) -> ErrorRate:
    errors = int(outcomes[FAILED].sum())
    return _rate(int(outcomes[ACCEPTED].sum()), errors)


def _rate(calls: int, errors: int) -> ErrorRate:
    return ErrorRate(calls=calls, errors=errors, error_ratio=errors / calls if calls else None)


def _by_category(sums: Ints) -> dict[str, ErrorRate]:
    calls = sum(rate.calls for rate in _by_session_kind(sums).values())
    errors = dict(zip(CATEGORIES, sums[BY_CATEGORY].tolist(), strict=True))
    return {name: _rate(calls, errors[name]) for name in sorted(errors, key=lambda name: -errors[name]) if errors[name]}


def _by_session_kind(sums: Ints) -> dict[str, ErrorRate]:
    outcomes = by_session_kind(sums)
    return {kind: _error_rate(row) for kind, row in zip(SESSION_KINDS, outcomes, strict=True) if row.any()}
