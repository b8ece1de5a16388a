"""The worker's side of the wire: frames to and from the parent."""

from __future__ import annotations

import _thread
import collections
import errno
import select
import sys

from .framing import LENGTH, FrameError, FrameReader, frame

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Deque, Sequence

    from .codec import Buffer
    from .link import PipeLink
    from .shared_memory import SharedMemory

_SPARE = 64 * 1024  # bytes that may wait for room in the channel; what may be dropped is dropped beyond them
_IDLE_MS = 1000  # idle time after which the memory for large messages is returned to the system
_UNNEEDED = 64  # waits without a large message after which it is returned too


class ParentGone(Exception):
    """The parent closed the channel or sent ``stop``."""


class Channel:
    """Frames over a link to the parent. One thread receives; any thread may send.

    Answers may be held back while more calls wait, to be sent together. They lie in the shared outbox, where the parent
    finds them if this process ends first.
    """

    def __init__(self, link: PipeLink) -> None:
        self.link = link
        self.reader = FrameReader(1 << 20)  # the limit until the handshake
        self.frames: Deque[memoryview] = collections.deque()  # received and not taken yet
        self.shared: SharedMemory | None = None
        self.held = 0  # bytes in the outbox
        self.unneeded = 0  # waits for a message since the last large one
        self._unsent: Deque[memoryview] = collections.deque()  # waits for room; part of the first may have been sent
        self.waiting = 0  # bytes in ``_unsent``
        self._counting = _thread.RLock()  # guards the two above; never held while blocking
        self._sending = _thread.allocate_lock()
        self.copied = False

    def become_copy(self) -> None:
        """Drop what was received and send nothing any more: this process is a copy that the target has forked off."""
        self.link.close()
        self.frames.clear()
        self._unsent.clear()
        self.shared = None
        self.held = self.waiting = 0
        self.copied = True

    def flush_all(self) -> None:
        """Send the answers that are held back and what waits for room. The link stays open: the parent takes its
        closing for the end of this process.
        """
        self.flush()
        self.send_waiting()

    def _meaning_of(self, error: OSError) -> BaseException:
        """Return what to raise for *error*: the target has closed the link, or else the parent has gone."""
        if error.errno in (errno.EBADF, errno.ENOTSOCK) and not self.copied:
            return SystemExit("pool_monitor: the target has closed the pool's channel")
        return ParentGone()

    # receiving

    @property
    def limit(self) -> int:
        return self.reader.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self.reader.limit = limit

    def receive(self) -> memoryview:
        """Return the body of the next frame. It is valid until the next call."""
        while not self.frames:
            if self.held:
                self.flush()
            if self._unsent and not self.send_waiting():
                self.link.wait(select.POLLIN | select.POLLOUT, None)
                self.send_waiting()
                self._read(False)
                continue
            if self._has_oversized():
                self.unneeded += 1
                if self.unneeded > _UNNEEDED or not self.link.wait(select.POLLIN, _IDLE_MS):
                    self.trim()
            self._read(True)
        return self.frames.popleft()

    def receive_now(self) -> memoryview | None:
        """As `receive`, but return None when no whole frame has arrived yet."""
        while not self.frames:
            if not self._read(False):
                return None
        return self.frames.popleft()

    def _read(self, wait: bool) -> bool:
        try:
            count = self.link.read(self.reader.space(), wait)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._meaning_of(error) from None
        if not count:
            raise ParentGone
        try:
            self.frames.extend(self.reader.received(count))
        except FrameError as error:
            sys.exit("pool_monitor: %s" % error)
        return True

    def _has_oversized(self) -> bool:
        return self.reader.oversized or (self.shared is not None and self.shared.touched_bytes > 0)

    def trim(self) -> None:
        """Return the memory for large messages to the system."""
        self.unneeded = 0
        self.reader.trim()
        if self.shared is not None:
            self.shared.trim()

    # sending

    def send(self, body: bytes) -> None:
        """Send a frame, after everything that waits. Blocks until there is room."""
        self._send_all((frame(body),))

    def send_pieces(self, pieces: Sequence[Buffer], size: int) -> None:
        """As `send`, for a large body of *size* bytes. Its pieces are not copied into one."""
        self._send_all((LENGTH.pack(size), *pieces))

    def hold(self, body: bytes) -> bool:
        """Hold an answer back in the outbox. False if it does not fit or there is no outbox."""
        shared = self.shared
        if shared is None:
            return False
        data = LENGTH.pack(len(body)) + body
        end = self.held + len(data)
        if end > len(shared.outbox):
            return False
        shared.outbox[self.held : end] = data
        shared.counters[1] = self.held = end
        return True

    def flush(self) -> None:
        """Send the answers that are held back."""
        if self.held:
            self._send_all(())

    def _send_all(self, pieces: Sequence[Buffer]) -> None:
        with self._sending:
            try:
                while self._unsent:
                    self._finish_unsent(self._unsent[0])
                if self.held:
                    assert self.shared is not None
                    self._write(self.shared.outbox[: self.held])
                    self.shared.counters[1] = self.held = 0
                for piece in pieces:
                    self._write(piece)
            except OSError as error:
                raise self._meaning_of(error) from None
        if self._unsent:
            self.send_waiting()

    def _write(self, data: Buffer) -> None:
        """Send all of *data*. Blocks until there is room."""
        sent = 0
        while sent < len(data):
            try:
                sent += self.link.write(memoryview(data)[sent:] if sent else data)
            except BlockingIOError:
                self.link.wait(select.POLLOUT, None)

    def _finish_unsent(self, data: memoryview) -> None:
        self._write(data)
        with self._counting:
            self._unsent.popleft()
            self.waiting -= len(data)

    # sending without ever blocking, from any thread

    def offer(self, body: bytes, *, must: bool = False) -> bool:
        """Send a frame as soon as there is room. False if too much waits already; *must*: send it all the same."""
        data = memoryview(frame(body))
        with self._counting:
            if self.waiting + len(data) > _SPARE and not must:
                return False
            self._unsent.append(data)
            self.waiting += len(data)
        self.send_waiting()
        return True

    def send_waiting(self) -> bool:
        """Send what waits, as far as there is room. Return whether nothing waits any more."""
        while self._unsent and self._sending.acquire(False):
            try:
                if not self._send_waiting():
                    break
            finally:
                self._sending.release()
        return not self._unsent

    def _send_waiting(self) -> bool:
        while self._unsent:
            data = self._unsent[0]
            try:
                count = self.link.write(data)
            except BlockingIOError:
                return False
            except OSError:  # the parent is gone, which the reader will notice
                count = len(data)
            with self._counting:
                if count == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = data[count:]
                self.waiting -= count
        return True
