"""One call, from the moment it is asked for to its one end."""

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

_READERS = 3  # workers that end while they read a call, after which it is poison
_HOLDERS = 20  # and for workers that do not report what they read; many can end at one moment, through no call's fault


class Options(Struct, frozen=True, kw_only=True):
    """How to make a call: what `Pool.options` takes, and what it means."""

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
    """What a call knows of its worker: the slot's id, and where its end is recorded (`call_events`)."""

    id: str
    records: dict[str, dict[str, Record]]
    records_of: Series | None


class Call(Struct, eq=False):
    """One call. It is waiting, then on a worker (perhaps more than once), then done, for good."""

    id: int
    operation: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Options
    future: asyncio.Future[Any]
    items: StreamBuffer | None  # a stream's; None for a plain call
    deadline: float  # event loop time
    started_ns: int
    priority: int = 0  # of the options: each is looked at several times while the call waits
    key: str = ""
    tick: int = 0  # where the deadline wheel has it; 0: it is not on the wheel
    queue: WaitQueue[Call] | None = None  # where it stands, or stood last
    queue_ns: int | None = None  # how long it waited for its last worker to be free
    sent_ns: int = 0  # when that was
    expects: tuple[float, float] = (0.0, 0.0)  # mean and variance of how long it will hold its worker, while it waits
    nth: int = 0  # of the calls handed to that worker's process
    trial: bool = False  # let through by a breaker that is half open
    session: SessionState[Call] | None = None
    session_kind: str = "none"  # else what it wants of the session's worker: hint or strict
    worker: CallWorker | None = None  # where it is now, or was last
    attempts: int = 0
    running: bool = False  # on a worker, and not done
    readers: int = 0  # workers that ended while they read it
    holders: int = 0  # workers that ended with it in their hands, none of which had begun it
    done: bool = False
    context: contextvars.Context | None = None  # of its caller, where variables of it travel

    def in_context(self, emit: Callable[..., object]) -> Callable[..., object]:
        """*emit*, in the context of the caller if that travels."""
        return emit if self.context is None else partial(self.context.copy().run, emit)

    def resolve(self, error: BaseException | None, result: Any) -> None:
        """Wake the caller."""
        if not self.future.done():  # it is when the caller was cancelled
            if error is None:
                self.future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                self.future.cancel()
            else:
                self.future.set_exception(error)
        if self.items is not None:
            self.items.end()

    def timed_out(self, timeout: float, late_s: float = 0.0) -> OperationTimeout:
        """What its caller gets at its deadline; *timeout*: of calls that bring none. *late_s*: the result is there, and
        was read so long after the deadline, since the event loop was held up.
        """
        on = self.worker.id if self.worker is not None else "?"
        own = self.options.timeout
        text = f"{self.operation} was not done within its timeout of {timeout if own is None else own:g} s, on {on}"
        if late_s:
            text += f"; its result was read {late_s:.3g} s later: something holds up the event loop of the service"
        return OperationTimeout(text)

    def late_error(self, now_ns: int, timeout: float) -> OperationTimeout | None:
        """What its caller gets in place of a result that a held-up loop reads past the deadline: the loop reads
        what has come before it looks at its timers.
        """
        late_s = now_ns / 1e9 - self.deadline
        return self.timed_out(timeout, late_s) if late_s > 0 else None

    def outlived_worker(self, *, reading: bool) -> None:
        """A worker has ended that held it and had not begun it; *reading*: while it read this very call."""
        self.holders += 1
        self.readers += reading

    def is_poison(self, workers: int) -> bool:
        """Whether it is most likely what ends the *workers* of the pool: no other is handed it."""
        return self.readers >= _READERS or self.holders >= max(_HOLDERS, 3 * workers)


def refused(operation: str, error: PoolError) -> Call:
    """A call that never came to be."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return Call(0, operation, (), {}, Options(), future, None, 0.0, 0, done=True)


def poisoned(call: Call, last: PoolError) -> PoisonedCall:
    """The error of a call that several workers did not survive; *last*: its error from the last of them alone."""
    seen = f"{call.readers} workers ended while they read it" if call.readers else f"{call.holders} workers held it"
    text = f"{call.operation}: {seen} and none began it, so no other is handed it"
    assert call.worker is not None  # it was handed to some
    exit_code = last.exit_code if isinstance(last, WorkerDied) else None
    error = PoisonedCall(f"{text}; the last end: {last}", worker=call.worker.id, exit_code=exit_code)
    error.stderr = last.stderr if isinstance(last, WorkerDied) else ""  # which the text has already
    return error
