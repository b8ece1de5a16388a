"""Every error a caller can meet.

    PoolError
    ├── ConfigError (ValueError)        a setting, file or flag is wrong; nothing was started
    ├── UnknownName (LookupError)       nothing of that name has been measured
    ├── StartError                      no worker could be started, or the target could not be loaded
    ├── WrongLoop (RuntimeError)        the pool was entered on another event loop, or in another process
    ├── UnknownOperation (LookupError)  the target has no such operation
    ├── Rejected                        the call never reached a worker
    │   ├── PoolSaturated               the queue is full, or the call would miss its deadline in it
    │   ├── QueueTimeout (TimeoutError) the call's deadline passed while it waited
    │   ├── CircuitOpen                 the breaker is open
    │   └── PoolClosed                  the pool is closed, or closing
    ├── OperationError                  the target raised
    │   └── PayloadError                arguments or result cannot be carried to or from the worker
    ├── OperationCancelled              the pool was closed while the call ran
    ├── OperationTimeout (TimeoutError) the call's deadline passed while it ran
    ├── WorkerDied                      the worker ended while the call was on it
    │   └── PoisonedCall                several workers ended just before they would have begun it
    ├── SessionLost                     strict affinity: the session's worker is gone
    ├── ProtocolError                   a worker spoke nonsense; it has been replaced
    └── ConnectError                    no running service could be reached (command line, remote viewers)

Each carries ``category`` (what kind of thing failed: what retries and breakers decide by), ``severity`` and
``retryable`` (whether the same call can be sent again without having happened twice); and where a call failed that a
worker had, ``worker`` and ``call_id``. Each can be copied and pickled, as can what is derived from it.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, Literal

Category = Literal[
    "configuration", "initialization", "resource", "timeout", "connection", "communication", "session", "operation"
]
Severity = Literal["warning", "error", "critical"]
Outcome = Literal["ok", "error", "timeout", "cancelled", "worker_lost", "rejected"]


class PoolError(Exception):
    """Root of everything this package raises on purpose.

    A copy, and what a pickle is rebuilt to in another process, has the same type, text, attributes and notes, also
    where a class derived from it has a constructor of its own. The cause comes along where it can be pickled and
    rebuilt; the traceback and ``__context__`` do not, as with any exception.
    """

    category: ClassVar[Category] = "operation"
    severity: ClassVar[Severity] = "error"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = "error"
    """How a call that ends with this error is counted."""

    worker: str | None = None
    """The slot of the worker that the call was on; None where it was on none, or none was concerned."""
    call_id: int | None = None
    """The number of the call, as in events; None for an error of no call."""
    cause: str | None = None
    """Why, in one line, without the pool, the worker and the target, which a screen shows beside it. None: the first
    line of the message is as short."""

    def __reduce__(self) -> tuple[Callable[..., PoolError], tuple[object, ...], dict[str, Any]]:
        # Built from what it is, not by its constructor: that would word the text again, and may want other arguments.
        return _rebuilt, (type(self), self.args, _packed(self.__cause__)), _state(self)

    def __copy__(self) -> PoolError:
        copied = _rebuilt(type(self), self.args)
        copied.__setstate__(_state(self))
        if self.__cause__ is not None:
            copied.__cause__ = self.__cause__
        return copied


def _state(error: PoolError) -> dict[str, Any]:
    """The attributes of *error* and its notes, of which each copy has a list of its own."""
    state = error.__getstate__()
    parts = state if isinstance(state, tuple) else (state,)  # with slots it is two
    merged = {name: value for part in parts if part for name, value in part.items()}
    if isinstance(merged.get("__notes__"), list):
        merged["__notes__"] = merged["__notes__"].copy()
    return merged


def _packed(cause: BaseException | None) -> bytes | None:
    """*cause* as a pickle of its own, so that where it cannot be made or rebuilt, it alone is missing."""
    with contextlib.suppress(Exception):
        return None if cause is None else pickle.dumps(cause)
    return None


def _rebuilt(kind: type[PoolError], args: tuple[object, ...], cause: bytes | None = None) -> PoolError:
    error = kind.__new__(kind, *args)
    error.args = args
    if cause is not None:
        with contextlib.suppress(Exception):
            error.__cause__ = pickle.loads(cause)  # noqa: S301 - it comes from the pickle that is being rebuilt
    return error


def _show(error: PoolError, traceback: str | None) -> None:
    """Have a worker's traceback printed with our own, when it says more than the message does."""
    if traceback and len(traceback.splitlines()) > 1:
        error.add_note(f"In the worker:\n{traceback.rstrip()}")


class ConfigError(PoolError, ValueError):
    """A setting is wrong. The text names the place, the value and the remedy."""

    category = "configuration"


class UnknownName(PoolError, LookupError):
    """A question about a pool, operation or worker that nothing was measured of. The text lists those there are."""

    category = "configuration"


class StartError(PoolError):
    """No worker could be started: the target could not be loaded, or the interpreter did not run.

    ``traceback`` is the worker's traceback as text when the target raised, else None.
    """

    category = "initialization"
    severity = "critical"

    def __init__(self, message: str, traceback: str | None = None, *, cause: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback
        self.cause = cause
        _show(self, traceback)


class WrongLoop(PoolError, RuntimeError):
    """The pool belongs to the event loop that it was entered on, and to that process. It was used from another loop or
    thread, from a process forked off that one, or where no asyncio event loop runs. Nothing was done. The text says
    what to do.
    """

    category = "configuration"


class UnknownOperation(PoolError, LookupError):
    """The target has no public operation of that name. The text lists those it has."""

    category = "configuration"


class Rejected(PoolError):
    """The call was refused before any worker saw it, so sending it again is safe.

    ``pool`` is the pool's name, ``waited_s`` how long the call waited (seconds), ``waiting`` how many calls
    were in the queue, ``size`` how many workers the pool wants; ``reason`` is the word the refusal is counted under,
    ``retry_after_s`` in how many seconds it may be worth another try, None where that is not known.
    """

    category = "resource"
    severity = "warning"
    retryable = True
    outcome = "rejected"
    reason: str = "rejected"

    def __init__(
        self,
        message: str,
        *,
        pool: str,
        waited_s: float,
        waiting: int,
        size: int,
        reason: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.pool, self.waited_s, self.waiting, self.size = pool, waited_s, waiting, size
        self.retry_after_s = retry_after_s
        if reason is not None:
            self.reason = reason
        super().__init__(
            f"{message} (pool {pool!r}: waited {waited_s:.3f} s, {waiting} calls waiting for {size} workers)"
        )


class PoolSaturated(Rejected):
    """The pool has more to do than it can: the queue is full (``reason`` saturated), or the predicted wait and
    execution would miss the call's deadline (``reason`` deadline).
    """

    reason = "saturated"


class QueueTimeout(Rejected, TimeoutError):
    """The call's deadline passed before a worker was free."""

    reason = "timeout"


class CircuitOpen(Rejected):
    """Workers kept failing, so the pool's circuit breaker is open; ``retry_after_s`` says for how long."""

    reason = "circuit_open"


class PoolClosed(Rejected):
    """The pool is not open: not yet entered, draining, or closed."""

    reason = "closed"
    retryable = False


class OperationError(PoolError):
    """The target raised. Carries what it raised as text: ``type_name``, ``message``, ``traceback``."""

    def __init__(self, operation: str, type_name: str, message: str, traceback: str = "") -> None:
        self.operation, self.type_name, self.message, self.traceback = operation, type_name, message, traceback
        super().__init__(f"{operation}: {type_name}: {message}" if message else f"{operation}: {type_name}")
        _show(self, traceback)


class PayloadError(OperationError):
    """Arguments, result or session data that cannot be carried: nothing the codec has a form for, or over the frame
    limit. The text says what to do. What each codec carries: docs/POOL_GUIDE.md, "What travels".
    """

    category = "communication"


class OperationCancelled(PoolError):
    """The pool was closed while the call ran. A caller that gives up itself gets asyncio.CancelledError instead."""

    category = "resource"
    severity = "warning"
    outcome = "cancelled"


class OperationTimeout(PoolError, TimeoutError):
    """The call's deadline passed while a worker was on it. It may have taken effect."""

    category = "timeout"
    outcome = "timeout"


class WorkerDied(PoolError):
    """The worker ended while the call was on it. The call may have taken effect, so it is sent again only when
    it is declared idempotent.

    ``worker`` is the slot, ``exit_code`` the process's exit code (negative: the signal's number; None: unknown),
    ``stderr`` the last lines it wrote there. ``reason`` is None when it ended by itself; otherwise why the pool ended
    it (``timeout``, ``cancel``, ``health`` ...): with ``concurrency`` above 1, another call that did not let go takes
    those beside it along.
    """

    category = "connection"
    retryable = True
    outcome = "worker_lost"

    def __init__(
        self, message: str, *, worker: str, exit_code: int | None, stderr: str = "", reason: str | None = None
    ) -> None:
        self.worker, self.exit_code, self.stderr, self.reason = worker, exit_code, stderr, reason
        super().__init__(f"{message}\nits last lines on stderr:\n{stderr}" if stderr else message)


class PoisonedCall(WorkerDied):
    """Several workers ended while they read this call, or many with it in their hands, though none had begun it. It is
    handed to no other: it is most likely what ends them. ``exit_code`` and ``stderr`` are those of the last one.
    """

    retryable = False


class SessionLost(PoolError):
    """The process a session with strict affinity was bound to is gone. Told once: the session's next call binds it
    to another. What is in ``session.data`` is kept; what the target kept itself is lost.
    """

    category = "session"
    retryable = True
    outcome = "worker_lost"


class ProtocolError(PoolError):
    """A worker sent what the protocol does not know. That worker has been replaced; the pool goes on."""

    category = "communication"
    retryable = True
    outcome = "worker_lost"


class ConnectError(PoolError):
    """No running service could be reached. The text says where it was looked for and what to do."""

    category = "connection"
