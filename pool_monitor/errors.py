"""Every error that the package raises on purpose.

    PoolError
    ├── ConfigError (ValueError)        a setting, file or flag is invalid; nothing was started
    ├── UnknownName (LookupError)       no pool, operation or worker of that name was measured
    ├── StartError                      no worker could be started, or the target could not be loaded
    ├── WrongLoop (RuntimeError)        the pool was entered on another event loop, or in another process
    ├── UnknownOperation (LookupError)  the target has no operation of that name
    ├── Rejected                        the call never reached a worker
    │   ├── PoolSaturated               the queue is full, or the call would miss its deadline
    │   ├── QueueTimeout (TimeoutError) the call's deadline passed while the call waited
    │   ├── CircuitOpen                 the breaker is open
    │   └── PoolClosed                  the pool is closed, or closing
    ├── OperationError                  the target raised
    │   └── PayloadError                arguments, result or session data cannot be transferred
    ├── OperationCancelled              the pool was closed while the call ran
    ├── OperationTimeout (TimeoutError) the call's deadline passed while the call ran
    ├── WorkerDied                      the worker process ended while it had the call
    │   └── PoisonedCall                several worker processes ended before they began the call
    ├── SessionLost                     strict affinity: the session's worker process is gone
    ├── ProtocolError                   a worker violated the protocol and is replaced
    └── ConnectError                    no running service could be reached (command line, remote viewers)

Each error has a ``category`` (the kind of failure, by which retries and breakers decide), a ``severity`` and
``retryable`` (whether sending the same call again can help). The error of a call has its ``call_id``, and ``worker`` if
a worker had the call. Errors can be copied and pickled; so can those of derived classes.
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
    """The root of all errors that this package raises on purpose.

    A copied or unpickled error has the same type, text, attributes and notes as the original, even if a derived class
    has a different constructor. It has the cause too, if the cause can be pickled and rebuilt. It does not have the
    traceback and ``__context__``, as with any exception.
    """

    category: ClassVar[Category] = "operation"
    severity: ClassVar[Severity] = "error"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = "error"
    """The outcome of a call that ends with this error."""

    worker: str | None = None
    """The slot of the worker that had the call; None if no worker had it or none was concerned."""
    call_id: int | None = None
    """The number of the call, as in events; None if the error is not of a call."""
    cause: str | None = None
    """Why, in one line, without the names of the pool, the worker and the target: screens show those beside it. None:
    the first line of the message is short enough."""

    def __reduce__(self) -> tuple[Callable[..., PoolError], tuple[object, ...], dict[str, Any]]:
        # Rebuilt from its state. The constructor would add to the text again and may need other arguments.
        return _rebuilt, (type(self), self.args, _packed(self.__cause__)), _state(self)

    def __copy__(self) -> PoolError:
        copied = _rebuilt(type(self), self.args)
        copied.__setstate__(_state(self))
        if self.__cause__ is not None:
            copied.__cause__ = self.__cause__
        return copied


def _state(error: PoolError) -> dict[str, Any]:
    """Return the attributes of *error*, with a copy of its list of notes."""
    state = error.__getstate__()
    parts = state if isinstance(state, tuple) else (state,)  # a pair if a class has __slots__
    merged = {name: value for part in parts if part for name, value in part.items()}
    if isinstance(merged.get("__notes__"), list):
        merged["__notes__"] = merged["__notes__"].copy()
    return merged


def _packed(cause: BaseException | None) -> bytes | None:
    """Return *cause* as a separate pickle: if it cannot be made or rebuilt, only the cause is missing."""
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


def _add_traceback(error: PoolError, traceback: str | None) -> None:
    """Add a worker's traceback of more than one line as a note: it is printed with the traceback of *error*."""
    if traceback and len(traceback.splitlines()) > 1:
        error.add_note(f"In the worker:\n{traceback.rstrip()}")


def add_stack(error: OperationTimeout | WorkerDied, stack: str) -> None:
    """Set ``stack`` of *error*, and print it with the traceback of *error*."""
    error.stack = stack
    error.add_note(f"The worker was here:\n{stack}")


def first_line(text: str) -> str:
    """Return the first line of *text*, or ``unknown`` if *text* is blank."""
    return (text.strip().splitlines() or ["unknown"])[0]


class ConfigError(PoolError, ValueError):
    """A setting is invalid. The text names the place, the value and the remedy."""

    category = "configuration"


class UnknownName(PoolError, LookupError):
    """A query names a pool, operation or worker that was not measured. The text lists the names that were."""

    category = "configuration"


class StartError(PoolError):
    """No worker could be started: the target could not be loaded, or the interpreter did not run.

    ``traceback`` is the worker's traceback as text if the target raised, else None.
    """

    category = "initialization"
    severity = "critical"

    def __init__(self, message: str, traceback: str | None = None, *, cause: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback
        # What a target raises may be of many lines.
        self.cause = first_line(cause) if cause and not cause.isspace() else None
        _add_traceback(self, traceback)


class WrongLoop(PoolError, RuntimeError):
    """The pool was used outside the event loop and the process that it was entered in.

    It was used from another loop or thread, from a forked process, or without a running asyncio event loop. The use had
    no effect. The text names the remedy.
    """

    category = "configuration"


class UnknownOperation(PoolError, LookupError):
    """The target has no public operation of that name. The text lists the operations it has."""

    category = "configuration"


class Rejected(PoolError):
    """The pool refused the call before it reached a worker, so sending the call again is safe.

    ``pool`` is the pool's name. ``waited_s`` is how long the call waited, in seconds. ``waiting`` is the number of
    calls in the queue, ``size`` the number of workers wanted. ``reason`` is the word that the refusal is counted under.
    ``retry_after_s`` is the number of seconds after which another try may succeed; None: not known.
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
    """The pool is overloaded.

    ``reason`` is ``saturated``: the queue is full; or ``deadline``: the predicted wait and execution would miss the
    call's deadline.
    """

    reason = "saturated"


class QueueTimeout(Rejected, TimeoutError):
    """The call's deadline passed before a worker was free."""

    reason = "timeout"


class CircuitOpen(Rejected):
    """The pool's circuit breaker is open because workers kept failing. It stays open for ``retry_after_s`` seconds."""

    reason = "circuit_open"


class PoolClosed(Rejected):
    """The pool is not open: not yet entered, draining, or closed."""

    reason = "closed"
    retryable = False


class OperationError(PoolError):
    """The target raised an exception. ``type_name``, ``message`` and ``traceback`` describe it as text."""

    def __init__(self, operation: str, type_name: str, message: str, traceback: str = "") -> None:
        self.operation, self.type_name, self.message, self.traceback = operation, type_name, message, traceback
        super().__init__(f"{operation}: {type_name}: {message}" if message else f"{operation}: {type_name}")
        _add_traceback(self, traceback)


class PayloadError(OperationError):
    """Arguments, a result or session data cannot be transferred: the codec cannot encode them, or they exceed a limit.

    The text names the remedy. What each codec can encode: docs/POOL_GUIDE.md, "What travels".
    """

    category = "communication"


class OperationCancelled(PoolError):
    """The pool was closed while the call ran. A caller that cancels the call gets asyncio.CancelledError instead."""

    category = "resource"
    severity = "warning"
    outcome = "cancelled"


class OperationTimeout(PoolError, TimeoutError):
    """The call's deadline passed while a worker had the call. The call may have taken effect."""

    category = "timeout"
    outcome = "timeout"

    stack: str | None = None
    """What the worker was doing when the time was up, innermost frame last. None where that could not be had."""


class WorkerDied(PoolError):
    """The worker process ended while it had the call. The call may have taken effect, so the pool sends it again only
    if it is declared idempotent.

    ``worker`` is the slot. ``exit_code`` is the exit code of the process (negative: the number of a signal; None:
    unknown). ``stderr`` has the last lines it wrote to stderr. ``reason`` is None if the process ended by itself, else
    why the pool ended it (``timeout``, ``cancel``, ``health`` ...). ``cause`` says so if the kernel's out-of-memory
    killer ended it: ``killed by signal 9: the kernel's out-of-memory killer (cgroup limit 512 MiB)``. With
    ``concurrency`` above 1, a process that is ended because of one call ends the other calls on it too.
    """

    category = "connection"
    retryable = True
    outcome = "worker_lost"

    stack: str | None = None
    """What the worker was doing when the pool killed it, innermost frame last. None if it ended by itself, or where
    that could not be had."""

    def __init__(
        self, message: str, *, worker: str, exit_code: int | None, stderr: str = "", reason: str | None = None
    ) -> None:
        self.worker, self.exit_code, self.stderr, self.reason = worker, exit_code, stderr, reason
        super().__init__(f"{message}\nits last lines on stderr:\n{stderr}" if stderr else message)


class PoisonedCall(WorkerDied):
    """Several workers ended while they read this call, or many while they held it, and none had begun it.

    The call most likely ends them, so it is handed to no other worker. ``exit_code`` and ``stderr`` are from the last
    of them.
    """

    retryable = False


class SessionLost(PoolError):
    """The process that a session with strict affinity was bound to is gone.

    Raised once: the next call binds the session to another process. ``session.data`` is kept. What the target kept for
    the session in the process is lost.
    """

    category = "session"
    retryable = True
    outcome = "worker_lost"


class ProtocolError(PoolError):
    """A worker violated the protocol. The pool replaces that worker and goes on."""

    category = "communication"
    retryable = True
    outcome = "worker_lost"


class ConnectError(PoolError):
    """No running service could be reached. The text names the places that were searched and the remedy."""

    category = "connection"
