"""Processes of this machine: started by exec, watched, signalled and reaped without threads or polling.

Each process leads its own process group, so that the processes it starts are ended with it. A process descriptor
becomes readable when the process has ended. The kernel keeps the pid until the process is reaped. No signal is sent to
the pid after that, so a signal never reaches an unrelated process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from pool_monitor import run_token
from pool_monitor.after_fork import keep_from_children
from pool_monitor.errors import StartError

_AGAIN = 0.1  # seconds until an action is tried again after a MemoryError

OutputPipes = tuple[int, int]  # one end of the pipe for stdout, the same end of the pipe for stderr


class WatchedProcess:
    """A process from its start until it is reaped. Must be created on the event loop that watches it.

    When the process has ended, the rest of its group is killed, the process is reaped, and `on_end` is called once.
    """

    def __init__(self, pid: int, outputs: OutputPipes) -> None:
        self.pid = pid
        self.stdout, self.stderr = outputs  # closed by the owner of this object
        self.returncode: int | None = None  # negative: the signal that ended it; None though ended: unknown
        self.ended = False  # ended and reaped
        self.on_end: Callable[[], None] = _nothing
        self._pid_valid = True  # the pid still belongs to this process
        self._loop = asyncio.get_running_loop()
        self._pidfd = self._open_pidfd()
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._exited)

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal to the process, or to its group and to the process itself if it has left the group. Does
        nothing once the process has ended and been reaped.
        """
        if not self._pid_valid or (group and self._pid_reused()):
            return
        gone = contextlib.suppress(ProcessLookupError, PermissionError)
        with gone:
            if group:
                os.killpg(self.pid, number)
        with gone:
            if group and number != signal.SIGKILL and os.getpgid(self.pid) == self.pid:
                return  # reached with its group
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    def _pid_reused(self) -> bool:
        """Whether the pid may belong to another process by now, because this one was reaped elsewhere: by a handler of
        SIGCHLD in the service, or by the kernel where SIGCHLD is ignored. While the group exists, the pid is not
        reused.
        """
        if self._pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            import psutil  # hardly ever needed

            return bool(psutil.pid_exists(self.pid))
        return False

    def wait(self, timeout: float) -> None:
        """Block until the process is reaped, at most *timeout* seconds. `on_end` is not called any more."""
        self.on_end = _nothing
        if self._pidfd is not None and self._pid_valid:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(timeout * 1000):
                return  # stuck in the kernel: it cannot be ended
            self._over()
        if not self.ended:
            self._reap_now(timeout)

    def _open_pidfd(self) -> int | None:
        return os.pidfd_open(self.pid)

    def _exited(self) -> None:
        try:
            if self._pid_valid:  # `wait` may have come before the waiting thread
                self._over()
            if not self.ended:
                self._reap()
        except MemoryError:  # try again: the end must not go unnoticed
            self._loop.call_later(_AGAIN, self._exited)

    def _over(self) -> None:
        """After the end: kill the rest of the group while its number still belongs to the process."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self.signal(signal.SIGKILL, group=True)
        self._pid_valid = False

    def _reaped(self, returncode: int | None) -> None:
        if not self.ended:
            self.ended, self.returncode = True, returncode
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
            self.on_end()

    def _reap(self) -> None:
        """After the end: have `_reaped` called with the exit code, now or later."""
        raise NotImplementedError

    def _reap_now(self, timeout: float) -> None:
        """As `_reap`, but block until `_reaped` has been called, at most *timeout* seconds."""
        raise NotImplementedError


class SpawnedProcess(WatchedProcess):
    """A process that is our own child."""

    def __init__(self, process: subprocess.Popen[bytes], outputs: OutputPipes) -> None:
        self._process = process
        super().__init__(process.pid, outputs)

    def _open_pidfd(self) -> int | None:
        try:
            return super()._open_pidfd()
        except (AttributeError, OSError):  # not on Linux: one waiting thread per process
            name = f"pool_monitor waits for {self.pid}"
            threading.Thread(target=self._wait_for, name=name, daemon=True).start()
            return None

    def _wait_for(self) -> None:
        with contextlib.suppress(ChildProcessError):  # `wait` has reaped it meanwhile
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the event loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._exited)

    def _reap(self) -> None:
        """Reap without `Popen.wait`, which reports 0 for a status that was fetched elsewhere or not kept."""
        try:
            code: int | None = self._status()
        except ChildProcessError:
            code = None
        self._process.returncode = code or 0  # so that Popen does not wait for it
        self._reaped(code)

    def _status(self) -> int:
        """Return the exit code. Raises ChildProcessError."""
        if self._pidfd is None:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        done = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)  # by descriptor: another child may have the pid by now
        assert done is not None
        return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status

    def _reap_now(self, timeout: float) -> None:
        if self._pidfd is not None:
            self._reap()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._reaped(self._process.wait(timeout))


def spawn(
    command: Sequence[str], env: Mapping[str, str], fds: Mapping[str, int], directory: str | None = None
) -> SpawnedProcess:
    """Run *command* in *directory* (None: that of the service) with the service's environment and *env*. It inherits
    the descriptors *fds*, whose numbers are in variables of those names. Its stdin is empty.

    Raises OSError, and ValueError for an invalid argument or variable.
    """
    names = {name: str(fd) for name, fd in fds.items()}
    with output_pipes() as (ours, theirs):
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **env, **run_token.environment(), **names},
            stdin=subprocess.DEVNULL,
            stdout=theirs[0],
            stderr=theirs[1],
            pass_fds=list(fds.values()),
            process_group=0,
        )
        return SpawnedProcess(process, ours)


@contextlib.contextmanager
def output_pipes() -> Iterator[tuple[OutputPipes, OutputPipes]]:
    """Open two pipes. Yields the ends we read and the ends the process writes. The write ends are closed on leaving,
    and the read ends too after an error.
    """
    with contextlib.ExitStack() as all_ends, contextlib.ExitStack() as theirs:
        pairs = []
        for _ in range(2):
            pairs.append(os.pipe())
            all_ends.callback(os.close, pairs[-1][0])
            theirs.callback(os.close, pairs[-1][1])
        yield (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])
        all_ends.pop_all()


def _nothing() -> None:
    pass


def exit_text(code: int | None) -> str:
    """Return an exit code in words: ``exit code 1``, ``signal 9 (SIGKILL)``."""
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


ErrorT = TypeVar("ErrorT", bound=StartError)


def ended_early(
    kind: type[ErrorT], program: str, code: int | None, stderr: str, needed: str, *, when: str = "before it was ready"
) -> ErrorT:
    """The error for a *program* that has ended too early. *stderr* holds the last lines it wrote there; where it wrote
    none, the message says what is *needed* instead.
    """
    how, lines = exit_text(code), stderr.strip().splitlines()
    advice = f"its last lines on stderr:\n{stderr}" if stderr else needed
    cause = f"{how}: {lines[-1].strip()}" if lines else how
    return kind(f"{program} ended {when} ({how}); {advice}", cause=cause)


def socketpair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Return our end and the process's end of a new socket pair. Processes that the service forks (``multiprocessing``,
    say) do not keep our end: an open copy would keep workers alive after the service has ended.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    keep_from_children(ours)
    return ours, theirs
