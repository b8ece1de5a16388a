"""The process that workers are forked off. It has loaded what they all need, and runs no operation itself.

It answers packets on the socket in ``POOL_MONITOR_ZYGOTE``, one at a time. Each is a JSON list:

    ["load", path, codecs, modules]     "ready", or "failed", module, type, text, traceback; or "threads", null, why
    ["fork", id, [names]]               "forked", id, pid; or "refused", id, why; or "threads", id, why
    ["reap", [pids]]                    "reaped", [[pid, status or null], ...]

``fork`` brings the descriptors of those names, then stdout and stderr. A worker that has ended stays a zombie until
``reap``. Before that the parent kills the rest of its process group, while its pid cannot belong to another process.

Forking is safe because there is only one thread. If a preloaded module has started another, the answer is ``threads``.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback  # noqa: F401 - a worker needs it when something fails
import warnings

from .codec import first_codec
from .exception_text import describe_exception
from .output import flush_output
from .process import die_with_parent, outlive_parent, reset_signals
from .stacks import notice_handlers
from .target import accepts_keyword, noting_import, operations_of

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, NoReturn

_LOAD_SIZE = 1 << 20  # bytes: more than a socket takes at once
_REQUEST_SIZE = 4096
_FDS_SIZE = socket.CMSG_SPACE(16 * array.array("i").itemsize)


def main() -> bool:
    """Run the zygote until the parent is gone. Return True in each forked worker, which has the descriptors it was
    sent. Return False if no worker can be forked; the reason has been sent to the parent.
    """
    control, lifeline = (int(os.environ.pop(name)) for name in ("POOL_MONITOR_ZYGOTE", "POOL_MONITOR_LIFELINE"))
    os.set_inheritable(control, False)
    os.set_inheritable(lifeline, False)
    reset_signals()
    notice_handlers()
    die_with_parent(lifeline)
    zygote = Zygote(socket.socket(fileno=control), lifeline)
    return zygote.load(*zygote.receive_request(_LOAD_SIZE)[1:]) and zygote.serve()


class Zygote:
    def __init__(self, control: socket.socket, lifeline: int) -> None:
        self.control = control
        self.lifeline = lifeline
        self.fds: list[int] = []  # received with the request
        self.workers: set[int] = set()  # pids that are not reaped

    def load(self, path: list[str], codecs: list[str], modules: list[str]) -> bool:
        with contextlib.suppress(BaseException):  # each worker will report the problem itself
            warm_up(codecs)
        sys.path[:] = path + [entry for entry in sys.path if entry not in path]
        for name in modules:
            try:
                with noting_import(name):
                    importlib.import_module(name)
            except BaseException as error:  # also SystemExit
                kind, text, trace = describe_exception(error)
                self.respond("failed", name, kind[:256], text[:1024], trace[-8192:])  # it must fit into one packet
                return False
            if other_threads() and not single_threaded_after_fork():
                self.respond("threads", None, "%s starts %s when it is imported" % (name, other_threads()))
                return False
        # If a module ignored it, the kernel would reap workers by itself and could reuse their pids.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        outlive_parent(self.lifeline)
        gc.collect()
        gc.freeze()  # the collector skips what exists now, so its memory stays shared with every worker
        self.respond("ready")
        return True

    def serve(self) -> bool:
        """Serve requests. Returns True in a forked worker, and never in the zygote."""
        while True:
            request = self.receive_request(_REQUEST_SIZE)
            if request[0] == "reap":
                self.respond("reaped", [[pid, self.reap(pid)] for pid in request[1]])
            elif self.fork(*request[1:]):
                return True

    def fork(self, request: int, names: list[str]) -> bool:
        """Fork a worker. Return True in the worker, False in the zygote."""
        if len(self.fds) != len(names) + 2:
            self.respond("refused", request, "no room for its descriptors")
        elif other_threads():
            self.respond("threads", request, "a preloaded module has started %s" % other_threads())
        else:
            flush_output()  # else the worker would print it again
            try:
                pid = os.fork()
            except OSError as error:
                self.respond("refused", request, str(error))
            else:
                if not pid:
                    self.become_worker(names)
                    return True
                with contextlib.suppress(OSError):  # the worker has ended already
                    os.setpgid(pid, pid)  # the worker does so too; the group must exist before its pid is sent
                self.workers.add(pid)
                self.respond("forked", request, pid)
        self.close_fds()
        return False

    def become_worker(self, names: list[str]) -> None:
        os.setpgid(0, 0)
        self.control.close()
        os.close(self.lifeline)
        *fds, stdout, stderr = self.fds
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        for name, fd in zip(names, fds):  # noqa: B905 - Python 3.8
            os.environ[name] = str(fd)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:  # the standard library reseeds its own after a fork
            numpy_random.seed()

    def receive_request(self, size: int) -> list[Any]:
        """Return the next request. The descriptors that came with it are in ``fds``."""
        data, ancillary, _, _ = self.control.recvmsg(size, _FDS_SIZE, socket.MSG_CMSG_CLOEXEC)
        if not data:
            self.exit()
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
        self.fds = fds.tolist()
        request: list[Any] = json.loads(data)
        return request

    def reap(self, pid: int) -> int | None:
        """Return the wait status of a worker that has ended; None if it was reaped elsewhere."""
        try:
            return os.waitpid(pid, 0)[1]
        except ChildProcessError:
            return None
        finally:
            self.workers.discard(pid)

    def respond(self, *answer: Any) -> None:
        try:
            self.control.send(json.dumps(answer).encode())
        except OSError:
            self.exit()

    def exit(self) -> NoReturn:
        """End the zygote: the parent is gone. Life-lines end the living workers. If a worker had ended unnoticed, the
        rest of its process group is killed here. Its pid is still its own, because it is not reaped.
        """
        for pid in self.workers:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)  # in case the worker has left its group
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def warm_up(codecs: list[str]) -> None:
    """Do what each worker does first, so that it is done once. The first look at a signature alone takes 3 ms: Python
    sets up tables for it, and keeps them.
    """
    codec = first_codec(codecs)
    codec.unpack(codec.decode(codec.encode([0, codec.pack([[], {}])]))[1])
    operations_of(_Target())
    accepts_keyword(_Target, "telemetry")
    compile("class Target: pass", "target", "exec")


class _Target:
    def operation(self) -> None:
        pass


def other_threads() -> str:
    """Return a description of the other threads; empty if there are none."""
    threading = sys.modules.get("threading")
    named = [] if threading is None else [thread.name for thread in threading.enumerate()][1:]
    try:
        count = len(os.listdir("/proc/self/task")) - 1
    except OSError:
        count = len(named)
    if not count:
        return ""
    return "threads (%s)" % ", ".join(named or ["%d started by a library" % count])


def single_threaded_after_fork() -> bool:
    """Whether only one thread is left after a trial fork. Numerical libraries start threads when they are imported, and
    some (OpenBLAS) end them before every fork.
    """
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the threads, which are known
        pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return not other_threads()
