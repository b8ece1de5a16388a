"""Limits of the time that a stream may take to its first item, and from each item to the next."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class ItemLimits:
    """The limits of one stream, from its admission to its end: *first* seconds to the first item, *between* seconds
    from each item to the next or to the end. None: no limit. Calls *exceeded* once, when the first limit is exceeded,
    with a text that says what is missing.

    An item costs only one read of the clock: the timer is not set again for each item. If it rings too early, it is set
    again then.
    """

    __slots__ = ("_between", "_due", "_exceeded", "_first", "_items", "_loop", "_timer")

    def __init__(self, first: float | None, between: float | None, exceeded: Callable[[str], None]) -> None:
        self._first, self._between, self._exceeded = first, between, exceeded
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._items = 0
        self._allow(first)

    def came(self, *, room: bool) -> None:
        """Note an item of the worker. Without *room*, it was on its way when the worker was asked to pause."""
        self._items += 1
        self._allow(self._between if room else None)

    def read_on(self) -> None:
        """Limit the time to the next item again: the buffer has room again."""
        self._allow(self._between)

    def full(self) -> None:
        """Suspend the limit: the buffer is full, so the worker waits for the reader."""
        self._due = math.inf

    def start_over(self) -> None:
        """Limit the time to the first item again, for a new attempt. Without an item so far, the time runs on."""
        if self._items:
            self._items = 0
            self._allow(self._first)

    def close(self) -> None:
        """Stop the timer: the stream has ended."""
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _allow(self, seconds: float | None) -> None:
        self._due = math.inf if seconds is None else self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._due:  # set for a longer limit
            self._timer.cancel()
            self._timer = None
        self._set()

    def _set(self) -> None:
        if self._timer is None and self._due < math.inf:
            self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._due > self._loop.time():
            self._set()
        else:
            self._due = math.inf
            self._exceeded(self._missing())

    def _missing(self) -> str:
        if self._items:
            return f"nothing after item {self._items} within its item_timeout of {self._between:g} s"
        return f"no first item within its first_item_timeout of {self._first:g} s"
