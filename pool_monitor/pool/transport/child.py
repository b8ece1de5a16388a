"""The program inside a worker process: loads the target, answers calls, ends itself when the parent goes away.

Standard library only, and any Python from 3.8: the parent starts this file by its path, in whatever interpreter
the target needs, where nothing of ours is installed. It speaks protocol v1 (docs/WORKER_PROTOCOL.md) on the socket
whose descriptor is in ``POOL_MONITOR_FD``; stdin, stdout and stderr belong to the target.

Theory of operation
-------------------
One thread. Idle, it blocks in ``recv``. While the target runs nobody reads the socket, so that a call costs no
hand-over between threads; when the parent has something urgent to say to a busy worker (``ping``, ``cancel``), it
writes the frame and sends SIGURG, whose default action is to be ignored. Our handler then reads what has arrived,
answers pings, and turns a ``cancel`` into `OperationCancelled`, raised inside the target at that very place. The
handler reads only while the target's code runs: never in the middle of a frame that is being sent or received.

Life-line: a second socket (``POOL_MONITOR_LIFELINE``) that never carries a byte. When the parent goes, however it
goes, the kernel sees the other end close and kills this whole process group at once. That needs nothing from this
process, so it also works while C code holds the interpreter.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import functools
import importlib
import importlib.util
import inspect
import io
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Coroutine

PROTOCOL = 1
_LENGTH = struct.Struct(">I")
_TEXT_LIMIT = 64 * 1024  # most characters of an error's message or traceback that go back


class OperationCancelled(BaseException):
    """The caller gave up. No Exception, so that a target's ``except Exception`` does not swallow it."""


class ParentGone(Exception):
    """The parent closed the socket, or said ``stop``."""


class PayloadError(Exception):
    """Something cannot be carried to the parent."""


class Session:
    """What an operation with a keyword parameter named ``session`` receives."""

    def __init__(self, session_id: str, data: dict[str, Any]) -> None:
        self.id = session_id
        self.data = data


# -- codecs (the parent uses these too) ------------------------------------------------------------------------------


def _same(payload: Any) -> Any:
    return payload


class Codec:
    """``encode``/``decode`` are for whole messages, ``pack``/``unpack`` for the user's values inside them."""

    def __init__(
        self,
        name: str,
        encode: Callable[[Any], bytes],
        decode: Callable[[Any], Any],
        pack: Callable[[Any], Any] = _same,
        unpack: Callable[[Any], Any] = _same,
    ) -> None:
        self.name, self.encode, self.decode, self.pack, self.unpack = name, encode, decode, pack, unpack


def json_codec() -> Codec:
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    return Codec("json", lambda message: encoder.encode(message).encode(), lambda body: json.loads(bytes(body)))


def msgpack_codec() -> Codec:
    try:
        from msgspec.msgpack import Decoder, Encoder

        return Codec("msgpack", Encoder().encode, Decoder().decode)
    except ImportError:
        msgpack = importlib.import_module("msgpack")
        return Codec("msgpack", msgpack.packb, lambda body: msgpack.unpackb(body, strict_map_key=False))


def pickle_codec() -> Codec:
    """A payload is pickled apart from its envelope, so that one that cannot be rebuilt costs its own call only."""
    import pickle

    def dump(value: Any) -> bytes:
        return pickle.dumps(value, protocol=4)

    return Codec("pickle", dump, pickle.loads, dump, pickle.loads)


CODECS = {"json": json_codec, "msgpack": msgpack_codec, "pickle": pickle_codec}


def first_codec(names: list[str]) -> Codec:
    """The first of *names* that this interpreter has. Raises PayloadError when there is none."""
    for name in names:
        try:
            return CODECS[name]()
        except (KeyError, ImportError):
            continue
    raise PayloadError("no codec in common: the pool offers %s" % ", ".join(names))


# -- frames -------------------------------------------------------------------------------------------------------


class Channel:
    """Frames on a blocking socket: a 4-byte big-endian length and a body."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.limit = 1 << 20  # until the handshake settles it
        self.buffer = bytearray(64 * 1024)
        self.filled = 0

    def receive(self, flags: int = 0) -> bytes | None:
        """The next frame's body. With MSG_DONTWAIT: None when no whole frame has arrived yet."""
        while True:
            if self.filled >= 4:
                (length,) = _LENGTH.unpack_from(self.buffer)
                if length > self.limit:
                    sys.exit("pool_monitor: a frame of %d bytes is over the limit of %d" % (length, self.limit))
                end = 4 + length
                if self.filled >= end:
                    body = bytes(memoryview(self.buffer)[4:end])
                    self.buffer[: self.filled - end] = self.buffer[end : self.filled]
                    self.filled -= end
                    if not self.filled and len(self.buffer) > 1 << 20:
                        self.buffer = bytearray(64 * 1024)  # one large call does not keep its memory
                    return body
                if len(self.buffer) < end:
                    self.buffer.extend(bytes(end - len(self.buffer)))
            try:
                with memoryview(self.buffer) as view:
                    count = self.sock.recv_into(view[self.filled :], 0, flags)
            except BlockingIOError:
                return None
            except ConnectionError:
                raise ParentGone from None
            if not count:
                raise ParentGone
            self.filled += count

    def send(self, body: bytes) -> None:
        try:
            self.sock.sendall(_LENGTH.pack(len(body)) + body)
        except ConnectionError:
            raise ParentGone from None


# -- the target ---------------------------------------------------------------------------------------------------


def load_target(target: str, path: list[str], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Import ``module:attribute`` or ``file.py:attribute``; a class is instantiated."""
    where, _, attribute = target.rpartition(":")
    sys.path[:] = path + [entry for entry in sys.path if entry not in path]
    if where.endswith(".py"):
        module = _load_file(where)
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name and (where == error.name or where.startswith(error.name + ".")):
                raise LookupError(
                    "no module named %r (looked for %r in %s)" % (error.name, target, ", ".join(sys.path))
                ) from None
            raise
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part) and hasattr(found, "__path__"):  # a package need not have imported all its modules
            name = "%s.%s" % (found.__name__, part)
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        if not hasattr(found, part):
            public = sorted(name for name in dir(found) if not name.startswith("_"))
            raise LookupError("%s has no attribute %r; it has %s" % (where, attribute, ", ".join(public) or "none"))
        found = getattr(found, part)
    return found(*args, **kwargs) if inspect.isclass(found) else found


def _load_file(path: str) -> Any:
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        folder = os.path.dirname(path)
        there = sorted(entry for entry in os.listdir(folder) if entry.endswith(".py")) if os.path.isdir(folder) else []
        raise LookupError("no file %r; in its directory there are %s" % (path, ", ".join(there) or "no .py files"))
    name = os.path.basename(path)[:-3]
    sys.path.insert(0, os.path.dirname(path))  # so that its neighbours can be imported, as when it is run
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_METHODS = (staticmethod, classmethod, functools.partialmethod)  # descriptors that give something to call


class Operation:
    """One public function of the target."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            parameter = inspect.signature(function).parameters.get("session")
        except (TypeError, ValueError):  # some builtins have no signature
            parameter = None
        self.takes_session = parameter is not None and parameter.kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self.kind = "generator" if generator else "function"


def operations_of(target: Any) -> dict[str, Operation]:
    """The public callables of *target* by name: no classes, and of a module only what was written in it."""
    names = [name for name in dir(target) if not name.startswith("_")]
    if inspect.ismodule(target):
        names = getattr(target, "__all__", None) or [
            name for name in names if getattr(getattr(target, name), "__module__", None) == target.__name__
        ]
    found = {}
    for name in names:
        static = inspect.getattr_static(target, name, None)
        if hasattr(type(static), "__get__") and not callable(static) and not isinstance(static, _METHODS):
            continue  # a property of whatever kind: reading it would run it
        value = getattr(target, name, None)
        if callable(value) and not inspect.isclass(value):
            found[name] = Operation(value)
    return found


# -- the worker ---------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, sock: socket.socket) -> None:
        self.channel = Channel(sock)
        self.codec = json_codec()
        self.operations: dict[str, Operation] = {}
        self.session_data_limit = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None  # the asyncio task of a running coroutine operation
        self.on_loop = False  # asyncio runs it: nothing may be raised there, the task is cancelled instead
        self.cancelled = False  # while asyncio ran it
        self.call_id: int | None = None  # the call under way
        self.started = (0, 0)  # its wall and processor time then, ns
        self.interruptible = False  # the target's own code is running
        self.urgent = False  # SIGURG came while it was not
        self.backlog: collections.deque[list[Any]] = collections.deque()  # messages read while an operation ran

    # handshake

    def start(self) -> bool:
        """Shake hands and load the target. Returns False when the target could not be loaded."""
        hello = json.loads(self.receive())
        if PROTOCOL not in hello["protocols"]:
            sys.exit("pool_monitor: the pool speaks protocols %s, this worker %d" % (hello["protocols"], PROTOCOL))
        codec = first_codec(hello["codecs"])
        self.channel.limit = hello["frame_limit"]
        self.session_data_limit = hello["session_data_limit"]
        answer = {"type": "hello", "protocol": PROTOCOL, "codec": codec.name, "pid": os.getpid()}
        answer["python"] = ".".join(map(str, sys.version_info[:3]))
        self.send(answer)
        self.codec = codec
        _, target, path, init = self.codec.decode(self.receive())
        try:
            args, kwargs = self.codec.unpack(init)
            self.operations = operations_of(load_target(target, path, args, kwargs))
            if not self.operations:
                raise LookupError("%s has no public functions or methods" % target)
        except BaseException as error:
            self.channel.send(self.failure(0, "operation", error))
            return False
        self.send(["ready", {name: operation.kind for name, operation in self.operations.items()}])
        return True

    def receive(self) -> bytes:
        body = self.channel.receive()
        assert body is not None  # it blocks
        return body

    def send(self, message: Any) -> None:
        self.channel.send(self.codec.encode(message))

    # messages

    def serve(self) -> None:
        """Answer messages until the parent says stop or goes away."""
        signal.signal(signal.SIGURG, self.on_urgent)
        while True:
            message = self.backlog.popleft() if self.backlog else self.codec.decode(self.receive())
            if message[0] == "call":
                self.call(*message[1:])
            else:
                self.control(message)

    def control(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "ping":
            self.send(["pong", message[1], self.call_id])
        elif kind == "cancel":
            if message[1] == self.call_id:
                self.cancel()
        elif kind == "stop":
            if self.call_id is not None:
                self.backlog.append(message)
            else:
                raise ParentGone
        else:
            sys.exit("pool_monitor: unknown message %r" % (kind,))

    def on_urgent(self, _signal: int, _frame: Any) -> None:
        self.urgent = True
        if self.interruptible:
            self.read_urgent()

    def read_urgent(self) -> None:
        """Read what has arrived while an operation runs. Raises OperationCancelled when that is its end."""
        self.urgent = False
        self.interruptible, before = False, self.interruptible
        try:
            while True:
                body = self.channel.receive(socket.MSG_DONTWAIT)
                if body is None:
                    return
                message = self.codec.decode(body)
                if message[0] == "call":
                    self.backlog.append(message)
                else:
                    self.control(message)
        finally:
            self.interruptible = before

    def cancel(self) -> None:
        if not self.on_loop:
            raise OperationCancelled
        self.cancelled = True
        if self.task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)

    # calls

    def call(self, call_id: int, name: str, payload: Any, stream: bool, session: list[Any] | None) -> None:
        """Run one operation and send exactly one of ``reply``, ``end`` and ``error``."""
        self.call_id = call_id
        self.started = time.perf_counter_ns(), time.process_time_ns()
        try:
            body = self.answer(call_id, name, payload, stream, session)
        except ParentGone:
            raise
        except (OperationCancelled, asyncio.CancelledError) as error:
            body = self.failure(call_id, "cancelled", error)
        except PayloadError as error:
            body = self.failure(call_id, "payload", error)
        except BaseException as error:  # SystemExit too: it is the operation that failed, not the worker
            body = self.failure(call_id, "operation", error)
        self.interruptible = False  # again: the exception may have come before the line that says so
        self.call_id = None
        flush_output()
        self.channel.send(body)

    def answer(self, call_id: int, name: str, payload: Any, stream: bool, session: list[Any] | None) -> bytes:
        """Run the operation; the encoded ``reply`` or ``end``."""
        operation = self.operations.get(name)
        if operation is None:
            raise LookupError("no operation %r; there are %s" % (name, ", ".join(sorted(self.operations))))
        args, kwargs = self.unpack("the arguments", payload)
        state = None
        if session is not None and operation.takes_session:
            state = kwargs["session"] = Session(session[0], self.codec.unpack(session[1]))
        result = self.run(operation.function, args, kwargs)
        if stream:
            self.run_stream(call_id, result)
            result = None
        times = self.times()
        data = None if state is None else self.pack_session(state.data)
        packed = self.pack("the result", result)
        return self.encode("the result", ["end" if stream else "reply", call_id, packed, data, times])

    def failure(self, call_id: int, kind: str, error: BaseException) -> bytes:
        texts, times = describe(error), self.times()
        body = self.codec.encode(["error", call_id, kind, *texts, times])
        if len(body) > self.channel.limit:  # a short report rather than none; a character takes 12 bytes at most
            room = self.channel.limit // 48
            body = self.codec.encode(["error", call_id, kind, *(text[:room] for text in texts), times])
        return body

    def times(self) -> list[int]:
        return [time.perf_counter_ns() - self.started[0], time.process_time_ns() - self.started[1]]

    def run(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The target's code, and nothing else, is interruptible."""
        try:
            self.interruptible = True
            if self.urgent:
                self.read_urgent()
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = self.run_async(result)
            return result
        finally:
            self.interruptible = False

    def run_async(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self.cancelled = False
        self.on_loop = True
        try:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
            self.task = self.loop.create_task(coroutine)
            if self.cancelled:  # before there was a task
                self.task.cancel()
            result = self.loop.run_until_complete(self.task)
        finally:
            self.task = None
            self.on_loop = False
        if self.cancelled:  # after the task had ended
            raise OperationCancelled
        return result

    def run_stream(self, call_id: int, result: Any) -> None:
        """Send every item of a generator; a cancel closes it."""
        if inspect.isasyncgen(result):
            step: Callable[[Any], Any] = _step_async
            close: Callable[[Any], Any] = _close_async
        elif hasattr(result, "__next__"):
            step, close = _step, _close
        else:
            raise PayloadError("it returned a %s, which is no generator: call it with run()" % type(result).__name__)
        try:
            while True:
                item = self.run(step, (result,), {})
                if item is _END:
                    return
                self.channel.send(self.encode("an item", ["item", call_id, self.pack("an item", item)]))
        finally:
            self.run(close, (result,), {})

    # payloads

    def unpack(self, what: str, packed: Any) -> Any:
        try:
            return self.codec.unpack(packed)
        except Exception as error:
            raise PayloadError("%s cannot be rebuilt: %s" % (what, _text(error))) from error

    def pack(self, what: str, value: Any) -> Any:
        try:
            return self.codec.pack(value)
        except Exception as error:
            raise self.not_carried(what, error) from error

    def encode(self, what: str, message: Any) -> bytes:
        try:
            body = self.codec.encode(message)
        except Exception as error:
            raise self.not_carried(what, error) from error
        if len(body) > self.channel.limit:
            raise PayloadError(
                "%s takes %d bytes, over the frame limit of %d; raise frame_limit or return less"
                % (what, len(body), self.channel.limit)
            )
        return body

    def not_carried(self, what: str, error: Exception) -> PayloadError:
        return PayloadError("%s cannot be carried as %s: %s" % (what, self.codec.name, _text(error)))

    def pack_session(self, data: dict[str, Any]) -> Any:
        if not isinstance(data, dict):
            raise PayloadError("session.data is to be a dict, not %r" % type(data).__name__)
        packed = self.pack("session.data", data)
        size = len(self.encode("session.data", packed))
        if size > self.session_data_limit:
            raise PayloadError(
                "session.data takes %d bytes, over the limit of %d; keep less in it or raise session_data_limit"
                % (size, self.session_data_limit)
            )
        return packed


_END = object()


def _step(generator: Any) -> Any:
    return next(generator, _END)


def _close(generator: Any) -> None:
    if hasattr(generator, "close"):  # an iterator that is no generator need not have it
        generator.close()


async def _close_async(generator: Any) -> None:
    await generator.aclose()


async def _step_async(generator: Any) -> Any:
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        return _END


def describe(error: BaseException) -> list[str]:
    """An exception as type name, message and traceback, without the frames of this file."""
    if isinstance(error, PayloadError):
        return [type(error.__cause__ or error).__name__, _text(error), ""]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace))
    return [type(error).__name__, _text(error), _clean(lines[-_TEXT_LIMIT:])]


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error)[:_TEXT_LIMIT])
    except Exception:
        return "(its __str__ failed)"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates have no UTF-8 form


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # the target may have replaced or closed it
            stream.flush()


def tie_life_to(fd: int) -> socket.socket:
    """Have the kernel kill this process group when the other end of *fd* closes. See the theory of operation."""
    owner = -os.getpgrp() if os.getpgrp() == os.getpid() else os.getpid()
    fcntl.fcntl(fd, fcntl.F_SETOWN, owner)
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    else:  # elsewhere than on Linux SIGIO is ignored by default, and this works only between bytecodes
        signal.signal(signal.SIGIO, lambda *_: os._exit(1))
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    lifeline = socket.socket(fileno=fd)
    try:
        if lifeline.recv(1, socket.MSG_DONTWAIT) == b"":
            os._exit(1)  # the parent went before the kernel was told to watch
    except BlockingIOError:
        pass
    return lifeline


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]  # our directory, put there because this file is run by path: not the target's business
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    fds = [int(os.environ.pop(name)) for name in ("POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE")]
    for fd in fds:
        os.set_inheritable(fd, False)
    lifeline = tie_life_to(fds[1])
    worker = Worker(socket.socket(fileno=fds[0]))
    try:
        if worker.start():
            worker.serve()
    except ParentGone:
        pass
    finally:
        flush_output()
        lifeline.detach()  # stays open until the very end of the process


if __name__ == "__main__":
    main()
