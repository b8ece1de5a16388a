"""A pool's zygote, seen from the service: the process that its workers are forked off (child/zygote.py is its inside).

A worker is the zygote's child, so only the zygote can reap it; that it has ended we see by ourselves, and then kill
what is left of its group and ask for the reaping. Its life is tied to ours, not to the zygote's: when that dies, its
workers go on, and the pool begins another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from pool_monitor.errors import StartError
from pool_monitor.pool.transport.output_lines import ProcessOutput
from pool_monitor.pool.transport.spawn import (
    OutputPipes,
    WatchedProcess,
    ended_early,
    exit_text,
    output_pipes,
    socketpair,
    spawn,
)
from pool_monitor.pool.worker_output import OutputLog

_PACKET = 120 * 1024  # no answer is longer, and memory below 128 KiB is cheap
_AT_ONCE = 16  # forks asked for and not answered: what the socket holds in any case
_REAPED_AT_ONCE = 64
_AGAIN = 0.1  # seconds after which reading is tried again that there was no memory for
_ANSWER_TIMEOUT = 10.0  # seconds without an answer after which a zygote is of no use; it takes milliseconds
_REAP_TIMEOUT = 1.0  # seconds for workers whose start was cancelled to end before the zygote does
_BAD_ANSWER = (ValueError, KeyError, TypeError, OSError, MemoryError)  # from an answer that is none of ours, or is lost


PYTHON_NEEDED = "python= needs a Python interpreter of version 3.8 or later"


class ZygoteGoneError(StartError):
    """The zygote ended when it had been asked for a worker. There may be one: the descriptors it was to have must be
    closed, not used again.
    """


class UnsafeForkError(Exception):
    """A preloaded module has started a thread, so that forking would not be safe. No worker was forked."""


class ForkedProcess(WatchedProcess):
    """A worker forked off a zygote. Raises OSError where it cannot be watched."""

    def __init__(self, zygote: Zygote, pid: int, outputs: OutputPipes) -> None:
        self._zygote = zygote
        super().__init__(pid, outputs)

    def _reap(self) -> None:
        self._zygote._reap(self)

    def _reap_now(self, timeout: float) -> None:
        self._zygote._reap_now(self, timeout)

    def _orphan_reaped(self) -> None:
        """The zygote is gone: whoever it was handed to has reaped it, and can be us when we are PID 1."""
        code = None
        if self._pidfd is not None:
            with contextlib.suppress(OSError):
                done = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
                if done is not None:
                    code = done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
        self._reaped(code)


class Zygote:
    """Started where it is made, on a running event loop. Raises OSError or ValueError when it cannot be run."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None, *,
        path: Sequence[str], codecs: Sequence[str], preload: Sequence[str], log_output: bool = True,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._program = command[0]
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())  # seen, if by nobody else
        self.usable = True  # may be asked for workers
        self._forks: dict[int, tuple[asyncio.Future[ForkedProcess], OutputPipes]] = {}
        self._fork_permits = asyncio.Semaphore(_AT_ONCE)
        self._ids = itertools.count(1)
        self._workers: set[ForkedProcess] = set()  # and not reaped
        self._dead: dict[int, ForkedProcess | None] = {}  # those that have ended, until they are reaped
        self._reaping = False  # it has been asked to, and has not answered
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._log = OutputLog("preload", {}) if log_output else None
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as theirs:
            self._control, control = socketpair(socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            stack.enter_context(self._control)
            theirs.enter_context(control)
            self._lifeline, lifeline = socketpair()
            stack.enter_context(self._lifeline)
            theirs.enter_context(lifeline)
            fds = {"POOL_MONITOR_ZYGOTE": control.fileno(), "POOL_MONITOR_LIFELINE": lifeline.fileno()}
            self._request("load", list(path), list(codecs), list(preload))  # before it can have ended
            self._process = spawn(command, env, fds, directory)
            stack.pop_all()
        self._process.on_end = self._ended
        self._output = ProcessOutput(self._loop, self._process.stdout, self._process.stderr, self._wrote)
        self._listen()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        return exit_text(self._process.returncode)

    @property
    def ended(self) -> bool:
        """It is gone, and so are the workers whose start was cancelled; others may live on."""
        return self._process.ended and not self._dead

    # -- what is asked of it --------------------------------------------------------------------------------------

    async def fork(self, fds: Mapping[str, int]) -> ForkedProcess:
        """A new worker with the descriptors *fds*, their numbers in variables of those names.

        Raises StartError, ZygoteGoneError and UnsafeForkError. Cancellation ends the worker.
        """
        async with self._fork_permits:
            if not self.usable:
                raise ZygoteGoneError("the zygote ended")
            request = next(self._ids)
            answer: asyncio.Future[ForkedProcess] = self._loop.create_future()
            try:
                with output_pipes() as (ours, theirs):
                    self._request("fork", request, list(fds), fds=[*fds.values(), *theirs])
                    self._forks[request] = answer, ours
                    self._start_timeout()
                    return await answer
            except asyncio.CancelledError:
                if answer.done() and not answer.cancelled() and not answer.exception():
                    answer.result().signal(signal.SIGKILL, group=True)  # it came when nobody waited any more
                raise
            except ConnectionError:
                self.kill()  # it is about to be seen
                raise ZygoteGoneError("the zygote ended") from None
            except OSError as error:  # no descriptor left, or too many under way
                raise StartError(f"cannot fork a worker: {error}") from error

    async def close(self) -> None:
        """End it, after the workers whose start was cancelled. Returns when it is gone."""
        with anyio.move_on_after(_REAP_TIMEOUT):  # not asyncio's, which needs Python 3.11.4 in a task that is cancelled
            while self._workers or self._forks:
                self._changed.clear()
                await self._changed.wait()
        self.kill()
        while not self._process.ended:
            self._changed.clear()
            await self._changed.wait()

    def abandon(self) -> None:
        """End it and all its workers now, and do not return before they are gone (milliseconds)."""
        for worker in list(self._workers):
            worker.signal(signal.SIGKILL, group=True)
        for worker in list(self._workers):
            worker.wait(_REAP_TIMEOUT)
        self.kill()
        self._process.wait(_REAP_TIMEOUT)
        self._ended()

    def kill(self) -> None:
        self.usable = False
        self._process.signal(signal.SIGKILL, group=True)

    def _reap(self, worker: ForkedProcess) -> None:
        self._dead[worker.pid] = worker
        if self._process.ended:
            self._reaped(worker.pid, None)
        else:
            self._reap_more()

    def _reap_more(self) -> None:
        if self._dead and not self._reaping:
            with contextlib.suppress(OSError):  # it has ended, as will be seen
                self._request("reap", list(itertools.islice(self._dead, _REAPED_AT_ONCE)))
            self._reaping = True
            self._start_timeout()

    def _reap_now(self, worker: ForkedProcess, timeout: float) -> None:
        self._reap(worker)
        poll = select.poll()
        while not worker.ended and self._control.fileno() >= 0:
            poll.register(self._control, select.POLLIN)
            if not poll.poll(timeout * 1000):
                return
            if not self._read():
                return

    def _request(self, *request: Any, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(request).encode()], fds)

    def _start_timeout(self) -> None:
        """An answer is waited for: for no longer because more is asked meanwhile."""
        if self._timer is None:
            self._set_timeout(_ANSWER_TIMEOUT)

    def _set_timeout(self, patience: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if patience is None or self._loop.is_closed():
            self._timer = None
        else:
            self._timer = self._loop.call_later(patience, self.kill)

    # -- what it answers ------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.add_reader(self._control.fileno(), self._read)

    def _read(self) -> bool:
        """Take in what it has answered. False where there is no memory for that."""
        while True:
            try:
                packet = self._control.recv(_PACKET)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it ended with requests unread: said once, and before its last answers
                continue
            except OSError:
                packet = b""
            except MemoryError:  # the answer stays there; at once there would be none either
                self._loop.call_later(_AGAIN, self._listen)
                self._loop.remove_reader(self._control.fileno())
                return False
            if not packet:
                self._loop.remove_reader(self._control.fileno())
                self._control.close()
                self.kill()
                return True
            try:
                self._answered(json.loads(packet))
            except _BAD_ANSWER:
                self._set_ready(StartError(f"the zygote answered {packet!r:.200}"))
                self.kill()
                return True
        self._set_timeout(_ANSWER_TIMEOUT if self._forks or self._reaping else None)
        return True

    def _answered(self, answer: Any) -> None:
        match answer:
            case ["ready"]:
                self._set_ready(None)
            case ["failed", module, type_name, text, traceback]:
                self._set_ready(
                    StartError(
                        f"cannot preload {module!r}: {type_name}: {text}", traceback, cause=f"{type_name}: {text}"
                    )
                )
            case ["threads", None, why]:
                self._set_ready(UnsafeForkError(why))
            case ["threads", request, why]:
                self.usable = False
                self._refuse(request, UnsafeForkError(why))
            case ["refused", request, why]:
                self._refuse(request, StartError(f"cannot fork a worker: {why}"))
            case ["forked", request, pid]:
                self._forked(request, pid)
            case ["reaped", ended]:
                self._reaping = False
                for pid, status in ended:
                    self._reaped(pid, None if status is None else os.waitstatus_to_exitcode(status))
                self._reap_more()
            case other:
                raise ValueError(other)

    def _set_ready(self, error: Exception | None) -> None:
        if not self.ready.done():
            if error is None:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(error)
                self.kill()

    def _forked(self, request: int, pid: int) -> None:
        answer, outputs = self._forks[request]
        try:
            worker = ForkedProcess(self, pid, outputs)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)  # the number is its own: it is not reaped yet
            self._refuse(request, StartError(f"cannot watch a worker: {error}"))
            self._dead[pid] = None
            self._reap_more()
            return
        del self._forks[request]
        self._workers.add(worker)
        if answer.done():  # cancelled
            worker.signal(signal.SIGKILL, group=True)
        else:
            answer.set_result(worker)

    def _refuse(self, request: int, error: Exception) -> None:
        answer, _outputs = self._forks.pop(request)
        if not answer.done():
            answer.set_exception(error)
        self._changed.set()

    def _reaped(self, pid: int, code: int | None) -> None:
        worker = self._dead.pop(pid)
        if worker is not None:
            self._workers.discard(worker)
            if self._process.ended:
                worker._orphan_reaped()
            else:
                worker._reaped(code)
        self._changed.set()

    # -- its end --------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """It is gone: what it was asked and has not done it will not do."""
        self.usable = False
        if self._control.fileno() >= 0:
            self._read()  # what it had answered
        self._set_timeout(None)
        self._output.close()
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._lifeline.close()
        program = f"the workers' interpreter {self._program!r}"
        needed = f"{PYTHON_NEEDED}, which what preload= names may not end"
        code, tail = self._process.returncode, self._output.tail
        self._set_ready(ended_early(StartError, program, code, tail, needed))
        for request in list(self._forks):
            when = "when it was to fork a worker"
            self._refuse(request, ended_early(ZygoteGoneError, program, code, tail, needed, when=when))
        for pid in list(self._dead):
            self._reaped(pid, None)
        self._changed.set()

    def _wrote(self, stream: str, text: str, _size: int) -> None:
        if self._log is not None:
            self._log.wrote(stream, text)
