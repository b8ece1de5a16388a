"""Which events are told at all: what `telemetry.configure` was given, checked, and what follows from it."""

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
    """Which events are told, by patterns of dotted names: what `telemetry.filters` returns."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    sample: Mapping[str, int] = _NO_RATES

    def weight(self, dotted: str) -> int:
        """What one execution that is heard stands for: 0 when none is heard, 1 when all are."""
        if _among(dotted, self.deny) or not _among(dotted, self.allow):
            return 0
        return next((rate for pattern, rate in self.sample.items() if _matches(dotted, pattern)), 1)

    def in_words(self) -> dict[str, str]:
        """As the metadata of ``telemetry.filter``."""
        sample = (f"{pattern}={rate}" for pattern, rate in self.sample.items())
        return {"allow": ", ".join(self.allow), "deny": ", ".join(self.deny), "sample": ", ".join(sample)}


def checked(allow: Iterable[str] | None, deny: Iterable[str] | None, sample: Mapping[str, int] | None) -> Filters:
    """The filters that the arguments of `telemetry.configure` mean. Raises TypeError or ValueError for bad ones."""
    if sample is not None and not isinstance(sample, Mapping):
        raise TypeError(f"sample={sample!r:.80}: needs a mapping from pattern to rate, such as {{'pool.worker.*': 10}}")
    rates = {_pattern("a key of sample", pattern): _rate(pattern, rate) for pattern, rate in (sample or {}).items()}
    return Filters(
        ("*",) if allow is None else _patterns("allow", allow),
        () if deny is None else _patterns("deny", deny),
        MappingProxyType(rates),
    )


def skipper(rate: int) -> Callable[[], bool]:
    """A function that tells of one execution after the other whether to skip it: all but one in *rate*, on average.

    Each execution has the same chance, whatever was skipped before, so that a load with a rhythm of its own is
    sampled without bias. What is drawn is how many to skip until the next one that is heard: a geometric countdown.
    It has no memory, so beginning one anew is as good as going on.
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
    """What samples are drawn with."""
    import random  # only here: who does not sample does not pay for its import

    return random.Random()  # noqa: S311 - no secret depends on it


def _among(dotted: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(dotted, pattern) for pattern in patterns)


def _matches(dotted: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    from fnmatch import fnmatchcase  # only here: who does not filter does not pay for its import

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
        raise TypeError(f"{place}: needs a whole number n: one execution in n is heard")
    if not 1 <= rate <= RATE_MAX:
        raise ValueError(f"{place}: needs 1 (all are heard) to {RATE_MAX}; to hear none, name it in deny")
    return rate
