"""Workers as processes of this machine: spawned by path, spoken to over a socketpair, reaped here.

Nothing of it uses threads, polling or the descriptors 0 to 2: a process descriptor tells when the process has
ended, and stdin, stdout and stderr are the target's. Each worker leads a process group of its own, so that what it
starts can be ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor.errors import PayloadError, StartError
from pool_monitor.pool.transport.base import CallTimes, Failure, Ready, Sink
from pool_monitor.pool.transport.child import PROTOCOL
from pool_monitor.pool.transport.child.codec import CODECS, LARGE, Codec
from pool_monitor.pool.transport.child.framing import FrameError, FrameReader
from pool_monitor.pool.transport.child.telemetry import LEVELS, OURS
from pool_monitor.pool.transport.launch import Launch, Launcher, import_path
from pool_monitor.pool.transport.output import Output
from pool_monitor.pool.transport.shared import SharedFile
from pool_monitor.pool.transport.spawn import Process, exit_words, socketpair
from pool_monitor.pool.transport.wire import Wire
from pool_monitor.pool.transport.zygote import ZygoteGoneError

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer

__all__ = ["Launch", "ProcessTransport", "exit_words", "import_path"]

_TAIL_LINES = 20  # of stderr, kept for the report of a crash
_LOOK_AGAIN = 0.02  # seconds after which a busy worker is signalled a second time
_SOCKETS = ("POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE")  # in this order in ``_sockets``
_TIDY_AFTER = 1.0  # seconds without a large message, after which the memory for them is given back
_FROM_CONSTRUCTORS = ("event", "log", "dropped", "returned")  # what may come before a worker is ready
_ANSWERS = ("reply", "end", "error")
_KINDS = {"function", "generator"}
_LONGEST = 2**63  # nanoseconds and bytes below it are believed
_UNREADABLE = (Exception, SystemExit, asyncio.CancelledError)  # all that decoding what a worker sent can raise
_LAST_BYTES = 0.25  # seconds an ended worker's socket may stay open in a process it left behind


class ProcessTransport:
    """One worker process. A `Transport`; what happens to it is told to *sink*."""

    def __init__(self, launch: Launch, sink: Sink, launcher: Launcher | None = None) -> None:
        self._launch = launch
        self._launcher = launcher or Launcher(launch._replace(start_method="exec"))
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._codec: Codec = CODECS["json"]()
        self._reader = FrameReader(launch.frame_limit)
        self._transport: Wire | None = None
        self._shared: SharedFile | None = None  # until the worker has ended, or says that it makes no use of it
        self._begun: int | None = None  # what the shared memory said last
        self._unanswered: dict[int, None] = {}  # calls handed over, in this order
        self._broken = False  # it spoke nonsense: what else it says is taken only as far as it can be trusted
        self._tidying: asyncio.TimerHandle | None = None
        self._large = False  # a large message came or went since it was last looked at
        self._launching: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._killed = False
        self._sockets: list[socket.socket] = []  # our ends: the channel and the life-line
        self._outputs: list[Output] = []
        self._stderr: deque[str] = deque(maxlen=_TAIL_LINES)
        self._greeting: asyncio.Future[Any] | None = None  # what the handshake waits for
        self._gone: asyncio.Future[int | None] = self._loop.create_future()
        self._disconnected = False
        self._receive: Callable[[Any], None] = self._greeted

    # -- start ----------------------------------------------------------------------------------------------------

    async def start(self) -> Ready:
        launch = self._launch
        await self._begin()
        self._transport = Wire(self._sockets[0], self._reader, self._received, self._connection_lost)
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
            codec, python = CODECS[hello["codec"]](), str(hello["python"])
        except (KeyError, TypeError, ValueError) as error:
            raise StartError(f"the worker answered the handshake with {hello!r:.200}") from error
        self._codec = codec
        if hello.get("shared") is not True:
            self._forget_shared()
        args, kwargs = launch.init
        options = {"concurrency": launch.concurrency}
        try:
            init = codec.encode(["init", launch.target, launch.path, codec.pack([list(args), dict(kwargs)]), options])
        except Exception as error:  # whatever an encoder raises for what it cannot carry
            raise StartError(f"init_args and init_kwargs cannot be carried as {codec.name}: {error}") from error
        self._write(init)
        match await self._next():
            case ["ready", dict(operations)] if operations and set(operations.values()) <= _KINDS:
                if self._gone.done():  # as soon as it was ready
                    raise self._never_started()
                self._receive = self._message
                assert self._process is not None
                return Ready(self._process.pid, python, codec.name, operations)
            case ["error", 0, _, str(type_name), str(text), str(traceback), _]:
                raise StartError(f"cannot load {launch.target!r}: {type_name}: {text}", traceback)
            case other:
                raise StartError(f"the worker answered init with {other!r:.200}")

    async def _begin(self) -> None:
        """Have the process started, unless `kill` comes first."""
        self._launching = self._loop.create_task(self._launched())
        if self._killed:
            self._launching.cancel()
        try:
            await self._launching
        except BaseException as error:
            if self._process is None:
                self._finish(None)
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and self._killed and not (task and task.cancelling()):
                raise StartError("the worker was ended before it was ready") from None
            raise
        if self._gone.done():
            raise self._never_started()

    async def _launched(self) -> None:
        """Start the process with its ends of the channel and the life-line; ours stay in ``_sockets``."""
        try:
            process = self._process = await self._launch_once()
        except ZygoteGoneError:
            for sock in self._sockets:
                sock.close()  # the end of a worker there may be
            self._sockets.clear()
            process = self._process = await self._launch_once()
        process.on_end = self._ended
        for fd, line in ((process.stdout, self._stdout_line), (process.stderr, self._stderr_line)):
            self._outputs.append(Output(self._loop, fd, line))
        if process.ended:  # already
            self._ended()

    async def _launch_once(self) -> Process:
        with contextlib.ExitStack() as theirs:
            try:
                fds = {name: theirs.enter_context(self._socketpair()).fileno() for name in _SOCKETS}
            except OSError as error:  # no descriptor left
                raise StartError(f"cannot start a worker: {error}") from error
            fds |= theirs.enter_context(self._share())
            return await self._launcher.start(fds)

    def _socketpair(self) -> socket.socket:
        ours, theirs = socketpair()
        self._sockets.append(ours)
        return theirs

    @contextlib.contextmanager
    def _share(self) -> Iterator[dict[str, int]]:
        """The descriptor of the memory the worker is to share with us, if there can be one."""
        self._forget_shared()
        try:
            self._shared = shared = SharedFile(self._launch.frame_limit)
        except OSError:  # no room, no descriptor left: it also works without
            yield {}
            return
        try:
            yield {"POOL_MONITOR_SHARED": shared.fd}
        finally:
            shared.close_fd()

    def _forget_shared(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    async def _next(self) -> Any:
        """The next message of the handshake."""
        self._greeting = self._loop.create_future()
        if self._gone.done():
            raise self._never_started()
        return await self._greeting

    def _greeted(self, message: Any) -> None:
        if type(message) is list and message and message[0] in _FROM_CONSTRUCTORS:
            self._message(message)
        elif self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(message)

    def _never_started(self) -> StartError:
        code = self._gone.result() if self._gone.done() else None
        program, needed = self._launcher.program
        how = f"the worker, {program!r}, ended before it was ready ({exit_words(code)})"
        tail = "\n".join(self._stderr)
        return StartError(f"{how}; its last lines on stderr:\n{tail}" if tail else f"{how}; {needed}")

    # -- sending --------------------------------------------------------------------------------------------------

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any], *,
        stream: bool, session: tuple[str, dict[str, Any]] | None,
    ) -> None:  # fmt: skip
        codec = self._codec
        pieces: Sequence[Buffer] = ()
        try:
            state = None if session is None else [session[0], codec.pack(session[1])]
            message = ["call", call_id, operation, codec.pack([args, kwargs]), stream, state]
            for value in args:
                if type(value) is bytes and len(value) >= LARGE:
                    pieces = codec.pieces(message)
                    break
            body = b"" if pieces else codec.encode(message)
        except Exception as error:  # whatever an encoder raises for what it cannot carry
            text = f"the arguments cannot be carried as {codec.name}: {error}"
            raise PayloadError(operation, type(error).__name__, text) from error
        size = sum(map(len, pieces)) if pieces else len(body)
        if size > self._launch.frame_limit:
            text = f"the arguments take {size} bytes, over the frame limit of {self._launch.frame_limit}"
            raise PayloadError(operation, "PayloadError", f"{text}; raise frame_limit or send less")
        unanswered, wire = self._unanswered, self._transport
        if wire is not None:
            if size >= LARGE:
                self._send_large(pieces or (body,), size)
            elif unanswered:
                wire.join(body)
            else:
                wire.send(body)
        unanswered[call_id] = None

    @property
    def begun(self) -> int | None:
        return self._begun if self._shared is None else self._shared.memory.begun

    def recall(self, call_ids: Sequence[int]) -> None:
        if self._shared is None:
            return  # it never had one that it had not begun
        if call_ids:
            self._urgent(["recall", list(call_ids)])
        elif self._shared.memory.held_back():
            self._look()  # it may be busy longer than it thought, with answers in its outbox

    def cancel(self, call_id: int) -> None:
        self._urgent(["cancel", call_id])

    def ping(self, token: int) -> None:
        self._urgent(["ping", token])

    def flow(self, *, paused: bool) -> None:
        if self._transport is not None:
            (self._transport.pause if paused else self._transport.resume)()

    def hold(self, call_id: int, *, held: bool) -> None:
        self._send(["pause" if held else "resume", call_id])

    def _send(self, message: Any) -> None:
        self._write(self._codec.encode(message))

    def _write(self, body: bytes) -> None:
        if self._transport is not None:
            self._transport.send(body)

    def _send_large(self, pieces: Sequence[Buffer], size: int) -> None:
        assert self._transport is not None
        self._note_large()
        if self._shared is not None and self._shared.memory.lend(pieces, size):
            self._send(["lent", size])
        else:
            self._transport.send_pieces(pieces, size)

    def _urgent(self, message: Any) -> None:
        """Send to a worker that may be busy: the signal makes it look (see child/). Ignored by default."""
        self._send(message)
        self._look()
        # In the instant before a system call that blocks, a signal goes unseen until that call returns.
        self._loop.call_later(_LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._signal(signal.SIGURG, group=False)

    # -- receiving ------------------------------------------------------------------------------------------------

    def _received(self, count: int) -> None:
        broken: FrameError | None = None
        try:
            bodies: Sequence[memoryview] = self._reader.received(count)
        except FrameError as error:
            bodies, broken = error.before, error
        for index, body in enumerate(bodies):
            if self._broken:
                self._salvage(bodies[index:])
                break
            try:
                self._receive(self._decode(body))
            except FrameError as error:
                self._break(str(error))
            if self._disconnected:
                return
        if broken is not None:
            self._break(str(broken), readable=False)

    def _decode(self, body: memoryview) -> Any:
        try:
            return self._codec.decode(body)
        except _UNREADABLE as error:  # what follows cannot be trusted
            raise FrameError(f"a frame that is no {self._codec.name}: {error}") from error

    def _connection_lost(self) -> None:
        if not self._disconnected:
            self._empty_outbox()
        self._disconnected = True
        if self._gone.done() or self._process is None:
            return
        if not self._process.ended:
            self.kill()  # it is about to end; or it closed the channel and lives on, of no use to anybody
        else:
            self._finish(self._process.returncode)

    def _empty_outbox(self) -> None:
        """Take the answers that the worker held back and came to send no more. Some may have come twice."""
        if self._shared is None or self._receive != self._message:
            return
        reader = FrameReader(self._launch.frame_limit)
        held = self._shared.memory.held_back()
        reader.space()[: len(held)] = held
        try:
            bodies: Sequence[memoryview] = reader.received(len(held))
        except FrameError as error:  # it may have ended because it writes where it should not
            bodies = error.before
        self._salvage(bodies)

    def _salvage(self, bodies: Iterable[memoryview]) -> None:
        """Take the answers among these: they are of other calls than the one that went wrong."""
        for body in bodies:
            with contextlib.suppress(FrameError):
                message = self._decode(body)
                answer = type(message) is list and len(message) > 1 and message[0] in _ANSWERS
                if answer and message[1] in self._unanswered:
                    self._message(message)

    def _message(self, message: Any) -> None:
        """One message of a worker at work. Raises for one that the protocol does not know."""
        match message:
            # The order matters: a pattern costs what it looks at before it fails, and nearly all are replies. Of
            # those only the outside is matched, because matching all of it takes longer than decoding it.
            case ["reply" | "end", call_id, packed, data, times] if type(call_id) is int:
                self._reply(call_id, packed, data, _times(times))
            case ["item", int(call_id), packed]:
                self._item(call_id, packed)
            case ["error", int(call_id), str(kind), str(name), str(text), str(trace), times]:
                self._unanswered.pop(call_id, None)
                self._sink.failed(call_id, Failure(kind, name, text, trace), _times(times))
            case ["pong", int(token), int() | None as call_id, int() | None as rss]:
                self._sink.ponged(token, call_id, rss)
            case ["recalled", int(call_id)]:
                self._unanswered.pop(call_id, None)
                self._sink.recalled(call_id)
            case ["lent", int(length)] if self._shared is not None:
                self._borrow(length)
            case ["returned"] if self._shared is not None:
                self._shared.memory.returned()
            case ["event", [str(), *_] as event, dict(numbers), dict(about)] if _is_event(event, numbers):
                self._sink.emitted(tuple(event), numbers, about)
            case ["log", str(level), str(text), dict(fields)] if level in LEVELS:
                self._sink.logged(level, text, fields)
            case ["dropped", int(count)] if count > 0 and count is not True:
                self._sink.dropped(count)
            case other:
                raise FrameError(f"unknown message {other!r:.200}")

    def _borrow(self, length: int) -> None:
        """Read the message that the worker lends, and give it back."""
        assert self._shared is not None
        self._note_large()
        try:
            body = self._shared.memory.borrowed(length)
        except ValueError as error:
            raise FrameError(str(error)) from error
        message = self._decode(body)
        if self._transport is not None:
            self._transport.join(self._codec.encode(["returned"]))  # with the next call, if there is one this turn
        if type(message) is list and message and message[0] in ("lent", "returned"):
            raise FrameError("a message about lending, lent")
        self._message(message)

    def _note_large(self) -> None:
        self._large = True
        if self._tidying is None:
            self._tidying = self._loop.call_later(_TIDY_AFTER, self._tidy)

    def _tidy(self) -> None:
        """Give back the memory for large messages, when there were none for a while."""
        self._tidying = None
        if self._large:
            self._large = False
            self._tidying = self._loop.call_later(_TIDY_AFTER, self._tidy)
            return
        self._reader.give_back()
        if self._shared is not None:
            self._shared.memory.give_back()

    def _reply(self, call_id: int, packed: Any, data: Any, times: CallTimes) -> None:
        try:
            result, state = self._codec.unpack(packed), None if data is None else self._codec.unpack(data)
        except _UNREADABLE as error:  # a pickle that cannot be rebuilt here: only that call fails
            self._unanswered.pop(call_id, None)
            text = f"the result cannot be rebuilt: {error}"
            self._sink.failed(call_id, Failure("payload", type(error).__name__, text, ""), times)
        else:
            if state is not None and type(state) is not dict:
                raise FrameError(f"session data that is no dict: {state!r:.200}")
            self._unanswered.pop(call_id, None)
            self._sink.replied(call_id, result, state, times)

    def _item(self, call_id: int, packed: Any) -> None:
        try:
            value = self._codec.unpack(packed)
        except _UNREADABLE as error:  # as above, but there is no way to go on with the stream
            raise FrameError(f"an item cannot be rebuilt: {error}") from error
        self._sink.item(call_id, value)

    def _break(self, reason: str, *, readable: bool = True) -> None:
        """It spoke nonsense, and is ended. Answers to other calls than the one under way are taken, as long as what
        it says is *readable*: where one frame ends and the next begins is known.
        """
        if not self._broken and self._receive == self._message:
            self._broken = True
            self._unanswered.pop(next(iter(self._unanswered), 0), None)
            self._sink.broke(reason)
            self.kill()
            if readable:
                return
        if self._broken:
            self._empty_outbox()
        self._disconnected = True
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(StartError(f"the worker broke the protocol: {reason}"))
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
        if self._process is None:  # nor has it come into being: there is nobody a signal could reach
            self.kill()
        elif self._receive == self._message:
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
        self._killed = True
        self._signal(signal.SIGKILL, group=True)
        if self._process is None and self._launching is not None:
            self._launching.cancel()

    def abandon(self) -> None:
        self.kill()
        if self._process is not None:
            self._process.wait(1.0)
        if self._launching is not None:
            self._finish(None if self._process is None else self._process.returncode)

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        if self._process is not None:
            self._process.signal(number, group=group)

    def _ended(self) -> None:
        """The process has ended and is reaped."""
        assert self._process is not None
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
        self._begun = self.begun
        self._forget_shared()
        if self._tidying is not None:
            self._tidying.cancel()
        self._gone.set_result(exit_code)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(self._never_started())
        self._sink.gone(exit_code, "\n".join(self._stderr))


def _times(times: Any) -> CallTimes:
    """Raises FrameError for what is none."""
    if type(times) is list and len(times) >= 2:
        wall, cpu, growth = times[0], times[1], times[2] if len(times) > 2 else None
        if _is_amount(wall) and (cpu is None or _is_amount(cpu)) and (growth is None or _is_amount(growth)):
            return CallTimes(wall, cpu, growth)
    raise FrameError(f"no times: {times!r:.200}")


def _is_amount(number: Any) -> bool:
    return type(number) is int and 0 <= number < _LONGEST


def _is_event(event: list[Any], measurements: dict[Any, Any]) -> bool:
    return (
        event[0] not in OURS
        and all(type(part) is str and part for part in event)
        and all(type(key) is str and type(value) in (int, float) for key, value in measurements.items())
        and all(value - value == 0 for value in measurements.values())  # nor infinite, nor no number
    )
