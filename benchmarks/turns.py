"""Compares the cost of pieces of code. They take turns in short slices, so that other load on the machine affects all.

The cost is processor time of the thread, which other programs affect only through the caches. The cost of the loop in
a slice is measured separately and subtracted. The garbage collector runs as usual.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Loop = Callable[[Sequence[Any]], object]

_LARGE = bytes(8 << 20)
"""More than the private caches of a processor."""


class Turn(NamedTuple):
    """One piece of code that is compared."""

    run: Loop
    """Makes one call for each piece of work."""
    loop: Loop
    """The same loop without the call."""
    work: Sequence[Any]
    settle: Callable[[], object] = lambda: None
    """Called after each slice; not measured."""
    ready: Callable[[], AbstractContextManager[object]] = nullcontext
    """Entered around each slice; not measured."""


def in_turns(items: Sequence[T], rounds: int, what: str) -> Iterator[tuple[int, T]]:
    """Yield every item in every round. Each round begins with another item. Shows the progress on a terminal."""
    for number in range(rounds):
        first = number % len(items)
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what}, round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        for item in [*items[first:], *items[:first]]:
            yield number, item
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def cpu_ns(run: Callable[[], object]) -> int:
    """Return the processor time of this thread that *run* takes, in ns."""
    began = time.thread_time_ns()
    run()
    return max(time.thread_time_ns() - began - _clock_ns(), 0)


def warm(turns: Mapping[str, Turn], rounds: int, what: str) -> dict[str, list[float]]:
    """Return ns per call of each turn in each round, with warm caches."""
    costs: dict[str, list[float]] = {name: [] for name in turns}
    for _, name in in_turns(list(turns), rounds, what):
        turn = turns[name]
        with turn.ready():
            turn.run(turn.work)
            turn.settle()
            loop_ns = cpu_ns(lambda turn=turn: turn.loop(turn.work))  # type: ignore[misc]
            run_ns = cpu_ns(lambda turn=turn: turn.run(turn.work))  # type: ignore[misc]
            turn.settle()
        costs[name].append((run_ns - loop_ns) / len(turn.work))
    return costs


def cold(turns: Mapping[str, Turn], rounds: int, what: str, singles: int = 20) -> dict[str, list[float]]:
    """Return ns of single calls with cold caches: something else fills them before each call. A median per round."""
    costs: dict[str, list[float]] = {name: [] for name in turns}
    for number, name in in_turns(list(turns), rounds, what):
        turn = turns[name]
        some = [turn.work[(number * singles + at) % len(turn.work)] for at in range(singles)]
        with turn.ready():
            turn.run(some)
            turn.settle()
            costs[name].append(_single_ns(turn.run, some) - _single_ns(turn.loop, some))
            turn.settle()
    return costs


def _single_ns(run: Loop, work: Sequence[Any]) -> float:
    taken = []
    for one in work:
        _LARGE.count(1)
        began = time.perf_counter_ns()  # reading the clock of the thread takes longer than the call
        run((one,))
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken)


@cache
def _clock_ns() -> int:
    """Return the ns that two readings of the clock add to what is between them."""
    taken = []
    for _ in range(999):
        began = time.thread_time_ns()
        taken.append(time.thread_time_ns() - began)
    return round(statistics.median(taken))


def ratio(base: Sequence[float], ours: Sequence[float]) -> float:
    """Return *base* divided by *ours*: the median over the rounds."""
    return statistics.median(one / max(other, 1e-9) for one, other in zip(base, ours, strict=True))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median, as two of *values*."""
    ranked = sorted(values)
    reach = round(1.96 * math.sqrt(len(ranked)) / 2)
    middle = len(ranked) // 2
    return ranked[max(middle - reach, 0)], ranked[min(middle + reach, len(ranked) - 1)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile by nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
