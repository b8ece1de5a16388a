"""An event loop on virtual time: when nothing is ready it is at once as late as the next timer says.

What is decided by the clock can so be tested through hours of it, exactly and in no time. Nothing from outside can
be waited for: processes, sockets and threads live in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(RuntimeError):
    """Nothing is ready and no timer is set: in real time this would wait for ever."""


class _Clock(selectors.SelectSelector):
    """Where the loop would sleep: time goes on instead."""

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
        self._clock_resolution = 1e-9  # timers this near are due: what was added up of floats is not exact

    def time(self) -> float:
        return self._clock.now

    def time_ns(self) -> int:
        """The same in nanoseconds, for what takes its clock as a parameter."""
        return round(self._clock.now * 1e9)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* on a new virtual loop and return what it returns.

    Raises Stuck when it waits for nothing, and what a callback raised, which asyncio would only log.
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
    """The loop that is running."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
