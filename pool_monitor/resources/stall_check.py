"""Whether something that should go on has stopped. No I/O: the time is passed in."""

from __future__ import annotations


class StallCheck:
    """Watches a counter that should move: it has stalled when it did not for *calls* calls in a row, and for *seconds*.

    Both have to pass. The calls are made by the event loop, so that a time in which the loop, or the whole process, did
    not run does not look like a stall; and a loop on virtual time makes many calls in no time.
    """

    __slots__ = ("_calls", "_calls_max", "_count", "_seconds", "_since")

    def __init__(self, calls: int, seconds: float) -> None:
        self._calls_max, self._seconds = calls, seconds
        self._count: int | None = None
        self._since = 0.0
        self._calls = 0

    def stalled(self, count: int, now: float) -> bool:
        """Look at the counter. *now* is monotonic time in seconds."""
        if count != self._count:
            self._count, self._since, self._calls = count, now, 0
            return False
        self._calls += 1
        return self._calls >= self._calls_max and now - self._since >= self._seconds
