"""Processes of this machine: started by exec, watched, signalled and reaped without threads or polling.

Each leads a process group of its own, so that what it starts can be ended with it. A process descriptor tells when
it has ended. Its number is held until it is reaped, and nothing is sent to the number after that, so that a signal
can never reach a stranger.
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

from pool_monitor.after_fork import keep_from_children
from pool_monitor.errors import StartError

_AGAIN = 0.1  # seconds after which something is tried again that there was no memory for

OutputPipes = tuple[int, int]  # the ends that belong together of a pipe for stdout and one for stderr


class WatchedProcess:
    """A process from its start until it is reaped. Made on the event loop that watches it.

    When it has ended, what is left of its group is killed, it is reaped, and `on_end` is called once.
    """

    def __init__(self, pid: int, outputs: OutputPipes) -> None:
        self.pid = pid
        self.stdout, self.stderr = outputs  # whoever holds the process closes them
        self.returncode: int | None = None  # negative: the signal that ended it; None after its end: nobody can tell
        self.ended = False  # and reaped
        self.on_end: Callable[[], None] = _nothing
        self._numbered = True  # the number is this process's
        self._loop = asyncio.get_running_loop()
        self._pidfd = self._open_pidfd()
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._exited)

    def signal(self, number: signal.Signals, *, group: bool) -> None:
        """Send a signal to the process, or to its whole group and to the process wherever it has gone. Does nothing
        once it has ended and been reaped.
        """
        if not self._numbered or (group and self._recycled()):
            return
        gone = contextlib.suppress(ProcessLookupError, PermissionError)
        with gone:
            if group:
                os.killpg(self.pid, number)
        with gone:
            if group and number != signal.SIGKILL and os.getpgid(self.pid) == self.pid:
                return  # it had the signal with its group
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    def _recycled(self) -> bool:
        """Whether the number is another process's by now: others have reaped this one (a handler of SIGCHLD in the
        service, or the kernel where that is ignored). While only its group is left, nobody is given the number.
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
        """Block until it is reaped, at most *timeout* seconds. `on_end` is not called any more."""
        self.on_end = _nothing
        if self._pidfd is not None and self._numbered:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(timeout * 1000):
                return  # stuck in the kernel: nobody can help it
            self._over()
        if not self.ended:
            self._reap_now(timeout)

    def _open_pidfd(self) -> int | None:
        return os.pidfd_open(self.pid)

    def _exited(self) -> None:
        try:
            if self._numbered:  # `wait` may have been quicker than a waiting thread
                self._over()
            if not self.ended:
                self._reap()
        except MemoryError:  # its end must not be lost for that
            self._loop.call_later(_AGAIN, self._exited)

    def _over(self) -> None:
        """It has ended: kill what it left in its group, while the group's number is surely its own."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self.signal(signal.SIGKILL, group=True)
        self._numbered = False

    def _reaped(self, returncode: int | None) -> None:
        if not self.ended:
            self.ended, self.returncode = True, returncode
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
            self.on_end()

    def _reap(self) -> None:
        """It has ended: have `_reaped` called with its exit code, now or later."""
        raise NotImplementedError

    def _reap_now(self, timeout: float) -> None:
        """It has ended: the same, before this returns, unless that takes longer than *timeout* seconds."""
        raise NotImplementedError


class SpawnedProcess(WatchedProcess):
    """A process that is our own child."""

    def __init__(self, process: subprocess.Popen[bytes], outputs: OutputPipes) -> None:
        self._process = process
        super().__init__(process.pid, outputs)

    def _open_pidfd(self) -> int | None:
        try:
            return super()._open_pidfd()
        except (AttributeError, OSError):  # elsewhere than on Linux: one waiting thread per process
            name = f"pool_monitor waits for {self.pid}"
            threading.Thread(target=self._wait_for, name=name, daemon=True).start()
            return None

    def _wait_for(self) -> None:
        with contextlib.suppress(ChildProcessError):  # reaped meanwhile, by `wait`
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the event loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._exited)

    def _reap(self) -> None:
        """`Popen.wait` would take a status that somebody else has fetched, or that was not kept, for 0."""
        try:
            code: int | None = self._status()
        except ChildProcessError:
            code = None
        self._process.returncode = code or 0  # it is reaped
        self._reaped(code)

    def _status(self) -> int:
        """Its exit code. Raises ChildProcessError."""
        if self._pidfd is None:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        done = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)  # another child may have its number by now
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
    """Run *command* in *directory* (None: ours) with our environment, *env*, and the descriptors *fds*, whose numbers
    are told in variables of those names. Its stdin is empty. Raises OSError, and ValueError for what cannot be an
    argument or a variable.
    """
    names = {name: str(fd) for name, fd in fds.items()}
    with output_pipes() as (ours, theirs):
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **env, **names},
            stdin=subprocess.DEVNULL,
            stdout=theirs[0],
            stderr=theirs[1],
            pass_fds=list(fds.values()),
            process_group=0,
        )
        return SpawnedProcess(process, ours)


@contextlib.contextmanager
def output_pipes() -> Iterator[tuple[OutputPipes, OutputPipes]]:
    """Two pipes, as the ends we read and the ends the process writes. The latter are closed at the end, and after an
    error the former too.
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
    """An exit code in words: ``exit code 1``, ``signal 9 (SIGKILL)``."""
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
    """Our end and a process's. Ours stays with this process alone, also when it forks (``multiprocessing``, say): a
    copy that kept it open would keep workers alive when the service has ended.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    keep_from_children(ours)
    return ours, theirs
