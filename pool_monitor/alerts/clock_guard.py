"""Decides how much of the time between two evaluations counts, and when the figures are not to be trusted.

Theory of operation
-------------------
A rule with ``for: 10m`` may fire only if its value was seen bad for ten minutes. Where nobody looked, nothing was seen.
The machine may have been suspended, the process may have been stopped (SIGSTOP, a frozen container), or the event loop
may have been blocked. `ClockGuard.seen` is called about once a second. A time between two calls that is longer than
`ClockGuard.allowed` is a *gap*:

- After a suspended machine or a stopped process, the windows hold what was measured before the gap, and calls that
  seem to have taken as long as it. The gap counts nothing, and nothing is evaluated for as long as the gap was, at most
  `PAUSE_MAX_S`: until there is something to see of what happened after it. A longer window still holds such calls.
- A loop that was blocked is itself what rules look for, and the figures are true. The gap counts as much as the longest
  time that is no gap, and evaluation goes on. So a loop that is blocked again and again is still reported.

Only a monotonic clock is read. A step of the wall clock is not seen here.
"""

from __future__ import annotations

PAUSE_MAX_S = 60.0
"""The longest pause after a gap."""


class ClockGuard:
    """Adds up the time that counts. *interval* is the time between two evaluations, in seconds. Times passed in are
    nanoseconds of a monotonic clock.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.allowed = max(2 * interval, interval + 2)
        """The longest time between two calls of `seen` that counts, in seconds."""
        self._seen_ns: int | None = None
        self._evaluated_ns: int | None = None
        self._counted = 0.0  # since the latest evaluation
        self._paused_until_ns = 0
        self.missed = 0
        """Evaluations at their time that were left out."""

    def restart(self) -> None:
        """Forget when it was called last: the time until the next call does not count."""
        self._seen_ns = self._evaluated_ns = None
        self._counted, self._paused_until_ns = 0.0, 0

    def seen(self, now_ns: int, blocked: float = 0.0) -> None:
        """The event loop runs. *blocked*: for how many seconds it was blocked since the last call, without the time in
        which the process did not run.
        """
        before, self._seen_ns = self._seen_ns, now_ns
        if before is None:
            return
        step = (now_ns - before) / 1e9
        if step <= self.allowed:
            self._counted += step
        elif blocked >= step / 2:
            self._counted += self.allowed
        else:
            self._counted = 0.0
            self._paused_until_ns = max(self._paused_until_ns, now_ns + round(min(step, PAUSE_MAX_S) * 1e9))

    def scheduled(self, now_ns: int) -> float | None:
        """Return the seconds that count for an evaluation at its time; None: leave it out. `seen` comes first."""
        if now_ns < self._paused_until_ns:
            self._counted = 0.0
            return None
        if self._evaluated_ns is not None:
            self.missed += max(round((now_ns - self._evaluated_ns) / 1e9 / self._interval) - 1, 0)
        return self._evaluate(now_ns, self._counted)

    def asked(self, now_ns: int) -> float:
        """Return the seconds that count for an evaluation that somebody asked for: all since the latest one, whatever
        happened in them. It ends a pause.
        """
        return self._evaluate(now_ns, 0.0 if self._evaluated_ns is None else (now_ns - self._evaluated_ns) / 1e9)

    def pause_left(self, now_ns: int) -> float:
        """For how long nothing will be evaluated at its time, in seconds; 0: it is not paused."""
        return max(self._paused_until_ns - now_ns, 0) / 1e9

    def _evaluate(self, now_ns: int, elapsed: float) -> float:
        self._evaluated_ns = self._seen_ns = now_ns
        self._counted, self._paused_until_ns = 0.0, 0
        return elapsed
