"""Which detections of a pass count, when many tests were made at once.

A pass tests each pattern on each worker and operation. At 1 % each, a hundred tests of a healthy pool would find
something in two passes of three. The procedure of Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate"
(J. R. Stat. Soc. B 57, 1995), keeps the expected share of false ones among those that count at 1 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.statistics import benjamini_hochberg

FALSE_SHARE = 0.01
"""The share of false ones that is expected at most."""


class SignificantDetection(NamedTuple):
    """A detection that counts, in the pass of *pool*."""

    pool: str
    detection: Detection
    q: float
    """Its p, adjusted for the number of tests. 0: it has no test."""
    tests: int
    """The tests of the pass."""


def significant(found: Iterable[tuple[str, Detection]]) -> list[SignificantDetection]:
    """The detections of a pass that count, in their order: those below `FALSE_SHARE`, and those without a test."""
    everything = [one for one in found if one[1].samples >= one[1].samples_min]
    tested: Sequence[int] = [place for place, (_pool, one) in enumerate(everything) if one.p > 0]
    adjusted = dict(zip(tested, benjamini_hochberg([everything[place][1].p for place in tested]), strict=True))
    judged = [
        SignificantDetection(pool, one, adjusted.get(place, 0.0), len(tested))
        for place, (pool, one) in enumerate(everything)
    ]
    return [one for one in judged if one.q <= FALSE_SHARE]
