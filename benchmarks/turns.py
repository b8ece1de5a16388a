"""What pieces of code cost beside each other: all take turns in short slices, so that whatever else the machine does
hits all of them.

What is counted is processor time of the thread, which other programs add to only through the caches. The loop that a
slice needs is measured beside it and taken off. The garbage collector runs as ever.
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
"""More than the caches that a processor has to itself."""


class Turn(NamedTuple):
    """One of those that are compared."""

    run: Loop
    """Makes one call for each piece of work."""
    loop: Loop
    """The same loop without the call."""
    work: Sequence[Any]
    settle: Callable[[], object] = lambda: None
    """Done after each slice, and not measured."""
    ready: Callable[[], AbstractContextManager[object]] = nullcontext
    """Open around each slice, and not measured."""


def in_turns(items: Sequence[T], rounds: int, what: str) -> Iterator[tuple[int, T]]:
    """Every item in every round, each round beginning with another one; tells a person how far it is."""
    for number in range(rounds):
        first = number % len(items)
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what}, round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        for item in [*items[first:], *items[:first]]:
            yield number, item
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def cpu_ns(run: Callable[[], object]) -> int:
    """What *run* takes of this thread's processor time."""
    began = time.thread_time_ns()
    run()
    return max(time.thread_time_ns() - began - _clock_ns(), 0)


def warm(turns: Mapping[str, Turn], rounds: int, what: str) -> dict[str, list[float]]:
    """ns per call of each turn in each round, the caches full of what it did just before."""
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
    """ns of single calls, before each of which the caches were filled with something else; a median per round."""
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
        began = time.perf_counter_ns()  # the thread's own clock takes longer than what is measured
        run((one,))
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken)


@cache
def _clock_ns() -> int:
    """What reading the clock twice adds to what lies between."""
    taken = []
    for _ in range(999):
        began = time.thread_time_ns()
        taken.append(time.thread_time_ns() - began)
    return round(statistics.median(taken))


def ratio(base: Sequence[float], ours: Sequence[float]) -> float:
    """How many times *ours* goes into *base*: the median of the rounds."""
    return statistics.median(one / max(other, 1e-9) for one, other in zip(base, ours, strict=True))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of *values* the median of all there could be lies, with a confidence of 95 %."""
    ranked = sorted(values)
    reach = round(1.96 * math.sqrt(len(ranked)) / 2)
    middle = len(ranked) // 2
    return ranked[max(middle - reach, 0)], ranked[min(middle + reach, len(ranked) - 1)]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
