"""Decides when a pool refuses calls because calls keep failing. No I/O: time is passed in (seconds, monotonic).

A closed breaker lets every call through and watches how they end. After too many failures it opens: it refuses calls
at once for a while, so that failing workers are left alone. Then it lets a few calls through on trial, and their
outcomes decide whether it closes or opens again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from pool_monitor.state_machine import StateMachine

_BUCKETS = 10  # parts of the window, which therefore covers the last 90 to 100 per cent of its seconds


class BreakerState(StrEnum):
    """What a breaker does with calls."""

    __hash__ = str.__hash__  # faster than Enum's: looked up for every call

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


TRANSITIONS: dict[BreakerState, dict[str, BreakerState]] = {
    BreakerState.CLOSED: {"failures": BreakerState.OPEN, "ratio": BreakerState.OPEN},
    BreakerState.OPEN: {"elapsed": BreakerState.HALF_OPEN, "worker_started": BreakerState.HALF_OPEN},
    BreakerState.HALF_OPEN: {"trials_succeeded": BreakerState.CLOSED, "trial_failed": BreakerState.OPEN},
}
"""``state -> trigger -> state``."""

BREAKER = StateMachine("breaker", BreakerState.CLOSED, TRANSITIONS)

OnTransition = Callable[[BreakerState, BreakerState, str, float], None]
"""Called with each transition: state before, state after, trigger, time."""


class Breaker:
    """A circuit breaker. For each call that `allow` lets through, `record` must be called once, when the call ends.

    Opens after *failures* failures in a row. Also opens at a failure when, of at least *minimum* calls that ended
    within *window* seconds, at least the share *ratio* failed. After *open_for* seconds it lets up to *trials* calls at
    a time through on trial: *successes* successful trials close it, and one failed trial opens it again.
    """

    __slots__ = (
        "_bucket", "_by_start", "_calls", "_failed", "_in_a_row", "_marks", "_next_bucket", "_succeeded", "_under_way",
        "_until", "_width",
        "failures", "minimum", "on_transition", "open_for", "ratio", "state", "successes", "trials",
    )  # fmt: skip

    def __init__(
        self, failures: int, ratio: float, minimum: int, window: float, open_for: float, trials: int, successes: int
    ) -> None:
        self.failures, self.ratio, self.minimum = failures, ratio, minimum
        self.open_for, self.trials, self.successes = open_for, trials, successes
        self.state = BREAKER.first
        self.on_transition: OnTransition | None = None
        self._in_a_row = 0  # failures without a success between them
        self._calls = self._failed = 0  # calls that ended while closed, and the failures among these calls
        # The values of both when each bucket began.
        self._marks: deque[tuple[int, int]] = deque([(0, 0)] * _BUCKETS, maxlen=_BUCKETS)
        self._width = window / _BUCKETS
        self._bucket = 0  # the present bucket
        self._next_bucket = 0.0  # when the next bucket begins
        self._until = 0.0  # while open: calls are refused until then
        self._under_way = 0  # trials that have not ended
        self._succeeded = 0  # trials that succeeded since it became half-open
        self._by_start = False  # a failed start opened it

    def allow(self, now: float) -> bool:
        """Whether to let a call through. The call is a trial if the state is half-open afterwards."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            if now < self._until:
                return False
            self._step("elapsed", now)
        if self._under_way >= self.trials:
            return False
        self._under_way += 1
        return True

    def record(self, ok: bool | None, now: float, trial: bool) -> None:
        """Count the end of a call that was let through. *ok*: whether the workers did their part; None: not known.
        *trial*: the call was let through while half-open.

        The present state decides what counts: while closed every call does, while half-open only trials, while open
        none.
        """
        if trial:
            self._under_way -= 1
        if ok is None:
            return
        if self.state is BreakerState.CLOSED:
            if now >= self._next_bucket:
                self._advance(now)
            self._calls += 1
            if ok:
                self._in_a_row = 0
            else:
                self._count_failure(now)
        elif trial and self.state is BreakerState.HALF_OPEN:
            self._judge_trial(ok, now)

    def record_successes(self, now: float, count: int) -> None:
        """Do the same as ``record(True, now, trial=False)``, *count* times."""
        if self.state is BreakerState.CLOSED and count:
            if now >= self._next_bucket:
                self._advance(now)
            self._calls += count
            self._in_a_row = 0

    def start_failed(self, now: float) -> None:
        """Count a worker that could not be started: a failure that belongs to no call."""
        if self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.CLOSED:
            self.record(False, now, trial=False)
        else:
            self._judge_trial(False, now)
        self._by_start = self.state is not BreakerState.CLOSED

    def start_succeeded(self, now: float) -> None:
        """Note that a worker was started. If a failed start opened the breaker, trials are allowed at once."""
        if self.state is BreakerState.OPEN and self._by_start:
            self._step("worker_started", now)

    def retry_after(self, now: float) -> float | None:
        """Return the seconds until calls are let through again; None if that depends on the calls on trial."""
        if self.state is BreakerState.HALF_OPEN:
            return None
        return max(0.0, self._until - now) if self.state is BreakerState.OPEN else 0.0

    def _advance(self, now: float) -> None:
        """Move on to the bucket of *now*."""
        tick = int(now / self._width)
        self._marks.extend([(self._calls, self._failed)] * min(tick - self._bucket, _BUCKETS))
        self._bucket = tick
        self._next_bucket = (tick + 1) * self._width

    def _count_failure(self, now: float) -> None:
        self._failed += 1
        self._in_a_row += 1
        if self._in_a_row >= self.failures:
            self._step("failures", now)
            return
        calls_before, failed_before = self._marks[0]
        calls = self._calls - calls_before
        if calls >= self.minimum and self._failed - failed_before >= self.ratio * calls:
            self._step("ratio", now)

    def _judge_trial(self, ok: bool, now: float) -> None:
        if not ok:
            self._step("trial_failed", now)
            return
        self._succeeded += 1
        if self._succeeded >= self.successes:
            self._step("trials_succeeded", now)

    def _step(self, trigger: str, now: float) -> None:
        before, self.state = self.state, BREAKER.step(self.state, trigger)
        self._succeeded = self._in_a_row = 0
        self._by_start = False
        if self.state is BreakerState.OPEN:
            self._until = now + self.open_for
        elif self.state is BreakerState.CLOSED:  # calls from before it opened no longer count
            self._marks.extend([(self._calls, self._failed)] * _BUCKETS)
        if self.on_transition is not None:
            self.on_transition(before, self.state, trigger, now)
