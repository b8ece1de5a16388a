"""The tests and intervals that findings and trials stand on. Pure functions of numbers; all are two-sided unless said.

None of them may be used on the waits of single calls: those depend on each other, and a test of them is wrong two times
of three on a system that did not change. Use blocks of time (`block_quantiles`, `ratio_interval`), or `replay`.

Sources:
- H. B. Mann, D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than the
  other", Annals of Mathematical Statistics 18 (1947); the variance with ties: Hollander, Wolfe, Chicken, "Nonparametric
  Statistical Methods", 3rd edition (2014), sections 4.1 to 4.3, where the estimator of Hodges and Lehmann and its
  interval are, too; section 3.1: Wilcoxon's signed ranks.
- E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
- C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
  Biometrika 26 (1934): the exact test.
- Y. Benjamini, Y. Hochberg, "Controlling the false discovery rate", J. Royal Stat. Soc. B 57 (1995).
- H. R. Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17 (1989):
  the bootstrap by blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.resources.leak import Slope, mann_kendall, theil_sen

Floats = NDArray[np.float64]

EXACT_PAIRS = 25
"""Up to so many pairs, `wilcoxon` counts all arrangements; above, it uses the normal approximation."""
_CLASSES = 500  # of the values of a block bootstrap
_BLOCKS = 500  # that are drawn: with more, a draw takes longer and is no better


class Estimate(NamedTuple):
    """A figure with its interval of confidence."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How one sample differs from another."""

    p: float
    """The probability of such a difference if there were none; 1 where there is too little to compare."""
    z: float
    """Above 0: the second is larger."""


def normal_tail(z: float) -> float:
    """Return the probability of a standard normal value above *z*."""
    return 0.5 * math.erfc(z / math.sqrt(2))


@lru_cache(64)
def normal_quantile(share: float) -> float:
    """Return the value that *share* of the standard normal distribution is below. To 1e-12, by halving."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_tail(-middle) < share else (low, middle)
    return (low + high) / 2


# -- two samples ------------------------------------------------------------------------------------------------------


def mann_whitney(first: ArrayLike, second: ArrayLike) -> Comparison:
    """Whether values of *second* are larger or smaller than those of *first*, by the ranks.

    The normal approximation with the correction for ties and for continuity; good from 8 values on each side. It is
    quickest where both are in order already.
    """
    yield_gil()
    a, b = (np.sort(_clean(side), kind="stable") for side in (first, second))
    n, m = len(a), len(b)
    if not n or not m:
        return Comparison(1.0, 0.0)
    below = sum(int(np.searchsorted(a, b, side).sum()) for side in ("left", "right"))  # a tie is half below
    above = (below - n * m) / 2
    total = n + m
    ties = _ties(np.sort(np.concatenate([a, b]), kind="stable"))
    variance = n * m / 12 * ((total + 1) - float((ties**3 - ties).sum()) / (total * max(total - 1, 1)))
    return _compared(above, variance)


def wilcoxon(differences: ArrayLike) -> Comparison:
    """Whether paired *differences* are above or below 0, by their signed ranks. Differences of 0 are left out.

    Exact up to `EXACT_PAIRS` pairs without ties, else the normal approximation.
    """
    values = _clean(differences)
    values = values[values != 0]
    n = len(values)
    if not n:
        return Comparison(1.0, 0.0)
    ranks, ties = _ranks(np.abs(values))
    positive = float(ranks[values > 0].sum())
    middle = n * (n + 1) / 4
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((ties**3 - ties).sum()) / 48
    compared = _compared(positive - middle, variance)
    if n > EXACT_PAIRS or (ties > 1).any():
        return compared
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank]
    least = int(min(positive, n * (n + 1) / 2 - positive))
    return Comparison(min(1.0, 2 * float(ways[: least + 1].sum()) / 2**n), compared.z)


# -- shares -----------------------------------------------------------------------------------------------------------


def wilson(hits: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Return the share of *hits*, with Wilson's interval. It is sensible for few trials, and for no hits. 0 to 1 where
    there were no trials.
    """
    if trials <= 0:
        return Estimate(math.nan, 0.0, 1.0)
    share, z = hits / trials, normal_quantile(0.5 + confidence / 2)
    below = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / below
    half = z / below * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Estimate(share, max(middle - half, 0.0), min(middle + half, 1.0))


def binomial_above(hits: int, trials: int, share: float) -> float:
    """Return the probability of *hits* or more in *trials* whose probability is *share* each. Exact, one-sided."""
    if hits <= 0 or share >= 1:
        return 1.0
    if hits > trials or share <= 0:
        return 0.0
    upper = hits > trials * share  # sum the shorter tail: from its largest term on, until terms no longer count
    k, step = (hits, 1) if upper else (hits - 1, -1)
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
    )
    total, odds = 0.0, share / (1 - share)
    while 0 <= k <= trials and term > total * 1e-17:
        total += term
        if upper:
            term *= (trials - k) / (k + 1) * odds
        else:
            term *= k / ((trials - k + 1) * odds)
        k += step
    return min(1.0, total if upper else 1 - total)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Return the adjusted p of each test of a pass: to take those at most q lets through a share q of false ones."""
    count = len(ps)
    order = sorted(range(count), key=lambda at: ps[at], reverse=True)
    adjusted, least = [1.0] * count, 1.0
    for place, at in enumerate(order):
        least = min(least, ps[at] * (count / (count - place)))
        adjusted[at] = least
    return adjusted


# -- blocks of time ---------------------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """Values by block of time and class of size, from which `quantile_interval` draws blocks."""

    counts: Floats
    """One row for each block that has values, one column for each class."""
    upper: Floats
    """The largest value of each class."""


def blocks_of(times: ArrayLike, values: ArrayLike, seconds: float) -> Blocks:
    """Return *values* in blocks of *seconds* of *times*, longer ones where there would be more than 500 of them. The
    classes are quantiles: at most 500 too.
    """
    at, sizes = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if not len(at):
        return Blocks(np.zeros((0, 0)), np.zeros(0))
    ordered = np.sort(sizes)
    picks = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _CLASSES)).astype(int))
    upper = np.unique(ordered[picks])
    since = at - at.min()
    _, block = np.unique(np.floor(since / max(seconds, float(since.max()) / (_BLOCKS - 1))), return_inverse=True)
    classes = np.searchsorted(upper, sizes)
    counts = np.bincount(block * len(upper) + classes, minlength=(int(block.max()) + 1) * len(upper))
    return Blocks(counts.reshape(-1, len(upper)).astype(np.float64), upper)


def drawn_quantiles(blocks: Blocks, share: float, draws: int = 300, seed: int = 1) -> Floats:
    """Return the quantile *share* of the values in each of *draws* samples of whole blocks, with replacement. Empty
    without blocks.
    """
    rows = len(blocks.counts)
    if not rows:
        return np.zeros(0)
    times = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(np.float64)
    upto = np.cumsum(blocks.counts, axis=1).T
    wanted = share * (times * upto[-1]).sum(axis=1)
    low, high = (
        np.zeros(draws, np.int64),
        np.full(draws, len(upto) - 1),
    )  # halved: a product of matrices takes ten times as
    while (low < high).any():  # long, on all processors
        middle = (low + high) // 2
        below = (times * upto[middle]).sum(axis=1) < wanted
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return np.asarray(blocks.upper[low])


def quantile_interval(
    times: ArrayLike, values: ArrayLike, share: float = 0.95, seconds: float = 30.0, confidence: float = 0.95
) -> Estimate:
    """Return a quantile of *values* with an interval that allows for values that depend on those near them in time.
    NaN without values.
    """
    sizes = np.asarray(values, dtype=np.float64)
    if not len(sizes):
        return Estimate(math.nan, math.nan, math.nan)
    drawn = drawn_quantiles(blocks_of(times, sizes, seconds), share)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    value = float(np.quantile(sizes, share))
    return Estimate(value, min(float(low), value), max(float(high), value))


def ratio_interval(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    share: float = 0.95,
    seconds: float = 30.0,
    confidence: float = 0.95,
) -> Estimate:
    """Return the quantile *share* after over that before, both given as (times, values), with an interval by blocks.
    NaN where a side has no values, inf where that before is 0.
    """
    first, second = quantile_interval(*before, share, seconds), quantile_interval(*after, share, seconds)
    if math.isnan(first.value) or math.isnan(second.value):
        return Estimate(math.nan, math.nan, math.nan)
    drawn = [drawn_quantiles(blocks_of(*side, seconds), share, seed=nth) for nth, side in enumerate((before, after))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = drawn[1] / drawn[0]
    ratios = np.where(np.isnan(ratios), 1.0, ratios)
    low, high = np.quantile(ratios, [0.5 - confidence / 2, 0.5 + confidence / 2], method="nearest")
    value = second.value / first.value if first.value > 0 else (1.0 if second.value == 0 else math.inf)
    return Estimate(value, min(float(low), value), max(float(high), value))


# -- trends -----------------------------------------------------------------------------------------------------------


def trend(times: ArrayLike, values: ArrayLike) -> tuple[Slope, float]:
    """Return Theil and Sen's slope per second with its interval, and the p of Mann and Kendall's test, corrected for
    values that depend on each other. At least 4 values; else the slope is NaN and p is 1. At most some hundreds:
    all pairs are formed.
    """
    at, sizes = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(sizes) < 4:
        return Slope(math.nan, math.nan, math.nan), 1.0
    statistic, deviation = mann_kendall(sizes)
    if deviation <= 0:
        return Slope(0.0, 0.0, 0.0), 1.0
    z = max(abs(statistic) - 1, 0.0) / deviation
    return theil_sen(at, sizes, deviation), min(1.0, 2 * normal_tail(z))


# -- inside -----------------------------------------------------------------------------------------------------------


def _clean(values: ArrayLike | Iterable[float]) -> Floats:
    found = np.asarray(values, dtype=np.float64).ravel()
    return found[~np.isnan(found)]


def _compared(difference: float, variance: float) -> Comparison:
    if variance <= 0:
        return Comparison(1.0, 0.0)
    z = math.copysign(max(abs(difference) - 0.5, 0.0), difference) / math.sqrt(variance)
    return Comparison(min(1.0, 2 * normal_tail(abs(z))), z)


def _ties(ordered: Floats) -> Floats:
    """Return how many there are of each value."""
    firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return np.diff(firsts, append=len(ordered)).astype(np.float64)


def _ranks(values: Floats) -> tuple[Floats, Floats]:
    """Return the rank of each value, the mean one where several are equal, and how many there are of each value."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[at]), counts.astype(np.float64)
