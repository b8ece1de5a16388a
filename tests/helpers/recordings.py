"""Totals and recordings that are made from lists of durations, as a monitor would count them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from pool_monitor.metrics.block import CHUNK, ROW_CHUNKS, Block, Cells
from pool_monitor.metrics.columns import DISTRIBUTIONS, MEASURED_NS, OUTCOMES, PEAKS, POOL_SUMS, SUMS, TALLIES
from pool_monitor.metrics.histogram import BUCKETS, HIGHEST_NS, bucket_of
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import Names, RowKey
from pool_monitor.metrics.totals import Totals
from tests.helpers import samples

Durations: TypeAlias = tuple[list[int], list[int], list[int]]
"""Latency, queue and execution of calls that ended well, in ns."""

SUMMARY: RowKey = ("text", "summary", "text-0")


def drawn(seed: int, shape: str, n: int) -> list[int]:
    """Return *n* durations with a distribution of *shape*, in ns."""
    rng = np.random.default_rng(seed)
    seconds = {
        "lognormal": lambda: rng.lognormal(-4, 1.5, n),
        "heavy-tailed": lambda: 0.001 * (1 + rng.pareto(1.1, n)),
        "bimodal": lambda: np.where(rng.random(n) < 0.95, rng.normal(1e-4, 1e-5, n), rng.normal(0.05, 0.01, n)),
    }[shape]()
    return np.clip(seconds * 1e9, 1_000, HIGHEST_NS).astype(int).tolist()


_durations = st.integers(1_000, HIGHEST_NS)
streams = st.one_of(
    st.lists(_durations, min_size=1, max_size=5),
    st.builds(lambda value, n: [value] * n, _durations, st.integers(1, 300)),
    st.builds(drawn, st.integers(0, 2**32), st.sampled_from(["heavy-tailed", "bimodal"]), st.integers(1, 2000)),
)
"""Durations of every shape: few, constant, heavy-tailed, bimodal; all within the range of the histogram."""
tiny = st.lists(st.integers(0, 2_000), min_size=1, max_size=50)
"""Durations at the lower end of the range and below it."""


SHARES = (0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)


def nearest_rank(values: list[int], share: float) -> int:
    """Return the exact quantile."""
    return sorted(values)[rank_of(share, len(values)) - 1]


def rank_of(share: float, count: int) -> int:
    return math.ceil(Fraction(str(share)) * count)


def counts_of(values_ns: list[int]) -> np.ndarray:
    return np.bincount(bucket_of(np.array(values_ns, np.int64)), minlength=BUCKETS)


def totals(
    durations: Mapping[RowKey, Durations], pools: tuple[str, ...] = ("text",), *, first: int = 0, last: int = BUCKETS
) -> Totals:
    """Return the totals after calls of these durations and some failed calls. All other numbers differ from each other.

    Only the buckets from *first* to *last* are kept.
    """
    counts, sums, _maxima = _counted(durations)
    outcomes = np.arange(1, len(counts) * len(OUTCOMES) + 1, dtype=np.int64).reshape(-1, len(OUTCOMES))
    outcomes[:, 0] = counts[:, 0].sum(axis=-1)
    return Totals(
        since=samples.START,
        at=samples.START + samples.UPTIME,
        names=Names(tuple(durations), pools),
        outcomes=outcomes,
        sums=sums,
        counts=counts[..., first:last],
        first=first,
        pool_sums=1000 + np.arange(len(pools) * POOL_SUMS, dtype=np.int64).reshape(-1, POOL_SUMS),
    )


def recording(
    blocks: list[tuple[int, Mapping[RowKey, Durations]]], *, length: int = 10, measured: int = 10
) -> Recording:
    """Return a recording of *blocks*: start and durations of each block. A block is *length* seconds long, of which
    *measured* were measured. Every call ended well.
    """
    names = Names(
        tuple(dict.fromkeys(key for _start, durations in blocks for key in durations)),
        tuple(dict.fromkeys(key[0] for _start, durations in blocks for key in durations)),
    )
    return Recording(
        names, [TimedBlock(start, length, _block(durations, names, measured)) for start, durations in blocks]
    )


def _block(durations: Mapping[RowKey, Durations], names: Names, measured: int) -> Block:
    keys = sorted(durations, key=names.rows.index)
    counts, sums, maxima = _counted({key: durations[key] for key in keys})
    rows = np.array([names.rows.index(key) for key in keys], np.int64)
    tallies = np.zeros((len(keys), TALLIES), np.int64)
    tallies[:, 0], tallies[:, SUMS] = counts[:, 0].sum(axis=-1), sums
    pools = np.array(sorted({names.pools.index(pool) for pool, _operation, _worker in keys}), np.int64)
    pool_sums = np.zeros((len(pools), POOL_SUMS), np.int64)
    pool_sums[:, MEASURED_NS] = measured * 10**9
    chunks = (rows[:, None] * ROW_CHUNKS + np.arange(ROW_CHUNKS)).reshape(-1)
    return Block(
        rows=rows,
        tallies=tallies,
        maxima=maxima,
        cells=Cells.pack(chunks, counts.reshape(-1, CHUNK)),
        pools=pools,
        pool_sums=pool_sums,
        pool_peaks=np.zeros((len(pools), PEAKS), np.int64),
    )


def _counted(durations: Mapping[RowKey, Durations]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (len(durations), len(DISTRIBUTIONS))
    counts, (sums, maxima) = np.zeros((*shape, BUCKETS), np.int64), np.zeros((2, *shape), np.int64)
    for row, of_row in enumerate(durations.values()):
        for number, values in enumerate(of_row):
            counts[row, number] = counts_of(values)
            sums[row, number], maxima[row, number] = sum(values), max(values, default=0)
    return counts, sums, maxima
