"""The messages of a worker at work: each is checked, tied to the call it answers, and passed on. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.base import CallTimes, Failure, Sink
from pool_monitor.pool.transport.child.codec import Codec, Unreadable
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.messages import times as times_of


class Inbox:
    """What one worker may still answer, and what it answers. Knows every call it was handed until that is answered,
    so that an answer can neither come twice nor to a call of another worker.
    """

    def __init__(self, sink: Sink, codec: Codec, session_data_limit: int) -> None:
        self.use(codec)
        self.begun = 0  # ordinal of the last call begun, as far as an answer has shown it
        self.counters: memoryview | None = None  # of the memory it shares, the first being what it tells of that
        self._sink = sink
        self._session_data_limit = session_data_limit
        self.count = 0  # calls it was handed
        self.open: dict[int, int] = {}  # calls handed over and not answered, in this order, with their ordinals
        self.streams: set[int] = set()  # of those, the ones that are streams
        self._recalled: set[int] = set()  # of those, the ones asked back
        self._size = 0  # bytes of the message decoded last

    def use(self, codec: Codec) -> None:
        """Decode with *codec* from now on."""
        self.codec, self._decode = codec, codec.decode
        self._plain = codec.name != "pickle"  # values in a message are as they are

    def handed(self, call_id: int, stream: bool) -> None:
        """The worker was handed this call."""
        self.count = self.open[call_id] = self.count + 1
        if stream:
            self.streams.add(call_id)

    def recall(self, call_ids: Iterable[int]) -> list[int]:
        """The worker is asked to give these calls back: those of them that it was not asked for before."""
        asked = [call_id for call_id in call_ids if call_id in self.open and call_id not in self._recalled]
        self._recalled.update(asked)
        return asked

    def forget_first(self) -> None:
        """Take no answer to the call that the worker is on."""
        if self.open:
            self._answered(next(iter(self.open)))

    def decode(self, body: memoryview) -> Any:
        """A message. A value in it that cannot be decoded becomes an `Unreadable`. Raises FrameError."""
        self._size = len(body)
        try:
            return self.codec.decode(body)
        except BaseException as error:  # noqa: BLE001 - a pickle runs the code of its classes
            return self._in_parts(body, error)

    def _in_parts(self, body: memoryview, error: BaseException) -> Any:
        messages.pass_on(error)
        try:
            return self.codec.parts(body)
        except (ValueError, IndexError):  # what follows cannot be trusted
            raise FrameError(f"a frame that is no {self.codec.name}: {messages.text_of(error)}") from error

    def receive(self, body: memoryview) -> Any:
        """Decode a message and `take` it. Returns it when it is about lending memory, else None. Raises FrameError.

        A short way for what nearly all messages are, a reply in order; whatever is odd about one takes the long way.
        """
        try:
            message = self._decode(body)
        except BaseException as error:  # noqa: BLE001 - as in `decode`
            message = self._in_parts(body, error)
        if type(message) is list and len(message) == 5 and message[0] == "reply" and self._plain:
            _, call_id, packed, data, times = message
            nth = self.open.get(call_id) if type(call_id) is int and data is None else None
            if nth is not None and call_id not in self.streams and type(packed) is not Unreadable:
                taken = times_of(times)
                if nth > self.begun:
                    self._note_begun(call_id, nth)
                del self.open[call_id]
                if self._recalled:
                    self._recalled.discard(call_id)
                self._sink.replied(call_id, packed, None, taken)
                return None
        self._size = len(body)
        return None if self.take(message) else message

    def take(self, message: Any) -> bool:
        """Check the message decoded last and pass it on. False for one that is about lending memory. Raises FrameError
        for one that the protocol does not know here.
        """
        match message:
            case ["reply" | "end" as kind, call_id, packed, data, times]:
                self._check_open(call_id, kind == "end")
                self._reply(call_id, packed, data, messages.times(times))
            case ["item", call_id, packed]:
                self._check_open(call_id, stream=True)
                self._item(call_id, packed)
            case ["error", call_id, kind, name, text, trace, times]:
                failure = messages.failure(kind, name, text, trace)
                self._check_open(call_id, begun=failure.kind != "cancelled")  # which it may be before it has begun
                self._failed(call_id, failure, messages.times(times))
            case ["pong", token, call_id, rss] if messages.is_pong(token, call_id, rss):
                self._sink.ponged(token, call_id, rss)
            case ["reply" | "end" | "error", call_id, *_, Unreadable() as rest]:
                self._check_open(call_id)
                self._failed(call_id, _not_rebuilt("the answer", rest.error), None)
            case ["recalled", call_id]:
                self._check_open(call_id, begun=False)
                if call_id not in self._recalled:
                    raise FrameError(f"call {call_id} was given back without being asked for")
                self._answered(call_id)
                self._sink.recalled(call_id)
            case ["lent", _] | ["returned"]:
                return False
            case ["event", name, numbers, about]:
                self._sink.emitted(*messages.event(name, numbers, about))
            case ["log", level, text, fields]:
                self._sink.logged(*messages.log_line(level, text, fields))
            case ["dropped", count] if messages.is_id(count):
                self._sink.dropped(count)
            case other:
                raise FrameError(f"unknown message {messages.shown(other)}")
        return True

    def salvage(self, bodies: Iterable[memoryview]) -> None:
        """Take the answers to open calls among these, from a worker of which nothing else is believed any more."""
        for body in bodies:
            with contextlib.suppress(Exception):  # it is not the answer it looks like; the next one may be
                match self.decode(body):
                    case ["reply" | "end" | "error", call_id, *_] as message if call_id in self.open:
                        self.take(message)

    def _check_open(self, call_id: Any, stream: bool | None = None, *, begun: bool = True) -> None:
        """Raise FrameError unless the call is open, and is a stream or is none where *stream* is given. An answer that
        only a call can have which was *begun* needs the worker to have told that before: otherwise its calls could be
        begun a second time elsewhere.
        """
        nth = self.open.get(call_id) if type(call_id) is int else None
        if nth is None:
            raise FrameError(f"an answer to call {messages.shown(call_id)}, which is not open")
        is_stream = call_id in self.streams
        if stream is not None and stream is not is_stream:
            raise FrameError(f"call {call_id} is {'a' if is_stream else 'no'} stream, and is not answered like that")
        if begun and nth > self.begun:
            self._note_begun(call_id, nth)

    def _note_begun(self, call_id: int, nth: int) -> None:
        self.begun = nth  # whatever it tells
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
        except BaseException as error:  # noqa: BLE001 - as above; only this call fails
            messages.pass_on(error)
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
        """Bytes that a session's data takes, or more. Raises FrameError for what is no data of a session."""
        if type(state) is not dict:
            raise FrameError(f"session data that is no dict: {messages.shown(state)}")
        if self._size <= self._session_data_limit:
            return self._size  # of the whole message
        return len(data) if type(data) is bytes else len(self.codec.encode(state))

    def _item(self, call_id: int, packed: Any) -> None:
        try:
            value = self._rebuilt(packed)
        except BaseException as error:  # noqa: BLE001 - as above
            messages.pass_on(error)
            self._sink.unreadable(call_id, _not_rebuilt("an item", error))
        else:
            self._sink.item(call_id, value, self._size)

    def _rebuilt(self, packed: Any) -> Any:
        """A value inside a message. Raises what decoding it raises."""
        if type(packed) is Unreadable:
            raise packed.error
        return self.codec.unpack(packed)


def _not_rebuilt(what: str, error: BaseException) -> Failure:
    return messages.failure("payload", type(error).__name__, f"{what} cannot be rebuilt: {messages.text_of(error)}", "")
