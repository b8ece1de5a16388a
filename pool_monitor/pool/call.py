"""One call, from the moment it is made to its end."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from pool_monitor.errors import OperationTimeout, PoisonedCall, PoolError, WorkerDied

if TYPE_CHECKING:
    from pool_monitor.pool.policy.queue import WaitQueue
    from pool_monitor.pool.policy.session_table import SessionState
    from pool_monitor.pool.stream_buffer import StreamBuffer
    from pool_monitor.telemetry import Record, Series

next_id: Callable[[], int] = itertools.count(1).__next__

_READERS_MAX = 3  # a call is poison once this many workers have ended while they read it
# The same, of workers that held it: not all report what they read, and many may end at once for another reason.
_HOLDERS_MAX = 20


class Options(Struct, frozen=True, kw_only=True):
    """How to make a call. The fields are the options of `Pool.options`, which describes them."""

    timeout: float | None = None
    first_item_timeout: float | None = None
    item_timeout: float | None = None
    session: str | None = None
    idempotent: bool = False
    priority: int = 0
    key: str = ""
    worker: str | None = None
    affinity: str | None = None
    zero_copy: bool = False


class CallWorker(Protocol):
    """The attributes of its worker that a call uses: the slot's id, and the records of its end (`call_events`)."""

    id: str
    records: dict[str, dict[str, Record]]
    records_of: Series | None


class Call(Struct, eq=False):
    """One call. It waits, is on a worker, and is then done for good. It may wait and be on a worker more than once."""

    id: int
    operation: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Options
    future: asyncio.Future[Any]
    items: StreamBuffer | None  # None for a call that is not a stream
    deadline: float  # event loop time
    started_ns: int
    priority: int = 0  # copied from the options, as is `key`: both are read several times while the call waits
    key: str = ""
    tick: int = 0  # its tick on the deadline wheel; 0: it is not on the wheel
    queue: WaitQueue[Call] | None = None  # the queue it waits in, or waited in last
    queue_ns: int | None = None  # how long it waited until its latest worker was free for it
    sent_ns: int = 0  # when that worker was free for it
    expects: tuple[float, float] = (0.0, 0.0)  # while it waits: mean and variance of how long it will hold its worker
    nth: int = 0  # its ordinal among the calls handed to that worker's process
    trial: bool = False  # a half-open breaker let it through
    session: SessionState[Call] | None = None
    session_kind: str = "none"  # or the affinity of its session: hint or strict
    worker: CallWorker | None = None  # the worker it is on, or was on last
    attempts: int = 0
    running: bool = False  # on a worker, and not done
    readers: int = 0  # workers that ended while they read it
    holders: int = 0  # workers that ended while they held it and had not begun it
    done: bool = False
    context: contextvars.Context | None = None  # the caller's, if the pool's configuration names variables that travel

    def in_context(self, emit: Callable[..., object]) -> Callable[..., object]:
        """Return *emit*, made to run in the caller's context if that travels."""
        return emit if self.context is None else partial(self.context.copy().run, emit)

    def resolve(self, error: BaseException | None, result: Any) -> None:
        """Wake the caller with the result or the error."""
        if not self.future.done():  # done already if the caller was cancelled
            if error is None:
                self.future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                self.future.cancel()
            else:
                self.future.set_exception(error)
        if self.items is not None:
            self.items.end()

    def timed_out(self, timeout: float, late_s: float = 0.0) -> OperationTimeout:
        """Return the error of a call that has reached its deadline. *timeout* applies to calls without an own one.
        *late_s* above 0: the event loop was blocked, and read the result that many seconds after the deadline.
        """
        on = self.worker.id if self.worker is not None else "?"
        own = self.options.timeout
        text = f"{self.operation} was not done within its timeout of {timeout if own is None else own:g} s, on {on}"
        if late_s:
            text += f"; its result was read {late_s:.3g} s later: something blocks the event loop of the service"
        return OperationTimeout(text)

    def late_error(self, now_ns: int, timeout: float) -> OperationTimeout | None:
        """Return the error that replaces a result read after the deadline, or None if the result is in time. A blocked
        event loop reads what has arrived before it runs its timers.
        """
        late_s = now_ns / 1e9 - self.deadline
        return self.timed_out(timeout, late_s) if late_s > 0 else None

    def outlived_worker(self, *, reading: bool) -> None:
        """Count a worker that ended while it held this call and had not begun it. *reading*: it was reading it."""
        self.holders += 1
        self.readers += reading

    def is_poison(self, workers: int) -> bool:
        """Whether this call most likely ends the workers that get it, in a pool of *workers* workers. If so, it is
        handed to no other.
        """
        return self.readers >= _READERS_MAX or self.holders >= max(_HOLDERS_MAX, 3 * workers)


def refused(operation: str, error: PoolError) -> Call:
    """Return a call that was refused with *error* before it was made."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return Call(0, operation, (), {}, Options(), future, None, 0.0, 0, done=True)


def poisoned(call: Call, last: PoolError) -> PoisonedCall:
    """Return the error of a call that several workers did not survive. *last* is the error that the last of these
    workers alone would cause.
    """
    seen = f"{call.readers} workers ended while they read it" if call.readers else f"{call.holders} workers held it"
    text = f"{call.operation}: {seen} and none began it, so no other is handed it"
    assert call.worker is not None  # it has been handed over
    exit_code = last.exit_code if isinstance(last, WorkerDied) else None
    error = PoisonedCall(f"{text}; the last end: {last}", worker=call.worker.id, exit_code=exit_code)
    error.stderr = last.stderr if isinstance(last, WorkerDied) else ""  # set here: the text already contains it
    return error
