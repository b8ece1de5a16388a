"""Workers as processes of this machine: spawned by path, spoken to over a socketpair, reaped here.

Nothing of it uses threads, polling or the descriptors 0 to 2: a process descriptor tells when the process has
ended, and stdin, stdout and stderr are the target's. Each worker leads a process group of its own, so that what it
starts can be ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor.errors import PayloadError, StartError
from pool_monitor.pool.transport.base import CallTimes, Failure, Ready, Sink
from pool_monitor.pool.transport.child import PROTOCOL
from pool_monitor.pool.transport.child.codec import CODECS, Codec
from pool_monitor.pool.transport.framing import FrameError, FrameReader, frame

_CHILD = str(Path(__file__).with_name("child") / "__main__.py")
_LINE_LIMIT = 8 * 1024  # a longer line of output is cut
_TAIL_LINES = 20  # of stderr, kept for the report of a crash
_LOOK_AGAIN = 0.02  # seconds after which a busy worker is signalled a second time
_LAST_BYTES = 0.25  # seconds an ended worker's socket may stay open in a process it left behind


class Launch(NamedTuple):
    """How to start the workers of a pool."""

    target: str
    python: str
    path: list[str]
    env: Mapping[str, str]
    init: tuple[Sequence[Any], Mapping[str, Any]]
    codecs: list[str]
    frame_limit: int
    session_data_limit: int


class ProcessTransport(asyncio.BufferedProtocol):
    """One worker process. A `Transport`; what happens to it is told to *sink*."""

    def __init__(self, launch: Launch, sink: Sink) -> None:
        self._launch = launch
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._codec: Codec = CODECS["json"]()
        self._reader = FrameReader(launch.frame_limit)
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []  # our ends: the channel and the life-line
        self._outputs: list[_Output] = []
        self._stderr: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pidfd: int | None = None
        self._greeting: asyncio.Future[Any] | None = None  # what the handshake waits for
        self._gone: asyncio.Future[int | None] = self._loop.create_future()
        self._disconnected = False
        self._receive: Callable[[Any], None] = self._greeted

    # -- start ----------------------------------------------------------------------------------------------------

    async def start(self) -> Ready:
        launch = self._launch
        self._spawn()
        # A StreamReader would halve the rate of small calls; this class is the protocol.
        await self._loop.create_unix_connection(lambda: self, sock=self._sockets[0])
        self._send(
            {
                "type": "hello",
                "protocols": [PROTOCOL],
                "codecs": launch.codecs,
                "frame_limit": launch.frame_limit,
                "session_data_limit": launch.session_data_limit,
            }
        )
        hello = await self._next()
        try:
            codec, pid, python = CODECS[hello["codec"]](), int(hello["pid"]), str(hello["python"])
        except (KeyError, TypeError, ValueError) as error:
            raise StartError(f"the worker answered the handshake with {hello!r:.200}") from error
        self._codec = codec
        args, kwargs = launch.init
        try:
            init = codec.encode(["init", launch.target, launch.path, codec.pack([list(args), dict(kwargs)])])
        except Exception as error:  # whatever an encoder raises for what it cannot carry
            raise StartError(f"init_args and init_kwargs cannot be carried as {codec.name}: {error}") from error
        self._write(init)
        match await self._next():
            case ["ready", dict(operations)]:
                if self._gone.done():  # as soon as it was ready
                    raise self._never_started()
                self._receive = self._message
                return Ready(pid, python, codec.name, operations)
            case ["error", 0, _, str(type_name), str(text), str(traceback), _]:
                raise StartError(f"cannot load {launch.target!r}: {type_name}: {text}", traceback)
            case other:
                raise StartError(f"the worker answered init with {other!r:.200}")

    def _spawn(self) -> None:
        try:
            self._run_child()
        except (OSError, ValueError) as error:  # no such program, no descriptor left, a NUL in the environment ...
            self._finish(None)
            raise StartError(f"cannot run {self._launch.python!r}: {error}") from error
        assert self._process is not None
        for pipe, line in ((self._process.stdout, self._stdout_line), (self._process.stderr, self._stderr_line)):
            assert pipe is not None
            self._outputs.append(_Output(self._loop, pipe.fileno(), line))
        self._watch(self._process.pid)

    def _run_child(self) -> None:
        """Start the process with its ends of the channel and the life-line; ours stay in ``_sockets``."""
        _living.add(self)
        with contextlib.ExitStack() as theirs:
            fds = [theirs.enter_context(self._socketpair()).fileno() for _ in range(2)]
            names = {"POOL_MONITOR_FD": str(fds[0]), "POOL_MONITOR_LIFELINE": str(fds[1])}
            self._process = subprocess.Popen(
                [self._launch.python, _CHILD],
                env={**os.environ, **self._launch.env, **names},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=fds,
                process_group=0,
            )

    def _socketpair(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        return theirs

    async def _next(self) -> Any:
        """The next message of the handshake."""
        self._greeting = self._loop.create_future()
        if self._gone.done():
            raise self._never_started()
        return await self._greeting

    def _greeted(self, message: Any) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(message)

    def _never_started(self) -> StartError:
        code = self._gone.result() if self._gone.done() else None
        how = f"the worker ended before it was ready ({exit_words(code)})"
        tail = "\n".join(self._stderr)
        return StartError(f"{how}; its last lines on stderr:\n{tail}" if tail else how)

    # -- sending --------------------------------------------------------------------------------------------------

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any], *,
        stream: bool, session: tuple[str, dict[str, Any]] | None,
    ) -> None:  # fmt: skip
        codec = self._codec
        try:
            state = None if session is None else [session[0], codec.pack(session[1])]
            body = codec.encode(["call", call_id, operation, codec.pack([args, kwargs]), stream, state])
        except Exception as error:  # whatever an encoder raises for what it cannot carry
            text = f"the arguments cannot be carried as {codec.name}: {error}"
            raise PayloadError(operation, type(error).__name__, text) from error
        if len(body) > self._launch.frame_limit:
            text = f"the arguments take {len(body)} bytes, over the frame limit of {self._launch.frame_limit}"
            raise PayloadError(operation, "PayloadError", f"{text}; raise frame_limit or send less")
        self._write(body)

    def cancel(self, call_id: int) -> None:
        self._urgent(["cancel", call_id])

    def ping(self, token: int) -> None:
        self._urgent(["ping", token])

    def flow(self, *, paused: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def _send(self, message: Any) -> None:
        self._write(self._codec.encode(message))

    def _write(self, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(body))

    def _urgent(self, message: Any) -> None:
        """Send to a worker that may be busy: the signal makes it look (see child/). Ignored by default."""
        self._send(message)
        self._look()
        # In the instant before a system call that blocks, a signal goes unseen until that call returns.
        self._loop.call_later(_LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._signal(signal.SIGURG, group=False)

    # -- receiving (asyncio.BufferedProtocol) ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for body in self._reader.received(nbytes):
                self._receive(self._decode(body))
                if self._disconnected:
                    return
        except FrameError as error:
            self._break(str(error))

    def _decode(self, body: memoryview) -> Any:
        try:
            return self._codec.decode(body)
        except Exception as error:  # whatever a decoder raises: what follows cannot be trusted
            raise FrameError(f"a frame that is no {self._codec.name}: {error}") from error

    def connection_lost(self, _error: Exception | None) -> None:
        self._disconnected = True
        if self._gone.done() or self._process is None:
            return
        if self._process.returncode is None:
            self.kill()  # it is about to end; or it closed the channel and lives on, of no use to anybody
        else:
            self._finish(self._process.returncode)

    def _message(self, message: Any) -> None:
        """One message of a worker at work. Raises for one that the protocol does not know."""
        match message:
            # The order matters: a pattern costs what it looks at before it fails, and nearly all are replies. Of
            # those only the outside is matched, because matching all of it takes longer than decoding it.
            case ["reply" | "end", call_id, packed, data, times] if _are_times(times) and type(call_id) is int:
                self._reply(call_id, packed, data, CallTimes(times[0], times[1]))
            case ["item", int(call_id), packed]:
                self._item(call_id, packed)
            case ["error", int(call_id), str(kind), str(name), str(text), str(trace), [int(wall), int(cpu), *_]]:
                self._sink.failed(call_id, Failure(kind, name, text, trace), CallTimes(wall, cpu))
            case ["pong", int(token), int() | None as call_id]:
                self._sink.ponged(token, call_id)
            case other:
                raise FrameError(f"unknown message {other!r:.200}")

    def _reply(self, call_id: int, packed: Any, data: Any, times: CallTimes) -> None:
        try:
            result, state = self._codec.unpack(packed), None if data is None else self._codec.unpack(data)
        except Exception as error:  # noqa: BLE001 - a pickle that cannot be rebuilt here: only that call fails
            text = f"the result cannot be rebuilt: {error}"
            self._sink.failed(call_id, Failure("payload", type(error).__name__, text, ""), times)
        else:
            self._sink.replied(call_id, result, state, times)

    def _item(self, call_id: int, packed: Any) -> None:
        try:
            value = self._codec.unpack(packed)
        except Exception as error:  # as above, but there is no way to go on with the stream
            raise FrameError(f"an item cannot be rebuilt: {error}") from error
        self._sink.item(call_id, value)

    def _break(self, reason: str) -> None:
        self._disconnected = True
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(StartError(f"the worker broke the protocol: {reason}"))
        else:
            self._sink.broke(reason)
        self.kill()
        if self._transport is not None:
            self._transport.abort()  # nothing it says from now on is listened to

    # -- output ---------------------------------------------------------------------------------------------------

    def _stdout_line(self, text: str, size: int) -> None:
        self._sink.wrote("stdout", text, size)

    def _stderr_line(self, text: str, size: int) -> None:
        self._stderr.append(text)
        self._sink.wrote("stderr", text, size)

    # -- end ------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float, kill_grace: float) -> None:
        if self._receive == self._message:
            self._send(["stop"])
        else:
            grace = 0.0  # it has not come so far as to understand
        for patience, number in ((grace, signal.SIGTERM), (kill_grace, signal.SIGKILL)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.shield(self._gone)
                return
            self._signal(number, group=True)
        await asyncio.shield(self._gone)

    def kill(self) -> None:
        self._signal(signal.SIGKILL, group=True)

    def abandon(self) -> None:
        self.kill()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: nobody can help it
                self._process.wait(1.0)
            self._unwatch()
            self._finish(self._process.returncode)

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        # Its number cannot have been given to another process: it is ours to reap, and not yet reaped.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self._process.pid, number)

    def _watch(self, pid: int) -> None:
        """Arrange for `_exited` to run when the process has ended."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # elsewhere than on Linux: one waiting thread per worker
            threading.Thread(
                target=self._wait_for, args=(pid,), name=f"pool_monitor waits for {pid}", daemon=True
            ).start()
        else:
            self._loop.add_reader(self._pidfd, self._exited)

    def _wait_for(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):  # reaped meanwhile, by `abandon`
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the event loop has closed meanwhile
            self._loop.call_soon_threadsafe(self._exited)

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _exited(self) -> None:
        self._unwatch()
        assert self._process is not None
        if self._gone.done():
            return  # `abandon` was quicker than a waiting thread
        self.kill()  # what it started and left in its group; before reaping, while the group's number is surely ours
        self._process.wait()
        if self._disconnected or self._transport is None:
            self._finish(self._process.returncode)
        else:  # answers it gave before it ended are still to be read
            self.flow(paused=False)
            self._loop.call_later(_LAST_BYTES, self._transport.abort)

    def _finish(self, exit_code: int | None) -> None:
        """The process is reaped and all it said has been read: release everything and report."""
        if self._gone.done():
            return
        for output in self._outputs:
            output.close()
        if self._transport is not None:
            self._transport.abort()
        for sock in self._sockets:
            sock.close()
        if self._process is not None:
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
        _living.discard(self)
        self._gone.set_result(exit_code)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(self._never_started())
        self._sink.gone(exit_code, "\n".join(self._stderr))


class _Output:
    """Lines from one pipe of a worker, read as they come so that it never blocks on writing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, line: Callable[[str, int], None]) -> None:
        self._loop, self._fd, self._line = loop, fd, line
        self._partial = bytearray()
        self._size = 0  # of the partial line, cut or not
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Take in what is there, at most 16 KiB so that a chatty worker cannot keep the loop."""
        try:
            data = os.read(self._fd, 16 * 1024)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._fd)
            return False
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._flush()
        self._add(rest)
        return True

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        self._partial += part[: _LINE_LIMIT - len(self._partial)]

    def _flush(self) -> None:
        text, size = self._partial.decode("utf-8", "replace").rstrip("\r"), self._size
        self._partial.clear()
        self._size = 0
        self._line(text, size)

    def close(self) -> None:
        """Read what is left (bounded: a process left behind may hold the pipe and go on writing) and stop."""
        for _ in range(64):
            if not self._read():
                break
        if self._size:
            self._flush()
        self._loop.remove_reader(self._fd)


def _are_times(times: object) -> bool:
    return type(times) is list and len(times) >= 2 and type(times[0]) is int and type(times[1]) is int


def exit_words(code: int | None) -> str:
    """An exit code in words: ``exit code 1``, ``signal 9 (SIGKILL)``."""
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


# A process forked off the service without exec (multiprocessing, say) would keep our ends of the sockets open, and
# workers would outlive the service as long as that process lives: it closes its copies.
_living: weakref.WeakSet[ProcessTransport] = weakref.WeakSet()


def _close_copies() -> None:
    for transport in list(_living):
        for sock in transport._sockets:
            sock.close()
    _living.clear()


os.register_at_fork(after_in_child=_close_copies)


def import_path(python: str, additions: Sequence[str]) -> list[str]:
    """What goes in front of a worker's import path: *additions*, the working directory and, in the service's own
    interpreter, whatever the service itself can import from.
    """
    inherited = [entry for entry in sys.path if entry] if python == sys.executable else []
    return list(dict.fromkeys([*(str(Path(entry).resolve()) for entry in additions), str(Path.cwd()), *inherited]))
