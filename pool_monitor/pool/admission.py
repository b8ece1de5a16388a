"""Which calls are refused, and why: the circuit breaker, what the past says of waits, and the words for it."""

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
_NAMED = 100  # operations that a refusal lists
_FAILURES = frozenset({"initialization", "connection", "communication"})  # categories that speak of workers


class Admission:
    """Decides about refusals, from how earlier calls went. Knows no queue and no workers: their state is passed in."""

    def __init__(
        self, identity: PoolIdentity, size: int, config: PoolConfig, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._identity, self.pool = identity, identity.name
        self.size = size  # workers wanted; only for the text of refusals
        self.refusals: Counter[str] = Counter()  # by reason
        self.times = ServiceTimes()
        self.breaker_tripped = False  # the breaker is not closed: ask `breaker_refusal`
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
        """Raise UnknownOperation for what no worker can do."""
        kind = operations.get(operation)
        if kind is None:
            names = ", ".join(sorted(operations)[:_NAMED])
            if len(operations) > _NAMED:
                names += f" and {len(operations) - _NAMED} more"
            raise UnknownOperation(f"pool {self.pool!r}: no operation {operation!r}; its target has {names}")
        if kind == "generator" and not stream:
            raise UnknownOperation(
                f"pool {self.pool!r}: {operation!r} is a generator; iterate over stream({operation!r}, ...)"
            )
        if options.worker is not None and options.worker not in workers:
            known = ", ".join(workers)
            raise UnknownOperation(f"pool {self.pool!r}: no worker {options.worker!r}; there are {known}")

    def breaker_refusal(self, call: Call, now: float, waiting: int) -> Rejected | None:
        """A refusal while the breaker is open."""
        if self.breaker is None:
            return None
        if self.breaker.allow(now):
            call.trial = self.breaker.state is BreakerState.HALF_OPEN
            return None
        again = self.breaker.retry_after(now)
        until = "until those on trial have ended" if again is None else f"for {again:.1f} s more"
        text = (
            f"workers kept failing, so calls are refused {until}: see why they fail "
            "(pool.worker.crash, pool.error), call again later, or set breaker_failures=0"
        )
        return self.rejected(CircuitOpen, text, waiting, retry_after_s=again)

    def deadline_refusal(
        self, call: Call, left: float, ahead: WorkAhead, handed: int, capacity: int, waiting: int
    ) -> Rejected | None:
        """A refusal of a call that has to wait behind those *ahead* and would miss its deadline in *left* seconds."""
        estimate = self.times.estimate(ahead, handed, capacity, call.operation) if self._shed else None
        if estimate is None or estimate.total <= left:
            return None
        text = (
            f"it would hardly make its deadline: {left:.3f} s are left, and about {estimate.wait:.3f} s of waiting and "
            f"{estimate.execution:.3f} s of execution are to be expected, give or take {estimate.margin:.3f} s: "
            f"{SLOWLY}"
        )
        return self.rejected(PoolSaturated, text, waiting, call, reason="deadline", retry_after_s=estimate.total - left)

    def why_no_worker(self, paused: bool, capacity: int) -> str:
        """Why a call was not handed over in time."""
        if paused:
            return "the pool is paused: call resume()"
        if capacity:
            return f"no worker became free in time: {SLOWLY}"
        why = "" if self.start_error is None else f", since the last one could not start: {self.start_error}"
        return f"there is no worker{why}"

    def would_miss_deadline(self, call: Call, left: float) -> bool:
        """Whether *left* seconds are too few for a result: the worker would work in vain."""
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
        """A refusal that says how the pool stands, *waiting* calls being in its queue."""
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
        """A call has ended for good."""
        if isinstance(error, Rejected):
            self.refusals[error.reason] += 1
        breaker = self.breaker
        if breaker is None:
            return
        if error is None or (isinstance(error, OperationError) and call.attempts):  # a worker answered, whatever
            breaker.record(True, now_ns / 1e9, trial=call.trial)
        elif isinstance(error, PoolError) and _is_worker_failure(error):
            self.failed(call, error, now_ns)
        elif call.trial:
            breaker.record(False if isinstance(error, OperationTimeout) else None, now_ns / 1e9, trial=True)

    def succeeded(self, count: int, now_ns: int) -> None:
        """So many calls have ended well."""
        if self.breaker is not None:
            self.breaker.record_successes(now_ns / 1e9, count)

    def failed(self, call: Call, error: PoolError, now_ns: int) -> None:
        """An attempt has failed. Workers that died together are one failure: only a call that was sent after the
        last failure says something new.
        """
        breaker = self.breaker
        if breaker is None or not _is_worker_failure(error):
            return
        if call.trial or call.sent_ns > self._failed_ns:
            self._failed_ns = now_ns
            breaker.record(False, now_ns / 1e9, trial=call.trial)
            call.trial = False

    def start_failed(self, error: StartError) -> None:
        """A worker could not be started."""
        self.start_error = error
        if self.breaker is not None:
            self.breaker.start_failed(self._now_ns() / 1e9)

    def started(self) -> None:
        """A worker is ready."""
        self.start_error = None
        if self.breaker is not None:
            self.breaker.start_succeeded(self._now_ns() / 1e9)


def _is_worker_failure(error: PoolError) -> bool:
    """Whether *error* says that workers fail: not what the target raises, and not that the pool ended a worker."""
    if isinstance(error, OperationError) or (isinstance(error, WorkerDied) and error.reason is not None):
        return False
    return error.category in _FAILURES
