"""The stacks of workers for viewers: one now, or many over some seconds, folded into counts."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from pool_monitor.errors import ConfigError, PoolError

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_MAX = 60.0
"""The longest time over which stacks are sampled."""
INTERVAL = 0.015
"""Seconds between two samples of a worker, and a few milliseconds for each: 50 to 60 samples a second."""
STACKS_MAX = 5000
"""Different stacks that are told apart. The samples of others are counted as `OTHERS`."""
OTHERS = "(others)"
SAMPLED_AT_ONCE = 8
"""Workers of one service that are sampled at the same time."""
_MISSES = 10  # samples in a row without a stack, after which sampling ends
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?), in (.*)')
_TASK = re.compile(r"Task (?!of the call).*:")  # its number differs from one task to the next


class StackReading(Struct, frozen=True, kw_only=True):
    """What a worker does now."""

    stack: str | None
    """Threads, tasks and calls with their frames, innermost frame last. None: not available."""
    reason: str | None = None
    """Why it is not available, in words."""


class StackSamples(Struct, frozen=True, kw_only=True):
    """What a worker did over some seconds."""

    seconds: float
    """How long it was sampled."""
    samples: int
    """Stacks that were taken. A worker can have several threads or tasks, and each is counted in `folded`."""
    missed: int
    """Samples for which no stack was available."""
    folded: dict[str, int]
    """Stack -> how often it was seen. A stack is its frames, outermost first, with semicolons in between, as in the
    input of flame graph tools."""
    reason: str | None = None
    """Why samples were missed, in words."""


Take = Callable[[], Awaitable[StackReading]]


async def _wanted() -> bool:
    return True


async def sample(take: Take, seconds: float, wanted: Callable[[], Awaitable[bool]] = _wanted) -> StackSamples:
    """Call *take* for *seconds*, at least once, and count the stacks. Ends earlier if no stack is available any more,
    or when *wanted*, which is asked after each, says no. Cancellation ends it at once.
    """
    now = asyncio.get_running_loop().time
    began = now()
    folded: Counter[str] = Counter()
    samples = missed = in_a_row = 0
    reason = None
    while not samples + missed or (now() - began < seconds and in_a_row < _MISSES):
        reading = await take()
        if reading.stack is None:
            missed, in_a_row, reason = missed + 1, in_a_row + 1, reading.reason
        else:
            samples, in_a_row = samples + 1, 0
            for stack in fold(reading.stack):
                folded[stack if stack in folded or len(folded) < STACKS_MAX else OTHERS] += 1
        if not await wanted():
            break
        await asyncio.sleep(INTERVAL)
    return StackSamples(seconds=now() - began, samples=samples, missed=missed, folded=dict(folded), reason=reason)


def fold(stack: str) -> list[str]:
    """Return each thread, task or call in the text *stack* as one line: its heading, then ``function (file:line)`` of
    each frame, outermost first, with semicolons in between.
    """
    found: list[list[str]] = []
    for line in stack.splitlines():
        frame = _FRAME.fullmatch(line)
        if frame is not None and found:
            file = re.split(r"[/\\]", frame[1])[-1]
            found[-1].append(_plain(f"{frame[3]} ({file}:{frame[2]})"))
        elif frame is None and not line.startswith(" "):
            found.append([_plain("Task" if _TASK.fullmatch(line) else line.removesuffix(":"))])
    return [";".join(frames) for frames in found]


def _plain(text: str) -> str:
    """Return *text* without what has a meaning in folded stacks."""
    return text.replace(";", ",")


def checked_seconds(text: str | None) -> float | None:
    """Return the seconds of a query; None if there are none. Raises ConfigError for what is no time that is allowed."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= SECONDS_MAX:
        raise ConfigError(f"seconds={text!r:.80}: needs a number above 0, and at most {SECONDS_MAX:g}")
    return seconds


class TooManySamplings(PoolError):
    """Other viewers sample too many workers, or this worker, at the moment."""

    category = "resource"


class Samplings:
    """Which workers are sampled now: each once, and `SAMPLED_AT_ONCE` at most."""

    def __init__(self) -> None:
        self._now: set[tuple[str, str]] = set()

    @contextmanager
    def one(self, pool: str, slot: str) -> Iterator[None]:
        """Count one more in the block. Raises TooManySamplings."""
        if (pool, slot) in self._now:
            raise TooManySamplings(f"worker {slot!r} is sampled already, by another viewer")
        if len(self._now) >= SAMPLED_AT_ONCE:
            raise TooManySamplings(f"{SAMPLED_AT_ONCE} workers are sampled already")
        self._now.add((pool, slot))
        try:
            yield
        finally:
            self._now.discard((pool, slot))
