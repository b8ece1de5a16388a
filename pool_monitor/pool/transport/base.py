"""What a pool needs of a worker, whatever it is made of.

The pool talks to a `Transport`; the transport tells its `Sink`. Processes are the first kind (process.py); HTTP
endpoints and remote actors can stand in the same place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace


class Ready(NamedTuple):
    """What a worker said of itself once it had loaded the target."""

    pid: int
    python: str
    """The interpreter's version; of a worker in another language, that and its version."""
    codec: str
    operations: Mapping[str, str]
    """Operation name to ``function`` or ``generator``."""


Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Growth = Annotated[int, Meta(ge=0, lt=2**50)]


class CallTimes(Struct, array_like=True, frozen=True, gc=False):
    """Measured in the worker. None: the worker cannot tell."""

    execution_ns: Nanoseconds
    cpu_ns: Nanoseconds | None
    """Of the whole process; the wall time of an operation that takes less than 20 us. None where several calls ran at
    once, and where such an operation took longer for once: nothing was measured then.
    """
    rss_growth: Growth | None = None
    """Bytes by which the call raised the process's peak resident memory. 0 for less than 100 us: what such a call adds
    is counted with the next longer one.
    """

    def within(self, elapsed_ns: int) -> CallTimes:
        """The same, where it can be true: a call cannot have run for longer than *elapsed_ns*, nor have computed for
        longer than that on every processor there is.
        """
        if self.execution_ns <= elapsed_ns and (self.cpu_ns is None or self.cpu_ns <= elapsed_ns):
            return self
        execution_ns = min(self.execution_ns, elapsed_ns)
        cpu_ns = None if self.cpu_ns is None else min(self.cpu_ns, elapsed_ns * (os.cpu_count() or 1))
        return replace(self, execution_ns=execution_ns, cpu_ns=cpu_ns)


class Reply(Struct, array_like=True, tag="reply", forbid_unknown_fields=True):
    """A plain operation returned: what nearly all messages of a worker are, so it is decoded straight into this."""

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


class Sink(Protocol):
    """What a transport reports. Called on the event loop; none of these may block or raise."""

    def returned(self, replies: Sequence[Reply]) -> None:
        """These operations returned, in this order. All were begun, are no streams, and keep no data of a session."""

    def caught_up(self) -> None:
        """All that had arrived by now has been reported: the worker can be handed its next calls."""

    def replied(self, call_id: int, result: Any, session_data: dict[str, Any] | None, times: CallTimes) -> None:
        """The operation returned, or its generator ended (``result`` is None then)."""

    def failed(self, call_id: int, failure: Failure, times: CallTimes | None) -> None:
        """The operation raised, or its result cannot be carried. *times* None: they could not be read either."""

    def item(self, call_id: int, value: Any, size: int) -> None:
        """The operation's generator yielded; *size*: bytes the item took on its way."""

    def takes_view(self, call_id: int) -> bool:
        """Whether a large value of bytes, a result or an item, may come as a view of memory shared with the worker."""

    def undecodable_item(self, call_id: int, failure: Failure) -> None:
        """The operation's generator yielded what cannot be decoded here; it goes on unless it is cancelled."""

    def recalled(self, call_id: int) -> None:
        """The worker had not begun this call, and never will: it is free to go elsewhere."""

    def ponged(self, token: int, call_id: int | None, rss: int | None) -> None:
        """The worker answered a ping; *call_id* is what it is running, *rss* its resident memory in bytes."""

    def emitted(self, event: tuple[str, ...], measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """The target emitted a telemetry event."""

    def logged(self, level: str, text: str, fields: dict[str, Any]) -> None:
        """The target wrote a line to its log."""

    def dropped(self, count: int) -> None:
        """So many events and log lines of the target could not be sent without blocking it, and are lost."""

    def wrote(self, stream: str, text: str, size: int) -> None:
        """A line on stdout or stderr; *size* is its length in bytes before any cut."""

    def broke(self, reason: str) -> None:
        """The worker broke the protocol and is being killed; `gone` follows."""

    def gone(self, exit_code: int | None, stderr: str) -> None:
        """The worker has ended. Reported once, last, and only for a transport whose start succeeded or failed."""


class Transport(Protocol):
    """One worker, from its start to its end."""

    async def start(self) -> Ready:
        """Start the worker and wait until it has loaded the target.

        Raises StartError with the target's traceback, or with what is known of why it did not start. After an
        error or a cancellation call `kill`. Does not time out by itself.
        """

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any],
        stream: bool, session: tuple[str, dict[str, Any]] | None, context: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Hand over a call; *context* has the variables that travel with it, where the pool's configuration names any:
        else it is not given. Returns at once. Raises PayloadError when it cannot be carried; nothing was sent then.

        A worker begins its calls in the order they were handed over. While others are unanswered the bytes may leave
        only at the end of this turn of the event loop, together.
        """

    def flush(self) -> None:
        """Have the calls leave now that were handed over."""

    @property
    def begun(self) -> int | None:
        """The ordinal of the call begun last, calls being counted from 1 in the order handed over, those taken back
        too. 0 before the first; also told after the worker's end. None for a worker that does not tell: then any call
        it was handed may have been begun.
        """

    @property
    def reading(self) -> int:
        """The ordinal of the call that the worker was reading when it ended, before it could begin it. 0: of none, or
        of a worker that does not tell.
        """

    def recall(self, call_ids: Sequence[int]) -> None:
        """Ask for calls back that have not been begun: the sink's `recalled` follows for each that had not. With none
        of them: have the answers sent that the worker may hold back. Does nothing for a worker that does not tell what
        it has begun.
        """

    def cancel(self, call_id: int) -> None:
        """Ask for a call to be interrupted; a reply for it still comes unless the worker ends."""

    def ping(self, token: int) -> None:
        """Ask for a sign of life, answered while an operation runs."""

    def flow(self, *, paused: bool) -> None:
        """Stop or go on receiving: back-pressure for a stream nobody reads, of a worker that runs one call at once."""

    def hold(self, call_id: int, *, held: bool) -> None:
        """Have a stream stand still, or go on, beside the other calls of its worker, which runs several at once.
        What it has sent already still comes.
        """

    async def stop(self, grace: float, kill_grace: float) -> None:
        """End the worker: ask, then SIGTERM after *grace* seconds, then SIGKILL after *kill_grace* more.

        Returns when it is gone. Cancellation leaves it being stopped; call `kill` then.
        """

    def kill(self) -> None:
        """End the worker and whatever it started, now. `gone` follows."""

    def abandon(self) -> None:
        """End the worker now and do not return before it is gone (milliseconds): for when the event loop is going."""
