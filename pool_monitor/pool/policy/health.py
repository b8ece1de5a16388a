"""Decides from pings whether a worker is healthy. No I/O: time is passed in (seconds, monotonic).

A worker answers pings while an operation runs, except while the operation is in C code that does not release the
interpreter. So silence alone never condemns a busy worker: a call has until its deadline, and the deadline ends it.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The health of a worker, judged by its answers to pings.

    =============  ========================  =======================  ============================================
    verdict        pings                     the worker               what follows
    =============  ========================  =======================  ============================================
    RESPONSIVE     answered, or not late     idle or busy             nothing
    LATE           fewer than *misses* late  idle                     it gets no calls, and is pinged again
    UNRESPONSIVE   *misses* late in a row    idle all the time        it is replaced
    BUSY           one or more late          busy, computing          nothing: its call has a deadline
    STUCK          one or more late          busy, not computing      it is shown; the call's deadline ends it
    =============  ========================  =======================  ============================================
    """

    RESPONSIVE = "responsive"
    LATE = "late"
    BUSY = "busy"
    STUCK = "stuck"
    UNRESPONSIVE = "unresponsive"


class Health:
    """The pings of one worker process: one every *interval* seconds, late if unanswered after *timeout* seconds."""

    __slots__ = (
        "_answered", "_asked_at", "_counted_late", "_cpu", "_excused", "_still_since", "_token",
        "interval", "late", "misses", "timeout",
    )  # fmt: skip

    def __init__(self, interval: float, timeout: float, misses: int) -> None:
        self.interval, self.timeout, self.misses = interval, timeout, misses
        self.late = 0  # pings in a row that became late
        self._excused = 0  # late pings that do not count against the worker, which was seen busy at or after them
        self._token = self._answered = 0  # the tokens of the last ping sent and of the newest ping answered
        self._asked_at: float | None = None  # when the last ping was sent
        self._counted_late = False  # whether the last ping has been counted as late
        self._cpu = 0.0  # the processor time when it was last seen to increase
        self._still_since: float | None = None  # when that was; None while no ping is late or the worker is idle

    @property
    def suspect(self) -> bool:
        """Whether a ping is late that an idle worker should have answered."""
        return self.late > self._excused

    def due(self, now: float) -> bool:
        """Whether to send a ping now. The first is due at once; no further ping is due while the last one may still be
        answered in time.
        """
        if self._asked_at is None:
            return True
        least = self.interval if self._answered == self._token else max(self.interval, self.timeout)
        return now - self._asked_at >= least

    def ping(self, now: float) -> int:
        """Note that a ping is sent now. Returns its token."""
        self._count_late(now)
        self._token += 1
        self._asked_at, self._counted_late = now, False
        return self._token

    def has_sent(self, token: int) -> bool:
        """Whether a ping with this token was ever sent."""
        return 0 < token <= self._token

    def pong(self, token: int, now: float) -> float | None:
        """Handle the answer to a ping. Returns the seconds it took, or None if it was not the last ping. An answer
        clears all late pings, however late it is, unless it is a repetition.
        """
        if not self._answered < token <= self._token or self._asked_at is None:
            return None
        self._count_late(now)  # so that the last ping is cleared too if it is late by now, and is not counted again
        self._answered = token
        self.late = self._excused = 0
        return now - self._asked_at if token == self._token else None

    def verdict(self, now: float, busy: bool, cpu: float | None) -> Verdict:
        """Return the verdict on the worker. *busy*: it has begun a call. *cpu*: the seconds of processor time that its
        process has used; None: not known, and the worker counts as computing.
        """
        self._count_late(now)
        if not self.late or not busy:
            self._still_since = None
            if not self.suspect:
                return Verdict.RESPONSIVE
            return Verdict.UNRESPONSIVE if self.late - self._excused >= self.misses else Verdict.LATE
        self._excused = self.late
        if cpu is None or self._still_since is None or cpu > self._cpu:
            self._still_since, self._cpu = now, cpu or 0.0
        return Verdict.STUCK if now - self._still_since >= self.timeout else Verdict.BUSY

    def _count_late(self, now: float) -> None:
        """Count the last ping if it has become late."""
        unanswered = self._asked_at is not None and self._answered != self._token and not self._counted_late
        if unanswered and self._asked_at is not None and now - self._asked_at >= self.timeout:
            self._counted_late = True
            self.late += 1
