"""The interface between a pool and one worker, whatever the worker is made of.

The pool calls a `Transport`; the transport reports to its `Sink`. Processes are the first kind (process.py). HTTP
endpoints and remote actors can implement the same interface.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace


class Ready(NamedTuple):
    """What a worker reports about itself once it has loaded the target."""

    pid: int
    python: str
    """Version of the interpreter. For a worker in another language: the language and its version."""
    codec: str
    operations: Mapping[str, str]
    """Operation name to ``function`` or ``generator``."""


Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Growth = Annotated[int, Meta(ge=0, lt=2**50)]


class CallTimes(Struct, array_like=True, frozen=True, gc=False):
    """What one call took, measured in the worker. None: the worker cannot measure it."""

    execution_ns: Nanoseconds
    cpu_ns: Nanoseconds | None
    """Processor time of the whole process. An operation that takes less than 20 us on average is not measured: its wall
    time stands here, and None for a call of it that took longer. Also None where several calls ran at once.
    """
    rss_growth: Growth | None = None
    """Bytes by which the call raised the process's peak resident memory. 0 for a call of less than 100 us: what it adds
    is counted with the next longer call.
    """

    def within(self, elapsed_ns: int) -> CallTimes:
        """Return these times, cut to what is possible: at most *elapsed_ns* of execution, and at most that much
        processor time on each processor of the machine.
        """
        if self.execution_ns <= elapsed_ns and (self.cpu_ns is None or self.cpu_ns <= elapsed_ns):
            return self
        execution_ns = min(self.execution_ns, elapsed_ns)
        cpu_ns = None if self.cpu_ns is None else min(self.cpu_ns, elapsed_ns * (os.cpu_count() or 1))
        return replace(self, execution_ns=execution_ns, cpu_ns=cpu_ns)


class Reply(Struct, array_like=True, tag="reply", forbid_unknown_fields=True):
    """A plain operation returned. Nearly all messages of a worker are these, so they are decoded straight into this."""

    call_id: int
    result: Any
    session_data: None
    times: CallTimes


class Failure(NamedTuple):
    """Why a worker could not answer a call: ``kind`` is operation, payload or cancelled."""

    kind: str
    type_name: str
    message: str
    traceback: str


class StackAnswer(NamedTuple):
    """The stack of a worker, or the reason why there is none."""

    text: str | None
    reason: str | None = None
    """In words; None if there is a text."""


class Sink(Protocol):
    """What a transport reports. Called on the event loop; none of these may block or raise."""

    def returned(self, replies: Sequence[Reply]) -> None:
        """These operations returned, in this order. All had begun; none is a stream or changes a session's data."""

    def caught_up(self) -> None:
        """Everything that has arrived so far has been reported: the worker can be handed its next calls."""

    def replied(self, call_id: int, result: Any, session_data: dict[str, Any] | None, times: CallTimes) -> None:
        """The operation returned, or its generator ended (``result`` is None then)."""

    def failed(self, call_id: int, failure: Failure, times: CallTimes | None) -> None:
        """The operation raised, or its result cannot be carried. *times* is None when they cannot be read either."""

    def item(self, call_id: int, value: Any, size: int) -> None:
        """The operation's generator yielded. *size* is the length of the message in bytes."""

    def takes_view(self, call_id: int) -> bool:
        """Whether a large result or item of bytes may be passed as a view of memory shared with the worker."""

    def undecodable_item(self, call_id: int, failure: Failure) -> None:
        """The operation's generator yielded a value that cannot be decoded. The call goes on unless it is cancelled."""

    def recalled(self, call_id: int) -> None:
        """The worker gave this call back without having begun it. The call can go to another worker."""

    def ponged(self, token: int, call_id: int | None, rss: int | None) -> None:
        """The worker answered a ping. *call_id* is the call it is running, *rss* its resident memory in bytes."""

    def emitted(self, event: tuple[str, ...], measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """The target emitted a telemetry event."""

    def logged(self, level: str, text: str, fields: dict[str, Any]) -> None:
        """The target wrote a line to its log."""

    def dropped(self, count: int) -> None:
        """*count* events and log lines of the target are lost, because sending them would have blocked it."""

    def wrote(self, stream: str, text: str, size: int) -> None:
        """The process wrote a line to stdout or stderr. *size* is its length in bytes before it was cut."""

    def broke(self, reason: str) -> None:
        """The worker broke the protocol and is being killed. `Sink.gone` follows."""

    def gone(self, exit_code: int | None, stderr: str) -> None:
        """The worker has ended. Reported once, after everything else, when the start has succeeded or failed."""


class StackSource(Protocol):
    """Takes the stacks of one worker."""

    def take(self, patience: float) -> asyncio.Future[StackAnswer]:
        """Take the stack of the worker now. The call that it runs goes on. The future has the answer after at most
        *patience* seconds, or when a request that was under way is answered; it must not be cancelled.
        """

    def recent(self, seconds: float) -> bool:
        """Whether a stack was taken within the last *seconds*."""


class Transport(Protocol):
    """One worker, from its start to its end. It may have an attribute ``stacks``: a `StackSource`, or None."""

    async def start(self) -> Ready:
        """Start the worker and wait until it has loaded the target.

        Raises StartError with the target's traceback, or with what is known about why the worker did not start. After
        an error or a cancellation the caller calls `kill`. There is no timeout here.
        """

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any],
        stream: bool, session: tuple[str, dict[str, Any]] | None, context: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Hand a call to the worker, and return at once. *context* holds the context variables that travel with the
        call; it is None unless the pool's configuration names some.

        A worker begins its calls in the order in which they were handed over. While other calls are unanswered, the
        bytes may be sent at the end of this turn of the event loop, together with those of other calls.

        Raises PayloadError for a call that cannot be carried. Nothing of it has been sent then.
        """

    def flush(self) -> None:
        """Send at once the calls that were handed over."""

    @property
    def begun(self) -> int | None:
        """Ordinal of the call that the worker began last. Calls count from 1 in the order in which they were handed
        over, including those that were recalled. 0 before the first. It stays known after the worker's end.

        None for a worker that does not report it: any call it was handed may have begun.
        """

    @property
    def reading(self) -> int:
        """Ordinal of the call that the worker was reading when it ended, and that it had not begun. 0 if it was reading
        none, or does not report it.
        """

    def recall(self, call_ids: Sequence[int]) -> None:
        """Ask the worker to give back those of these calls that it has not begun. `Sink.recalled` follows for each of
        them. Without any *call_ids*, ask the worker to send the answers it may be holding back.

        Does nothing for a worker that does not report what it has begun.
        """

    def cancel(self, call_id: int) -> None:
        """Ask the worker to interrupt a call. Its answer still comes, unless the worker ends."""

    def ping(self, token: int) -> None:
        """Ask the worker for a sign of life. It answers also while an operation runs."""

    def flow(self, *, paused: bool) -> None:
        """Stop or resume receiving: back-pressure for a stream that its caller does not read, of a worker that runs one
        call at a time.
        """

    def hold(self, call_id: int, *, held: bool) -> None:
        """Pause or resume one stream of a worker that runs several calls at once. Items that were sent before still
        arrive.
        """

    async def stop(self, grace: float, kill_grace: float) -> None:
        """End the worker: ask it, then send SIGTERM after *grace* seconds, and SIGKILL after *kill_grace* more.

        Returns when the worker has ended. After a cancellation the worker may still run: the caller calls `kill`.
        """

    def kill(self) -> None:
        """End the worker and every process it started, now. `Sink.gone` follows."""

    def abandon(self) -> None:
        """End the worker, and block until it has ended (milliseconds). For use while the event loop is being closed."""
