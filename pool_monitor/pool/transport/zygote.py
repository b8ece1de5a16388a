"""The service's side of a zygote: the process that a pool's workers are forked off. child/zygote.py runs inside it.

A worker is a child of the zygote, so only the zygote can reap it. The service sees by itself that a worker has ended,
kills the rest of its group, and then asks the zygote to reap it. Workers depend on the service, not on the zygote: when
the zygote dies, they go on, and the pool starts another zygote.
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

_PACKET = 120 * 1024  # bytes: no answer is longer, and memory below 128 KiB is cheap
_AT_ONCE = 16  # unanswered requests to fork: as many as the socket holds in any case
_REAPED_AT_ONCE = 64
_AGAIN = 0.1  # seconds until reading is tried again after a MemoryError
_ANSWER_TIMEOUT = 10.0  # seconds after which an unanswering zygote is killed; an answer takes milliseconds
_REAP_TIMEOUT = 1.0  # seconds in which workers whose start was cancelled must end before the zygote does
_BAD_ANSWER = (ValueError, KeyError, TypeError, OSError, MemoryError)  # raised by an invalid answer, or by handling one


PYTHON_NEEDED = "python= needs a Python interpreter of version 3.8 or later"


class ZygoteGoneError(StartError):
    """The zygote ended after it had been asked for a worker. It may have forked the worker, so the descriptors meant
    for the worker must be closed and not used again.
    """


class UnsafeForkError(Exception):
    """A preloaded module has started a thread, so that forking would not be safe. No worker was forked."""


class ForkedProcess(WatchedProcess):
    """A worker forked off a zygote. Raises OSError if the process cannot be watched."""

    def __init__(self, zygote: Zygote, pid: int, outputs: OutputPipes) -> None:
        self._zygote = zygote
        super().__init__(pid, outputs)

    def _reap(self) -> None:
        self._zygote._reap(self)

    def _reap_now(self, timeout: float) -> None:
        self._zygote._reap_now(self, timeout)

    def _orphan_reaped(self) -> None:
        """Note the end of a worker whose zygote is gone. Its new parent reaps it; as PID 1 that can be the service."""
        code = None
        if self._pidfd is not None:
            with contextlib.suppress(OSError):
                done = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
                if done is not None:
                    code = done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
        self._reaped(code)


class Zygote:
    """The constructor starts the process, on a running event loop. Raises OSError or ValueError if it cannot be run."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], directory: str | None = None, *,
        path: Sequence[str], codecs: Sequence[str], preload: Sequence[str], log_output: bool = True,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._program = command[0]
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())  # mark as retrieved
        self.usable = True  # can be asked for workers
        self._forks: dict[int, tuple[asyncio.Future[ForkedProcess], OutputPipes]] = {}
        self._fork_permits = asyncio.Semaphore(_AT_ONCE)
        self._ids = itertools.count(1)
        self._workers: set[ForkedProcess] = set()  # not reaped yet
        self._dead: dict[int, ForkedProcess | None] = {}  # workers that have ended, until they are reaped
        self._reaping = False  # a ``reap`` request is unanswered
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
            self._request("load", list(path), list(codecs), list(preload))  # sent before the process can end
            self._process = spawn(command, env, fds, directory)
            stack.pop_all()
        self._process.on_end = self._ended
        self._output = ProcessOutput(self._loop, self._process.stdout, self._process.stderr, self._wrote)
        self._watch_control()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        return exit_text(self._process.returncode)

    @property
    def ended(self) -> bool:
        """Whether the zygote has ended and all ended workers are reaped. Other workers may still run."""
        return self._process.ended and not self._dead

    # -- requests -------------------------------------------------------------------------------------------------

    async def fork(self, fds: Mapping[str, int]) -> ForkedProcess:
        """Fork a worker that has the descriptors *fds*. Their numbers are in variables of those names.

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
                    answer.result().signal(signal.SIGKILL, group=True)  # it was forked after the cancellation
                raise
            except ConnectionError:
                self.kill()  # its end will be noticed soon
                raise ZygoteGoneError("the zygote ended") from None
            except OSError as error:  # no descriptor left, or too many in flight
                raise StartError(f"cannot fork a worker: {error}") from error

    async def close(self) -> None:
        """End the zygote after the workers whose start was cancelled. Returns when it has ended."""
        with anyio.move_on_after(_REAP_TIMEOUT):  # not asyncio's, which needs Python 3.11.4 in a task that is cancelled
            while self._workers or self._forks:
                self._changed.clear()
                await self._changed.wait()
        self.kill()
        while not self._process.ended:
            self._changed.clear()
            await self._changed.wait()

    def abandon(self) -> None:
        """End the zygote and all its workers now, and block until they have ended (milliseconds)."""
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
            with contextlib.suppress(OSError):  # the zygote has ended, which will be noticed
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
        """Start the time limit for an answer, unless it runs already: a later request must not extend it."""
        if self._timer is None:
            self._set_timeout(_ANSWER_TIMEOUT)

    def _set_timeout(self, patience: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if patience is None or self._loop.is_closed():
            self._timer = None
        else:
            self._timer = self._loop.call_later(patience, self.kill)

    # -- answers --------------------------------------------------------------------------------------------------

    def _watch_control(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.add_reader(self._control.fileno(), self._read)

    def _read(self) -> bool:
        """Take the answers that have arrived. False if there is no memory for them."""
        while True:
            try:
                packet = self._control.recv(_PACKET)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it ended with unread requests; reported once, before its last answers
                continue
            except OSError:
                packet = b""
            except MemoryError:  # the answer stays in the socket; trying again at once would fail too
                self._loop.call_later(_AGAIN, self._watch_control)
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
            os.killpg(pid, signal.SIGKILL)  # the pid is still its own: it is not reaped
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

    # -- end ------------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """Release everything and fail all unanswered requests: the zygote has ended."""
        self.usable = False
        if self._control.fileno() >= 0:
            self._read()  # its last answers
        self._set_timeout(None)
        self._output.close()
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._lifeline.close()
        program = f"the workers' interpreter {self._program!r}"
        needed = f"{PYTHON_NEEDED}, and importing a module of preload= must not end it"
        code, tail = self._process.returncode, self._output.tail
        self._set_ready(ended_early(StartError, program, code, tail, needed))
        for request in list(self._forks):
            when = "before it had forked a worker"
            self._refuse(request, ended_early(ZygoteGoneError, program, code, tail, needed, when=when))
        for pid in list(self._dead):
            self._reaped(pid, None)
        self._changed.set()

    def _wrote(self, stream: str, text: str, _size: int) -> None:
        if self._log is not None:
            self._log.wrote(stream, text)
