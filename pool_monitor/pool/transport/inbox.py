"""Takes the messages of a worker that is ready: checks each, finds its call, and reports it to the sink. No I/O."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.child.codec import Codec, Undecodable
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.interface import CallTimes, Failure, Reply, Sink

_FIVE = 0x95  # first byte of an array of five in msgpack: ``reply`` or ``end``
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


class Inbox:
    """The calls that one worker has not answered, and the answers it sends. A call stays here from its hand-over until
    its answer, so that a worker can neither answer twice nor answer a call of another worker.
    """

    def __init__(self, sink: Sink, codec: Codec, session_data_limit: int) -> None:
        self.use_codec(codec)
        self.begun = 0  # ordinal of the last call begun, as far as its answers show
        self.counters: memoryview | None = None  # those in the shared memory; the first is that ordinal
        self._sink = sink
        self._session_data_limit = session_data_limit
        self.count = 0  # calls handed over
        self.open: dict[int, int] = {}  # ordinals of the unanswered calls, in the order of hand-over
        self.streams: set[int] = set()  # the open calls that are streams
        self._recalled: set[int] = set()  # the open calls that the worker was asked to give back
        self._size = 0  # of the message decoded last, in bytes

    def use_codec(self, codec: Codec) -> None:
        """Decode all further messages with *codec*."""
        self.codec = codec
        self.plain = codec.name != "pickle"  # values are not encoded apart from their message
        self._typed = codec.name == "msgpack"  # replies can be decoded straight into `Reply`

    def note_call(self, call_id: int, stream: bool) -> None:
        """Note that the worker was handed this call."""
        self.count = self.open[call_id] = self.count + 1
        if stream:
            self.streams.add(call_id)

    def recall(self, call_ids: Iterable[int]) -> list[int]:
        """Return those of these open calls that the worker has not been asked to give back, and note that it is now."""
        asked = [call_id for call_id in call_ids if call_id in self.open and call_id not in self._recalled]
        self._recalled.update(asked)
        return asked

    def drop_running(self) -> None:
        """Accept no answer to the oldest open call, which is the one under way."""
        if self.open:
            self._answered(next(iter(self.open)))

    def decode(self, body: memoryview, size: int | None = None) -> Any:
        """Return the decoded message. *size* is its length in bytes where that is not the length of *body*. A value
        inside it that cannot be decoded becomes an `Undecodable`. Raises FrameError.
        """
        self._size = len(body) if size is None else size
        try:
            return self.codec.decode(body)
        except BaseException as error:  # noqa: BLE001 - a pickle runs the code of its classes
            return self._in_parts(body, error)

    def _in_parts(self, body: memoryview, error: BaseException) -> Any:
        messages.reraise_interrupt(error)
        try:
            return self.codec.parts(body)
        except (ValueError, IndexError):  # not even its kind and its call can be read
            raise FrameError(f"a frame that is not valid {self.codec.name}: {messages.error_message(error)}") from error

    def receive(self, body: memoryview) -> Any:
        """Decode a message and `take` it. Return the message if it is left to the caller, else None. Raises
        FrameError.
        """
        message = self.decode(body)
        return None if self.take(message) else message

    def replies(self, bodies: Sequence[memoryview], at: int) -> list[Reply]:
        """Return the plain replies at the beginning of *bodies*, from index *at*, up to the first other message.

        Nearly all messages are plain replies, and this way takes a quarter of the work. A reply that is invalid in any
        way ends the list: `receive` gets it and raises the error.
        """
        found: list[Reply] = []
        if not self._typed:
            return found
        begun = sys.maxsize if self.counters is None else self.counters[0]
        unanswered, streams = self.open, self.streams
        for body in islice(bodies, at, None) if at else bodies:
            if body[0] != _FIVE:
                break
            try:
                reply = _decode_reply(body)
            except Exception:  # noqa: BLE001 - `receive` raises it again
                break
            call_id = reply.call_id
            nth = unanswered.get(call_id)
            if nth is None or nth > begun or call_id in streams:
                break
            if nth > self.begun:
                self.begun = nth
            del unanswered[call_id]
            found.append(reply)
        if self._recalled:
            self._recalled.difference_update([reply.call_id for reply in found])
        return found

    def take(self, message: Any) -> bool:
        """Check the message decoded last, and report it to the sink. Return False for a message about lending or
        stacks, which is left to the caller. Raises FrameError for a message that the protocol does not allow here.
        """
        match message:
            case ["reply" | "end" as kind, call_id, packed, data, times]:
                self._check_open(call_id, kind == "end")
                self._reply(call_id, packed, data, messages.parse_times(times))
            case ["item", call_id, packed]:
                self._check_open(call_id, stream=True)
                self._item(call_id, packed)
            case ["error", call_id, kind, name, text, trace, times]:
                failure = messages.parse_failure(kind, name, text, trace)
                self._check_open(call_id, begun=failure.kind != "cancelled")  # a call can be cancelled before it begins
                self._failed(call_id, failure, messages.parse_times(times))
            case ["pong", token, call_id, rss] if messages.is_pong(token, call_id, rss):
                self._sink.ponged(token, call_id, rss)
            case ["reply" | "end" | "error", call_id, *_, Undecodable() as rest]:
                self._check_open(call_id)
                self._failed(call_id, _not_rebuilt("the answer", rest.error), None)
            case ["recalled", call_id]:
                self._check_open(call_id, begun=False)
                if call_id not in self._recalled:
                    raise FrameError(f"call {call_id} was returned without a recall")
                self._answered(call_id)
                self._sink.recalled(call_id)
            case ["lent", _] | ["lent", _, _] | ["returned"] | ["stack", _, _]:
                return False
            case ["event", name, numbers, about]:
                self._sink.emitted(*messages.parse_event(name, numbers, about))
            case ["log", level, text, fields]:
                self._sink.logged(*messages.parse_log_line(level, text, fields))
            case ["dropped", count] if messages.is_id(count):
                self._sink.dropped(count)
            case other:
                raise FrameError(f"unknown message {messages.short_repr(other)}")
        return True

    def salvage(self, bodies: Iterable[memoryview]) -> None:
        """Take only the answers to open calls among *bodies*, from a worker that violated the protocol or has ended."""
        for body in bodies:
            with contextlib.suppress(Exception):  # an invalid answer; the next may be valid
                match self.decode(body):
                    case ["reply" | "end" | "error", call_id, *_] as message if call_id in self.open:
                        self.take(message)

    def _check_open(self, call_id: Any, stream: bool | None = None, *, begun: bool = True) -> None:
        """Raise FrameError unless the call is open, and unless it is a stream or not as *stream* says (None: either).

        *begun*: the answer implies that the call has begun. Then the worker must have reported that before: otherwise
        its calls could be begun a second time on another worker.
        """
        nth = self.open.get(call_id) if type(call_id) is int else None
        if nth is None:
            raise FrameError(f"an answer to call {messages.short_repr(call_id)}, which is not open")
        is_stream = call_id in self.streams
        if stream is not None and stream is not is_stream:
            what = f"call {call_id} is {'a' if is_stream else 'not a'} stream"
            raise FrameError(f"{what}, so this kind of answer is invalid")
        if begun and nth > self.begun:
            self._note_begun(call_id, nth)

    def _note_begun(self, call_id: int, nth: int) -> None:
        self.begun = nth  # also if the worker's counter says less
        if self.counters is not None and nth > self.counters[0]:
            raise FrameError(f"an answer to call {call_id}, which has not begun")

    def _answered(self, call_id: int) -> None:
        del self.open[call_id]
        if self.streams:
            self.streams.discard(call_id)
        if self._recalled:
            self._recalled.discard(call_id)

    def _failed(self, call_id: int, failure: Failure, times: CallTimes | None) -> None:
        self._answered(call_id)
        self._sink.failed(call_id, failure, times)

    def _reply(self, call_id: int, packed: Any, data: Any, times: CallTimes) -> None:
        state: Any = None
        what = "the result"
        try:
            result = self._rebuilt(packed)
            if data is not None:
                what = "session.data"
                state = self._rebuilt(data)
        except BaseException as error:  # noqa: BLE001 - a pickle runs any code; only this call fails
            messages.reraise_interrupt(error)
            self._failed(call_id, _not_rebuilt(what, error), times)
            return
        if data is not None:
            size = self._session_size(state, data)
            if size > self._session_data_limit:
                text = f"session.data takes {size} bytes, over the limit of {self._session_data_limit}"
                self._failed(call_id, Failure("payload", "PayloadError", text, ""), times)
                return
        self._answered(call_id)
        self._sink.replied(call_id, result, state, times)

    def _session_size(self, state: Any, data: Any) -> int:
        """Return an upper bound for the bytes of a session's data. Raises FrameError for data that is no dict."""
        if type(state) is not dict:
            raise FrameError(f"session data that is not a dict: {messages.short_repr(state)}")
        if self._size <= self._session_data_limit:
            return self._size  # of the whole message: no need to encode the data again
        return len(data) if type(data) is bytes else len(self.codec.encode(state))

    def _item(self, call_id: int, packed: Any) -> None:
        try:
            value = self._rebuilt(packed)
        except BaseException as error:  # noqa: BLE001 - a pickle runs any code
            messages.reraise_interrupt(error)
            self._sink.undecodable_item(call_id, _not_rebuilt("an item", error))
        else:
            self._sink.item(call_id, value, self._size)

    def _rebuilt(self, packed: Any) -> Any:
        """Return the decoded value inside a message. Raises what decoding it raises."""
        if type(packed) is Undecodable:
            raise packed.error
        return self.codec.unpack(packed)


def _not_rebuilt(what: str, error: BaseException) -> Failure:
    return messages.parse_failure(
        "payload", type(error).__name__, f"{what} cannot be rebuilt: {messages.error_message(error)}", ""
    )
