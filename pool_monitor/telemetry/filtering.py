"""Which events are emitted: the arguments of `telemetry.configure`, checked, and the weights that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random

RATE_MAX = 1_000_000

_NO_RATES: Mapping[str, int] = MappingProxyType({})


class Filters(NamedTuple):
    """Which events are emitted, by patterns of dotted names. `telemetry.filters` returns one of these."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    sample: Mapping[str, int] = _NO_RATES

    def weight(self, dotted: str) -> int:
        """Return how many executions one emitted execution stands for: 1 if all are emitted, 0 if none is."""
        if _matches_any(dotted, self.deny) or not _matches_any(dotted, self.allow):
            return 0
        return next((rate for pattern, rate in self.sample.items() if _matches(dotted, pattern)), 1)

    def in_words(self) -> dict[str, str]:
        """Return the filters as metadata of ``telemetry.filter``."""
        sample = (f"{pattern}={rate}" for pattern, rate in self.sample.items())
        return {"allow": ", ".join(self.allow), "deny": ", ".join(self.deny), "sample": ", ".join(sample)}


def checked(allow: Iterable[str] | None, deny: Iterable[str] | None, sample: Mapping[str, int] | None) -> Filters:
    """Return the filters for the arguments of `telemetry.configure`. Raises TypeError or ValueError if any is bad."""
    if sample is not None and not isinstance(sample, Mapping):
        raise TypeError(f"sample={sample!r:.80}: needs a mapping from pattern to rate, such as {{'pool.worker.*': 10}}")
    rates = {_pattern("a key of sample", pattern): _rate(pattern, rate) for pattern, rate in (sample or {}).items()}
    return Filters(
        ("*",) if allow is None else _patterns("allow", allow),
        () if deny is None else _patterns("deny", deny),
        MappingProxyType(rates),
    )


def skipper(rate: int) -> Callable[[], bool]:
    """Return a function that is called for each execution and returns whether to skip it.

    On average it skips all executions except one in *rate*. Each execution has the same chance, whatever was skipped
    before, so that a periodic load is sampled without bias. The function draws how many executions to skip until the
    next that is emitted, from a geometric distribution. That distribution has no memory, so a new function may replace
    one in use at any time.
    """
    uniform, scale = generator().random, math.log1p(-1 / rate)

    def draw() -> int:
        return 1 + int(math.log(1.0 - uniform()) / scale)

    left = draw()

    def skip() -> bool:
        nonlocal left
        left -= 1
        if left > 0:
            return True
        left = draw()
        return False

    return skip


@cache
def generator() -> random.Random:
    """Return the random number generator for all samples."""
    import random  # here, because only sampling needs the import

    return random.Random()  # noqa: S311 - no secret depends on it


def _matches_any(dotted: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(dotted, pattern) for pattern in patterns)


def _matches(dotted: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    from fnmatch import fnmatchcase  # here, because only filters need the import

    return fnmatchcase(dotted, pattern)


def _patterns(place: str, patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str | bytes | Mapping) or not isinstance(patterns, Iterable):
        raise TypeError(f"{place}={patterns!r:.80}: needs a list of patterns, such as ['pool.worker.*']")
    return tuple(_pattern(f"{place}[{index}]", pattern) for index, pattern in enumerate(patterns))


def _pattern(place: str, pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise TypeError(f"{place}={pattern!r:.80}: needs a dotted name as text, such as 'pool.worker.*'")
    if not pattern:
        raise ValueError(f"{place}='': needs a dotted name, such as 'pool.worker.*', or '*' for all events")
    return pattern


def _rate(pattern: str, rate: Any) -> int:
    place = f"sample[{pattern!r}]={rate!r:.80}"
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise TypeError(f"{place}: needs a whole number n: one execution in n is emitted")
    if not 1 <= rate <= RATE_MAX:
        raise ValueError(f"{place}: needs 1 (all are emitted) to {RATE_MAX}; to emit none, put the pattern in deny")
    return rate
