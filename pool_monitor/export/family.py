"""What an exported metric is: its name, its labels and its numbers. Helpers that make one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.histogram import FIRST_INDEX, SCALE
from pool_monitor.snapshot import Distribution

Labels: TypeAlias = tuple[tuple[str, str], ...]
Number: TypeAlias = float | None
"""None: unknown, and not exported."""

PREFIX = "pool_monitor_"
UNITS = ("seconds", "bytes", "ratio", "celsius", "watts")
PERCENTILES = ("50", "90", "95", "99", "99.9", "100")

BOUND_EXPONENTS = (-14, -12, *range(-10, 7), 8, 10)
BOUNDS = tuple(2.0**exponent for exponent in BOUND_EXPONENTS)
"""Upper bounds of classic buckets, in seconds: 61 µs to 17 minutes, every octave from 1 ms to 64 s.

Powers of two are also edges of our own buckets, so these counts are exact. Every series always has all bounds: a bound
that appeared later would break ``rate()``.
"""


class Family(NamedTuple):
    """One metric. Each entry of *series* has labels, and one number for each of *values*, the values of *label*."""

    name: str
    help: str
    series: list[tuple[Labels, Sequence[Number]]]
    label: str
    """Empty: there is one number per series."""
    values: tuple[str, ...]
    created: Sequence[float] = ()
    """For counters: when each series began at 0, in seconds since the epoch; empty: not known."""

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    @property
    def unit(self) -> str:
        return _unit(self.name.removesuffix("_total"))


@dataclass(frozen=True, slots=True)
class Histograms:
    """One metric of histograms that only grow."""

    name: str
    help: str
    labels: list[Labels]
    counts: NDArray[np.int64]
    """Shape (series, buckets); bucket *j* is index ``FIRST_INDEX + first + j`` (`pool_monitor.metrics.histogram`)."""
    first: int
    sums: list[float]
    """Seconds."""
    created: Sequence[float] = ()
    """As in `Family`."""

    @property
    def unit(self) -> str:
        return _unit(self.name)

    def sizes(self) -> list[int]:
        """The number of durations in each histogram."""
        sizes: list[int] = self.counts.sum(axis=1).tolist()
        return sizes

    def cumulative(self) -> list[list[int]]:
        """For each histogram, the number of durations up to each of `BOUNDS`."""
        ends = [(exponent << SCALE) - FIRST_INDEX - self.first for exponent in BOUND_EXPONENTS]
        cuts = [0, *(min(max(end, 0), self.counts.shape[1]) for end in ends)]
        between = [self.counts[:, start:end].sum(axis=1) for start, end in pairwise(cuts)]
        running: list[list[int]] = np.cumsum(between, axis=0).T.tolist()
        return running


def labels(**pairs: str | None) -> Labels:
    """The labels whose value is not None. A lone surrogate, which has no UTF-8 form, is escaped."""
    return tuple(
        (name, value.encode("utf-8", "backslashreplace").decode()) for name, value in pairs.items() if value is not None
    )


def _unit(name: str) -> str:
    """The last word of a name if it is a unit, else an empty string."""
    word = name.rpartition("_")[2]
    return word if word in UNITS else ""


def family_of(
    name: str,
    text: str,
    series: Iterable[tuple[Labels, Sequence[Number]]],
    label: str = "",
    values: tuple[str, ...] = ("",),
    created: Sequence[float] | float = (),
) -> Family:
    """Make a `Family`. *created* may be a single time for all series."""
    found = list(series)
    times = [created] * len(found) if isinstance(created, float) else created
    return Family(PREFIX + name, text, found, label, values, times)


def read_family(
    attribute: str, name: str, text: str, owners: Iterable[tuple[Labels, object]], created: Sequence[float] | float = ()
) -> Family:
    """Make a `Family` with one number per owner: the value of *attribute*."""
    read = ((of, getattr(owner, attribute)) for of, owner in owners)
    found = ((of, [None if value is None else +value]) for of, value in read)  # +True is 1
    return family_of(name, text, found, created=created)


def percentiles(stats: Distribution) -> tuple[Number, ...]:
    """The values of `PERCENTILES`."""
    return stats.p50, stats.p90, stats.p95, stats.p99, stats.p999, stats.max
