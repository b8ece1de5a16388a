"""Compute the fields of `CallStats` from sums and histograms, for any number of groups at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pool_monitor.metrics.block import CHUNK, CHUNK_BITS, CHUNKS, ROW_CHUNKS, Block
from pool_monitor.metrics.columns import DISTRIBUTIONS, OUTCOMES, SUMS, TALLIES
from pool_monitor.metrics.histogram import BUCKETS, Floats, Ints, quantiles
from pool_monitor.snapshot import Distribution

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_EMPTY = Distribution()
GROUPS_AT_ONCE = 2**22 // (len(DISTRIBUTIONS) * BUCKETS)
"""Groups whose full histograms are in memory at once: 32 MiB."""


class GroupSums(NamedTuple):
    """Rows added up into groups. The first axis of each array is the group."""

    counts: Ints
    """Shape (groups, DISTRIBUTIONS, buckets), from bucket *first* on."""
    tallies: Ints
    maxima: Ints
    first: int = 0


def busy_share(busy_s: Iterable[float], size: float | None, covered_s: float) -> float | None:
    """The share of *covered_s* seconds that *size* workers spent executing. *busy_s* has the seconds of each slot.

    A call counts in full in the window in which it ended, so a slot may have more seconds than the window covers; each
    slot is capped at *covered_s*. None when no time was covered or no worker is wanted.
    """
    if not size or not covered_s:
        return None
    return min(sum(min(busy, covered_s) for busy in busy_s) / (size * covered_s), 1.0)


def summed_by_group(parts: Sequence[tuple[Block, Ints]], groups: int) -> GroupSums:
    """Add up the rows of blocks into groups. Each block comes with the group of every row; -1 leaves a row out."""
    tallies = np.zeros((groups, TALLIES), np.int64)
    maxima = np.zeros((groups, len(DISTRIBUTIONS)), np.int64)
    used = [block.cells.chunks % CHUNKS for block, _ in parts if len(block.cells.chunks)]
    low, high = (min(int(some.min()) for some in used), max(int(some.max()) for some in used) + 1) if used else (0, 1)
    width = high - low
    counts = np.zeros(groups * len(DISTRIBUTIONS) * width * CHUNK, np.int64)
    for block, group_of_rows in parts:
        group = group_of_rows[block.rows]
        wanted = group >= 0
        np.add.at(tallies, group[wanted], block.tallies[wanted])
        np.maximum.at(maxima, group[wanted], block.maxima[wanted])
        cells = block.cells
        row, part = np.divmod(cells.chunks, ROW_CHUNKS)
        group = group_of_rows[row]
        places = cells.places((group * len(DISTRIBUTIONS) + part // CHUNKS) * width + part % CHUNKS - low)
        added = cells.counts.astype(np.int64)
        if not wanted.all():
            inside = np.repeat(group >= 0, cells.lengths)
            places, added = places[inside], added[inside]
        np.add.at(counts, places, added)
    return GroupSums(
        counts.reshape(groups, len(DISTRIBUTIONS), width * CHUNK), tallies, maxima, first=low << CHUNK_BITS
    )


def fields_of(parts: Sequence[tuple[Block, Ints]], groups: int, covered_s: Sequence[float]) -> list[dict[str, Any]]:
    """`call_fields` of `summed_by_group`, a few groups at a time, so that not all histograms are in memory at once."""
    fields: list[dict[str, Any]] = []
    for first in range(0, groups, GROUPS_AT_ONCE):
        some = min(GROUPS_AT_ONCE, groups - first)
        inside = [
            (block, np.where((group >= first) & (group < first + some), group - first, -1)) for block, group in parts
        ]
        fields += call_fields(summed_by_group(inside, some), covered_s[first : first + some])
    return fields


def call_fields(groups: GroupSums, covered_s: Sequence[float]) -> list[dict[str, Any]]:
    """The fields of a `CallStats` for each group. *covered_s* has the seconds that were measured of each group."""
    outcomes = groups.tallies[:, : len(OUTCOMES)].tolist()
    return [
        {**_outcome_fields(*counts, covered_s=seconds), **dict(zip(DISTRIBUTIONS, distributions, strict=True))}
        for counts, seconds, distributions in zip(outcomes, covered_s, _distributions(groups), strict=True)
    ]


def _outcome_fields(
    ok: int, error: int, timeout: int, worker_lost: int, cancelled: int, rejected: int, *, covered_s: float
) -> dict[str, Any]:
    errors = error + timeout + worker_lost
    calls = ok + errors + cancelled
    return {
        "calls": calls,
        "ok": ok,
        "errors": errors,
        "timeouts": timeout,
        "workers_lost": worker_lost,
        "cancelled": cancelled,
        "rejected": rejected,
        "error_ratio": errors / calls if calls else None,
        "rate": calls / covered_s if covered_s else None,
    }


def _distributions(groups: GroupSums) -> list[list[Distribution]]:
    """Latency, queue and execution of each group."""
    used = np.flatnonzero(groups.counts.any(axis=(0, 1)))
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    counts = groups.counts[..., first : last + 1]
    sizes = counts.sum(axis=-1)
    maxima_s = groups.maxima / 1e9
    means_s = groups.tallies[:, SUMS] / np.maximum(sizes, 1) / 1e9
    # An estimate may exceed the longest duration, which is known exactly.
    percentiles_s: Floats = np.minimum(quantiles(counts, SHARES, groups.first + first), maxima_s[..., None])
    return [
        [_distribution(*values) for values in zip(*group, strict=True)]
        for group in zip(sizes.tolist(), means_s.tolist(), maxima_s.tolist(), percentiles_s.tolist(), strict=True)
    ]


def _distribution(count: int, mean: float, longest: float, percentiles: list[float]) -> Distribution:
    if not count:
        return _EMPTY
    p50, p90, p95, p99, p999 = percentiles
    return Distribution(count=count, mean=mean, max=longest, p50=p50, p90=p90, p95=p95, p99=p99, p999=p999)
