"""The deadline wheel on the event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from pool_monitor.pool.deadline import DeadlineWheel

T = TypeVar("T")


class DeadlineTimer(Generic[T]):
    """Calls *expired* with the things that are due, oldest first; one timer of the event loop for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[list[T]], None]) -> None:
        self._loop, self._expired = loop, expired
        self._wheel: DeadlineWheel[T] = DeadlineWheel()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf  # when it is due
        self.remove = self._wheel.remove
        """``remove(thing, tick)``: forget *thing*, if it is still noted."""

    def add(self, thing: T, deadline: float) -> int:
        """Note *thing*, due at *deadline* (the loop's clock); returns the tick to give to `remove`."""
        tick = self._wheel.add(thing, deadline)
        if deadline < self._wake_at:
            self._set()
        return tick

    def close(self) -> None:
        """Nothing is called any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        next_at = self._wheel.next_at()
        self._wake_at = math.inf if next_at is None else next_at
        if next_at is not None:
            self._timer = self._loop.call_at(next_at, self._ring)

    def _ring(self) -> None:
        self._expired(self._wheel.expired(self._loop.time()))
        self._set()
