"""`FailureWatch`: notices that most calls of a pool fail, so that what they take says nothing about the load to come.

Calls that fail at once, because a database is away, need next to no workers. A pool that gives its workers back then
has none when the database is there again.
"""

from __future__ import annotations

import math

SHARE = 0.5
"""Calls fail if so large a share of them does, for a while."""
CALLS_MIN = 10.0
HALF_LIFE_S = 10.0
"""Calls count half as much after so long a time."""
AFTER_S = 60.0
"""How long a pool does not shrink after that: until what calls take is known again."""
LONGEST_S = 3600.0
"""Calls that have failed for so long do so usually, and a pool may shrink again."""


class FailureWatch:
    """Looks at the calls of one pool. Constant memory."""

    def __init__(self) -> None:
        self._ended = self._failed = 0.0
        self._since: float | None = None
        self._latest = -math.inf

    def observe(self, now: float, interval: float, ended: int, failed: int) -> None:
        """Take the calls that *ended* in the *interval* seconds before *now*, and those of them that *failed*."""
        if not 0 <= interval < math.inf:
            return
        keep = 0.5 ** (interval / HALF_LIFE_S)
        self._ended = self._ended * keep + ended
        self._failed = self._failed * keep + failed
        if ended and self._ended >= CALLS_MIN and self._failed >= SHARE * self._ended:
            if self._since is None:
                self._since = now
            self._latest = now
        elif now - self._latest > AFTER_S:
            self._since = None

    def why(self) -> str | None:
        """Return in words why the pool should not shrink; None: it may. As of the latest observation."""
        if self._since is None or self._latest - self._since > LONGEST_S:
            return None
        return "it does not shrink while most calls fail, nor soon after"
