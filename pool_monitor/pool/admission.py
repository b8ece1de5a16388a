"""Which calls are refused, and why: by the circuit breaker, by the predicted wait, and the texts of refusals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pool_monitor import emit
from pool_monitor.errors import (
    CircuitOpen,
    OperationError,
    OperationTimeout,
    PoolError,
    PoolSaturated,
    Rejected,
    StartError,
    UnknownOperation,
    WorkerDied,
)
from pool_monitor.log import logger
from pool_monitor.pool.policy.breaker import Breaker, BreakerState
from pool_monitor.pool.policy.service_times import ServiceTimes

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.emit import PoolIdentity
    from pool_monitor.pool.call import Call, Options
    from pool_monitor.pool.policy.queue import WorkAhead

SLOWLY = "call more slowly, add workers, or give more time"
_LISTED_MAX = 100  # operations that an error text lists
_FAILURES = frozenset({"initialization", "connection", "communication"})  # categories of failures of workers


class Admission:
    """Decides which calls are refused, from how earlier calls ended. Knows neither queue nor workers: their state is
    passed in.
    """

    def __init__(
        self, identity: PoolIdentity, size: int, config: PoolConfig, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._identity, self.pool = identity, identity.name
        self.size = size  # of the pool; only for the texts of refusals
        self.refusals: Counter[str] = Counter()  # by reason
        self.times = ServiceTimes()
        self.breaker_tripped = False  # the breaker is not closed: `breaker_refusal` decides
        self.breaker = self._breaker(config)
        self._shed = config.shed
        self._now_ns = now_ns
        self._failed_ns = 0  # when a failure was last counted by the breaker
        self.start_error: StartError | None = None  # of the last start, if that failed

    def _breaker(self, config: PoolConfig) -> Breaker | None:
        if not config.breaker_failures:
            return None
        breaker = Breaker(
            config.breaker_failures,
            config.breaker_ratio,
            config.breaker_minimum,
            config.breaker_window,
            config.breaker_open,
            config.breaker_trials,
            config.breaker_successes,
        )
        breaker.on_transition = self._changed
        return breaker

    def _changed(self, before: BreakerState, after: BreakerState, trigger: str, _now: float) -> None:
        self.breaker_tripped = after is not BreakerState.CLOSED
        emit.breaker_transition(self._identity, before=before.value, after=after.value, trigger=trigger)
        states = {"from": before.value, "to": after.value}
        logger("pool").warning("circuit breaker", pool=self.pool, **states, trigger=trigger)

    # -- before a call --------------------------------------------------------------------------------------------

    def check_operation(
        self,
        operation: str,
        options: Options,
        operations: Mapping[str, str],
        workers: Mapping[str, object],
        stream: bool,
    ) -> None:
        """Raise UnknownOperation if no worker can run the call."""
        kind = operations.get(operation)
        if kind is None:
            names = ", ".join(sorted(operations)[:_LISTED_MAX])
            if len(operations) > _LISTED_MAX:
                names += f" and {len(operations) - _LISTED_MAX} more"
            raise UnknownOperation(f"pool {self.pool!r}: no operation {operation!r}; its target has {names}")
        if kind == "generator" and not stream:
            raise UnknownOperation(
                f"pool {self.pool!r}: {operation!r} is a generator; iterate over stream({operation!r}, ...)"
            )
        if options.worker is not None and options.worker not in workers:
            known = ", ".join(workers)
            raise UnknownOperation(f"pool {self.pool!r}: no worker {options.worker!r}; there are {known}")

    def breaker_refusal(self, call: Call, now: float, waiting: int) -> Rejected | None:
        """Return a refusal if the breaker does not let the call through, else None."""
        if self.breaker is None:
            return None
        if self.breaker.allow(now):
            call.trial = self.breaker.state is BreakerState.HALF_OPEN
            return None
        retry_after_s = self.breaker.retry_after(now)
        until = "until the calls on trial have ended" if retry_after_s is None else f"for {retry_after_s:.1f} s more"
        text = (
            f"workers kept failing, so calls are refused {until}: see why they fail "
            "(pool.worker.crash, pool.error), call again later, or set breaker_failures=0"
        )
        return self.rejected(CircuitOpen, text, waiting, retry_after_s=retry_after_s)

    def deadline_refusal(
        self, call: Call, left: float, ahead: WorkAhead, handed: int, capacity: int, waiting: int
    ) -> Rejected | None:
        """Return a refusal if the call, waiting behind the calls *ahead*, would miss its deadline in *left* seconds."""
        estimate = self.times.estimate(ahead, handed, capacity, call.operation) if self._shed else None
        if estimate is None or estimate.total <= left:
            return None
        text = (
            f"the call would probably miss its deadline: {left:.3f} s are left, and it is expected to wait "
            f"{estimate.wait:.3f} s and run {estimate.execution:.3f} s, give or take {estimate.margin:.3f} s: {SLOWLY}"
        )
        return self.rejected(PoolSaturated, text, waiting, call, reason="deadline", retry_after_s=estimate.total - left)

    def why_no_worker(self, paused: bool, capacity: int) -> str:
        """Return the reason why a call was not handed over in time."""
        if paused:
            return "the pool is paused: call resume()"
        if capacity:
            return f"no worker became free in time: {SLOWLY}"
        why = "" if self.start_error is None else f"; the last start failed: {self.start_error}"
        return f"there is no worker{why}"

    def would_miss_deadline(self, call: Call, left: float) -> bool:
        """Whether *left* seconds are too few to execute the call, so that its result would come too late."""
        mean = self.times.mean_of(call.operation) if self._shed else None
        return mean is not None and left < mean / 2

    def rejected(
        self,
        kind: type[Rejected],
        message: str,
        waiting: int,
        call: Call | None = None,
        *,
        reason: str | None = None,
        retry_after_s: float | None = None,
    ) -> Rejected:
        """Return a refusal with the pool's numbers; *waiting* is the number of calls in its queue."""
        return kind(
            message,
            pool=self.pool,
            waited_s=0.0 if call is None else (self._now_ns() - call.started_ns) / 1e9,
            waiting=waiting,
            size=self.size,
            reason=reason,
            retry_after_s=retry_after_s,
        )

    # -- after it -------------------------------------------------------------------------------------------------

    def ended(self, call: Call, error: BaseException | None, now_ns: int) -> None:
        """Count the end of a call."""
        if isinstance(error, Rejected):
            self.refusals[error.reason] += 1
        breaker = self.breaker
        if breaker is None:
            return
        if error is None or (isinstance(error, OperationError) and call.attempts):  # a worker answered
            breaker.record(True, now_ns / 1e9, trial=call.trial)
        elif isinstance(error, PoolError) and _is_worker_failure(error):
            self.failed(call, error, now_ns)
        elif call.trial:
            breaker.record(False if isinstance(error, OperationTimeout) else None, now_ns / 1e9, trial=True)

    def succeeded(self, count: int, now_ns: int) -> None:
        """Count *count* calls that ended well."""
        if self.breaker is not None:
            self.breaker.record_successes(now_ns / 1e9, count)

    def failed(self, call: Call, error: PoolError, now_ns: int) -> None:
        """Count a failed attempt, if it was sent after the last failure counted: workers that died together count as
        one failure. A failed trial always counts.
        """
        breaker = self.breaker
        if breaker is None or not _is_worker_failure(error):
            return
        if call.trial or call.sent_ns > self._failed_ns:
            self._failed_ns = now_ns
            breaker.record(False, now_ns / 1e9, trial=call.trial)
            call.trial = False

    def start_failed(self, error: StartError) -> None:
        """Count a worker that could not be started."""
        self.start_error = error
        if self.breaker is not None:
            self.breaker.start_failed(self._now_ns() / 1e9)

    def started(self) -> None:
        """Note that a worker is ready."""
        self.start_error = None
        if self.breaker is not None:
            self.breaker.start_succeeded(self._now_ns() / 1e9)


def _is_worker_failure(error: PoolError) -> bool:
    """Whether *error* is a failure of a worker. Exceptions of the target do not count. Neither do workers that the pool
    ended.
    """
    if isinstance(error, OperationError) or (isinstance(error, WorkerDied) and error.reason is not None):
        return False
    return error.category in _FAILURES
