"""The messages of a worker: handles or queues what the pool sends, and sends or holds back what the worker sends."""

from __future__ import annotations

import collections
import sys
import threading

from .channel import ParentGone
from .codec import LARGE
from .exception_text import describe_exception
from .memory_usage import expect_large, resident

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Deque, List, Optional, Sequence, Tuple

    from .codec import Buffer
    from .handshake import Connection
    from .payloads import Body

CALL_LENGTH = 6  # elements of the message ``call`` without options


class Messenger:
    """A worker's connection to the pool. A call is only a message here; the subclass `Worker` runs it."""

    def __init__(self, connection: Connection) -> None:
        self.channel, self.codec = connection.channel, connection.codec
        self.payloads, self.shared = connection.payloads, connection.shared
        self.main_thread = threading.get_ident()
        self.received = 0  # number of calls
        self.backlog: Deque[Tuple[int, List[Any]]] = collections.deque()  # number of the call, and its message
        self.call_id: Optional[int] = None  # the call under way
        self.interruptible = False  # the target's code is running
        self.urgent = False  # SIGURG came while the worker was not interruptible

    # implemented by what runs the calls

    def call(self, number: int, message: List[Any]) -> None:
        """Run the operation of the call in *message*, and answer it. *number* counts the calls of this worker."""
        raise NotImplementedError

    def cancel(self, call_id: int) -> None:
        """Interrupt the call. Raises OperationCancelled if that must be raised in the target's code."""
        raise NotImplementedError

    def describe_stacks(self) -> List[Any]:
        """Return what the threads and tasks of this process are doing."""
        raise NotImplementedError

    def running_call(self) -> Optional[int]:
        """Return the id of the call under way, or None."""
        return self.call_id

    # sending

    def send(self, message: Any) -> None:
        self.send_encoded(self.codec.encode(message))

    def send_encoded(self, body: Body) -> None:
        """Send an encoded message through the channel, or lend it in the shared memory."""
        if type(body) is bytes and len(body) < LARGE:
            self.transmit(body)
            return
        self.channel.unneeded = 0
        pieces = (body,) if isinstance(body, bytes) else body
        size = sum(map(len, pieces))
        shared = self.shared
        lent = None if shared is None else shared.lend(pieces, size)
        if lent is None and shared is not None and shared.lent_count:
            self.receive_pending()  # the parent may have returned some
            lent = shared.lend(pieces, size)
        if lent is not None:
            self.transmit(self.codec.encode(lent))
        else:
            self.transmit_large(pieces, size)

    def transmit(self, body: bytes) -> None:
        if self.channel.held and self.channel.hold(body):
            self.channel.flush()
        else:
            self.channel.send(body)

    def transmit_large(self, pieces: Sequence[Buffer], size: int) -> None:
        self.channel.send_pieces(pieces, size)

    def failure(self, call_id: int, kind: str, error: BaseException, times: List[Any]) -> bytes:
        texts = describe_exception(error)
        body = self.codec.encode(["error", call_id, kind, *texts, times])
        if len(body) > self.channel.limit:  # cut the texts; a character takes 12 bytes at most
            room = self.channel.limit // 48
            body = self.codec.encode(["error", call_id, kind, *(text[:room] for text in texts), times])
        return body

    # receiving

    def decode(self, body: Buffer) -> Any:
        """Return the decoded message. A value in it that cannot be decoded becomes an `Undecodable`."""
        shared = self.shared
        if shared is not None:
            shared.counters[2] = self.received + 1  # if decoding it ends this process, the parent sees which call
        try:
            return self.codec.decode(body)
        except Exception:
            message = self.codec.parts(memoryview(body))
            if message[0] == "call" and len(message) < CALL_LENGTH:  # it ends with an `Undecodable`
                message += [False, None][len(message) - CALL_LENGTH :]
            return message

    def done_reading(self) -> None:
        """Note that the message decoded last does not begin a call now."""
        if self.shared is not None:
            self.shared.counters[2] = 0

    def serve(self) -> None:
        """Handle messages until the parent sends ``stop`` or is gone. Then raises ParentGone."""
        backlog, frames, receive, decode = self.backlog, self.channel.frames, self.channel.receive, self.decode
        while True:
            if backlog:
                number, message = backlog.popleft()
            else:
                number, message = 0, decode(frames.popleft() if frames else receive())
            if message[0] == "call":
                if not number:
                    self.received = number = self.received + 1
                self.call(number, message)
            else:
                self.done_reading()
                self.handle_control(message)

    def handle_control(self, message: List[Any]) -> None:
        kind = message[0]
        if kind == "ping":
            self.send(["pong", message[1], self.running_call(), resident()])
        elif kind == "cancel":
            self.cancel(message[1])
        elif kind == "recall":
            for call_id in message[1]:
                if self.withdraw(call_id):
                    self.send(["recalled", call_id])
        elif kind == "lent":
            self.enqueue(self.borrow(*message[1:]))
        elif kind == "returned":
            if self.shared is not None:
                self.shared.mark_returned()
        elif kind == "stop":
            self.stop(message)
        elif kind == "stack":
            self.send(["stack", message[1], self.describe_stacks()])
        else:
            sys.exit("pool_monitor: unknown message %r" % (kind,))

    def borrow(self, length: int, offset: int = 0) -> Any:
        """Return the decoded message that the parent lends, and return its memory."""
        assert self.shared is not None
        self.channel.unneeded = 0
        expect_large(length, 4)
        message = self.decode(self.shared.borrow(length, offset))
        self.done_reading()
        self.send_returned(self.codec.encode(["returned"]))
        return message

    def send_returned(self, body: bytes) -> None:
        if not self.channel.hold(body):  # it is sent with the next answer, if that comes soon
            self.transmit(body)

    def enqueue(self, message: List[Any]) -> None:
        """Append a call to the backlog."""
        self.received += 1
        self.backlog.append((self.received, message))

    def withdraw(self, call_id: int) -> bool:
        """Remove a call from the backlog. Return whether it was there."""
        for entry in self.backlog:
            if entry[0] and entry[1][1] == call_id:
                self.backlog.remove(entry)
                return True
        return False

    def stop(self, message: List[Any]) -> None:
        if self.call_id is not None:
            self.backlog.append((0, message))
        else:
            self.channel.flush_all()
            raise ParentGone

    # while the target's code runs

    def on_urgent(self, _signal: int, _frame: Any) -> None:
        self.urgent = True
        if self.interruptible:
            self.read_urgent()

    def read_urgent(self) -> None:
        """Handle what has arrived while an operation runs. Raises OperationCancelled if it is to be interrupted."""
        while self.urgent:  # again if another signal came meanwhile
            self.urgent = False
            self.interruptible, before = False, self.interruptible
            try:
                self.channel.flush()
                self.receive_pending()
                self.channel.flush()
            finally:
                self.interruptible = before

    def receive_pending(self) -> None:
        channel, decode = self.channel, self.decode
        body = channel.receive_now()
        while body is not None:
            message = decode(body)
            self.done_reading()
            if message[0] == "call":
                self.enqueue(message)
            else:
                self.handle_control(message)
            body = channel.receive_now()

    def uninterrupted(self, action: Callable[[], None]) -> None:
        """Run *action*, which uses the channel, from within the target's code. Signals wait until it is done."""
        if threading.get_ident() != self.main_thread or not self.interruptible:
            action()
            return
        self.interruptible = False
        try:
            action()
        finally:
            self.interruptible = True
        if self.urgent:
            self.read_urgent()
