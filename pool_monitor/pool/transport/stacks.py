"""Takes the stacks of one worker process: what its threads, its tasks and its calls are doing now.

Theory of operation
-------------------
The worker has registered ``faulthandler`` on a real-time signal, and says so in ``ready``. It writes into a file in the
worker's memory. When asked, we open that file through ``/proc``, empty it, send the signal, and read until the stack is
complete. So a stack costs no descriptor while nobody asks. Nothing in the worker has to run Python code for it. The
handler has SA_RESTART: reads, writes and locks go on by themselves. The kernel ends a sleep, ``select``, ``poll``
and what has a time limit with EINTR all the same. Python repeats them; C code of the target has to do that itself, as
it must for the SIGURG of a ping.

A real-time signal that nobody handles ends the process. So it is sent only if, at that moment, the descriptor in the
worker is still that file and the kernel says that the signal is handled. The worker closes the descriptor when its
target sets a handler of its own. C code of a target that does so is found out when signals arrive and nothing is
written: then no more are sent to this worker. The signal goes to the process descriptor, never to a pid. While one is
pending (the worker is stopped, or waits for a disk), no second one is sent.

The worker is also sent the message ``stack`` where the signal says too little: the main thread waits in an event loop,
several calls run at once, there are other threads, or there is no signal. A worker that does not read messages now, in
C code say, does not answer it in time; then the stack of the main thread is all there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor.pool.transport import stack_text
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.interface import StackAnswer
from pool_monitor.pool.transport.messages import is_id, short_repr
from pool_monitor.pool.transport.spawn import WatchedProcess
from pool_monitor.pool.transport.stack_text import Frame, Trace

_SIGNALS = range(34, 65)  # real-time signals that C libraries leave to programs
_LOOKS = (0.001, 0.001, 0.002, 0.004, 0.008)  # seconds between looks into the file; the last is repeated
_ANSWER = 0.25  # seconds that an answer to the message may take: a worker that reads messages takes a millisecond
_ANSWER_BUSY = 0.03  # the same while the signal has told that the main thread runs code of the target
_UNANSWERED = 8  # messages without an answer, after which no more are sent
_SENDS = 3  # signals for one stack: the kernel may give one to another thread, if SIGURG is pending for the main thread
_EMPTY_LOOKS = 5  # looks into the file after a signal, until an empty file means that it was not for us: 16 ms
_STATUS_MAX = 16 * 1024  # bytes of /proc/PID/status
_FIELDS = re.compile(rb"^(State|Threads|SigPnd|ShdPnd|SigBlk|SigCgt):\s*(\w+)", re.MULTILINE)


class StackOffer(NamedTuple):
    """What a worker can do, from its message ``ready``. It always answers the message ``stack``."""

    signal: int | None = None
    file: int = -1
    """The descriptor in the worker."""
    inode: int = 0


def parse_offer(found: Any) -> StackOffer | None:
    """Return what the third element of ``ready`` offers; None if it offers no stacks. Raises FrameError."""
    if type(found) is not dict:
        raise FrameError(f"invalid offer in ready: {short_repr(found)}")
    match found.get("stack"):
        case None:
            return None
        case {"signal": int(number), "file": int(fd), "inode": int(inode)} if (
            type(number) is int and number in _SIGNALS and 0 <= fd < 2**31 and 0 < inode < 2**63
        ):
            return StackOffer(number, fd, inode)
        case dict(nothing) if not nothing:
            return StackOffer()
    raise FrameError(f"invalid stacks in ready: {short_repr(found['stack'])}")


class WorkerStacks:
    """The stacks of one worker. *ask* sends the message ``stack`` with a token, interrupts the worker for it, and
    returns the timer that will do so again.

    One request at a time: requests that come meanwhile share its answer. Never raises.
    """

    def __init__(
        self, process: WatchedProcess, offer: StackOffer, several: bool, ask: Callable[[int], asyncio.TimerHandle]
    ) -> None:
        self._process, self._offer, self._several, self._ask = process, offer, several, ask
        self._loop = asyncio.get_running_loop()
        self._under_way: asyncio.Future[StackAnswer] | None = None
        self._taken_at = -math.inf  # when the last answer came; the loop's time
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0  # when the request under way must be answered; the loop's time
        self._fd: int | None = None  # of the file, while a signal is unanswered
        self._looks = 0  # into the file, since the last signal
        self._sent = 0  # signals for the request under way
        self._signal_taken = False  # by the target: signals arrive, and nothing is written
        self._main: list[Frame] | None = None  # of the main thread, from the signal
        self._why = ""  # why the signal told nothing, in words
        self._token = 0
        self._unanswered: set[int] = set()
        self._reminder: asyncio.TimerHandle | None = None  # interrupts the worker for the last message again

    def take(self, patience: float) -> asyncio.Future[StackAnswer]:
        """Take the stacks now, or share the request under way, with its patience. The future has the answer after at
        most *patience* seconds. It must not be cancelled.
        """
        if self._under_way is None:
            self._under_way = self._loop.create_future()
            self._until = self._loop.time() + patience
            self._main, self._looks, self._sent = None, 0, 0
            taking = self._under_way
            self._begin()  # may end it
            return taking
        return self._under_way

    def recent(self, seconds: float) -> bool:
        """Whether a stack was taken within the last *seconds*."""
        return self._loop.time() - self._taken_at <= seconds

    def answered(self, token: Any, found: Any) -> None:
        """Take an answer to the message ``stack``. Raises FrameError if it is invalid, or was not asked for."""
        if not is_id(token) or token not in self._unanswered:
            raise FrameError(f"stacks for token {short_repr(token)}, which were not asked for")
        traces = stack_text.parse_traces(found)
        self._unanswered.discard(token)
        if token == self._token and self._reminder is not None:
            self._reminder.cancel()  # it would interrupt the target for nothing
        if self._under_way is not None and self._fd is None and token == self._token:
            self._finish(traces)

    def close(self) -> None:
        """End the request under way: the process has ended."""
        if self._under_way is not None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits for the answer
                self._fail("the worker has ended")

    # -- the signal -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        status = _status(self._process.pid)
        state = status.get("State")
        if self._process.ended or state in (b"Z", b"X"):
            self._fail("the worker has ended")
        elif state in (b"T", b"t"):
            self._fail("the worker is stopped: by SIGSTOP, or by a debugger")
        else:
            self._why = self._signal(status)
            if not self._why:
                self._look_again()
            else:
                self._send_message()

    def _signal(self, status: dict[str, bytes]) -> str:
        """Send the signal. Return why not, in words; empty if it was sent."""
        number, fd, inode = self._offer
        if number is None or not status:
            return "its interpreter or system does not let it be asked by a signal"
        if self._signal_taken or not _has(status["SigCgt"], number) or _has(status["SigBlk"], number):
            return f"its target uses signal {number}: choose another stack_signal"
        path = f"/proc/{self._process.pid}/fd/{fd}"
        try:
            found = Path(path).stat()  # opens nothing: the descriptor may be anything by now
            if found.st_ino != inode or found.st_dev != _memory_device() or not stat.S_ISREG(found.st_mode):
                return "its target has closed the file for stacks, or uses the signal itself"
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            os.ftruncate(self._fd, 0)
            if not _is_pending(status, number):
                self._send_signal(number)
        except FileNotFoundError:
            return "its target has closed the file for stacks, or uses the signal itself"
        except OSError as error:
            self._close_file()
            return f"it cannot be asked by a signal: {error.strerror}"
        return ""

    def _send_signal(self, number: int) -> None:
        self._sent, self._looks = self._sent + 1, 0
        self._process.signal(number, group=False)

    def _look_again(self) -> None:
        pause = _LOOKS[min(self._looks, len(_LOOKS) - 1)]
        self._looks += 1
        self._timer = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        assert self._fd is not None
        try:
            dump = os.pread(self._fd, stack_text.DUMP_MAX, 0)
        except (OSError, MemoryError):
            dump = b""
        late = self._loop.time() >= self._until
        elsewhere = stack_text.is_of_another_thread(dump)
        if not stack_text.is_complete(dump) and not late:
            if elsewhere or (not dump and self._looks >= _EMPTY_LOOKS and self._has_arrived()):
                self._signal_again(elsewhere)
            else:
                self._look_again()
            return
        self._close_file()
        self._main = [] if elsewhere else stack_text.parse_dump(dump)
        if not self._main:
            self._fail("the worker did not answer in time: it is waiting in the kernel, or gets no processor time")
        elif late or not self._needs_message():
            self._finish([])
        else:
            self._send_message()

    def _has_arrived(self) -> bool:
        """Whether the worker was handed the signal. While a handler of it runs, another one stays pending."""
        number, status = self._offer.signal, _status(self._process.pid)
        assert number is not None
        return bool(status) and status["State"] in (b"R", b"S") and not _is_pending(status, number)

    def _signal_again(self, elsewhere: bool) -> None:
        """Send the signal again, because nothing of the main thread is in the file: a thread has got it (*elsewhere*: a
        thread of Python), or the target. After `_SENDS` of them, ask by message instead.
        """
        assert self._fd is not None
        number = self._offer.signal
        if self._sent < _SENDS and number is not None and _has(_status(self._process.pid).get("SigCgt", b"0"), number):
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            self._send_signal(number)
            self._look_again()
            return
        self._signal_taken = not elsewhere
        self._why = "another thread takes its signal" if elsewhere else f"its target uses signal {number}"
        self._close_file()
        self._send_message()

    def _needs_message(self) -> bool:
        """Whether the signal has told too little. A worker that has left a message unanswered is not asked another one,
        unless it waits for messages: C code that has threads would make every stack take long.
        """
        assert self._main is not None
        if stack_text.is_waiting(self._main):
            return True
        if self._unanswered:
            return False
        return self._several or _status(self._process.pid).get("Threads", b"1") != b"1"

    def _close_file(self) -> None:
        """Close the file, and return its memory to the system."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)

    # -- the message ----------------------------------------------------------------------------------------------

    def _send_message(self) -> None:
        busy = self._main is not None and not stack_text.is_waiting(self._main)
        left = min(self._until - self._loop.time(), _ANSWER_BUSY if busy else _ANSWER)
        if len(self._unanswered) >= _UNANSWERED or left <= 0:
            self._finish([])
            return
        self._token += 1
        self._unanswered.add(self._token)
        self._timer = self._loop.call_later(left, self._finish, [])
        self._reminder = self._ask(self._token)

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self, told: list[Trace]) -> None:
        """End the request with what the signal said and what the worker *told*."""
        traces = told
        if self._main is not None:
            traces = [Trace("main", "", self._main), *(trace for trace in told if trace.kind != "main")]
            if stack_text.is_waiting(self._main) and any(trace.kind in ("task", "call") for trace in told):
                traces = traces[1:]  # the main thread only runs the event loop
        if traces:
            self._resolve(StackAnswer(stack_text.as_text(traces)))
        else:
            self._fail(f"{self._why}, and it does not read messages now")

    def _fail(self, why: str) -> None:
        self._resolve(StackAnswer(None, why))

    def _resolve(self, answer: StackAnswer) -> None:
        self._close_file()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._taken_at = self._loop.time()
        under_way, self._under_way = self._under_way, None
        if under_way is not None and not under_way.done():
            under_way.set_result(answer)


def _status(pid: int) -> dict[str, bytes]:
    """Return the fields of ``/proc/PID/status`` that matter here, all of them; empty if they cannot be read."""
    try:
        with Path(f"/proc/{pid}/status").open("rb", buffering=0) as file:
            found = {name.decode(): value for name, value in _FIELDS.findall(file.read(_STATUS_MAX))}
    except OSError:
        return {}
    return found if len(found) == 6 else {}


def _is_pending(status: dict[str, bytes], number: int) -> bool:
    return _has(status["SigPnd"], number) or _has(status["ShdPnd"], number)


def _has(mask: bytes, number: int) -> bool:
    return bool(int(mask, 16) >> (number - 1) & 1)


_memory: int | None = None


def _memory_device() -> int:
    """Return the device number of files in memory. No file that has a name is on that device. Raises OSError."""
    global _memory
    if _memory is None:
        fd = os.memfd_create("pool_monitor")
        try:
            _memory = os.fstat(fd).st_dev
        finally:
            os.close(fd)
    return _memory
