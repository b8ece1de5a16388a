"""An event loop on virtual time: when nothing is ready, the clock jumps to the next timer.

So hours of behaviour that depends on the clock can be tested exactly, in almost no real time. The loop cannot wait for
processes, sockets and threads, which run in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: in real time, the loop would wait for ever."""


class _Clock(selectors.SelectSelector):
    """A selector that advances the time where the loop would sleep."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` begins at 0 and stands still while anything is ready."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._clock_resolution = 1e-9  # timers this close are due, because sums of floats are not exact

    def time(self) -> float:
        return self._clock.now

    def time_ns(self) -> int:
        """Return `time` in nanoseconds, for code that takes its clock as a parameter."""
        return round(self._clock.now * 1e9)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a new virtual loop and return its result.

    Raises Stuck if nothing can wake *main*, and what a callback raised, which asyncio would only log.
    """
    raised: list[BaseException] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raised.append(context.get("exception") or RuntimeError(context["message"]))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(note)
        result = runner.run(main)
    if raised:
        raise raised[0]
    return result


def clock() -> VirtualLoop:
    """Return the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
