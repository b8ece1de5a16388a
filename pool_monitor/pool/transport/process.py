"""Workers as processes of this machine: spawned by path, spoken to over pipes or a socket, reaped here.

Nothing of it uses threads, polling or the descriptors 0 to 2: a process descriptor tells when the process has
ended, and stdin, stdout and stderr are the target's. Each worker leads a process group of its own, so that what it
starts can be ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from pool_monitor.errors import PayloadError, StartError
from pool_monitor.log import logger
from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.base import Ready, Sink
from pool_monitor.pool.transport.channel import Channel
from pool_monitor.pool.transport.child.codec import CODECS, LARGE
from pool_monitor.pool.transport.child.framing import FrameError, FrameReader
from pool_monitor.pool.transport.child.memory_usage import expect_large
from pool_monitor.pool.transport.inbox import Inbox
from pool_monitor.pool.transport.launcher import Launch, Launches, import_path
from pool_monitor.pool.transport.output_lines import Output
from pool_monitor.pool.transport.shared_memory import SharedFile, apart
from pool_monitor.pool.transport.spawn import Process, exit_words
from pool_monitor.pool.transport.wire import Wire
from pool_monitor.pool.transport.zygote import ZygoteGoneError

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer

__all__ = ["Launch", "ProcessTransport", "exit_words", "import_path"]

_TAIL_LINES = 20  # of stderr, kept for the report of a crash
_LOOK_AGAIN = 0.02  # seconds after which a busy worker is signalled a second time
_TIDY_AFTER = 1.0  # seconds without a large message, after which the memory for them is given back
_FROM_CONSTRUCTORS = ("event", "log", "dropped", "returned")  # what may come before a worker is ready
_HELLO_LIMIT = 1 << 20  # bytes of a frame before the handshake
_UNTAKEN = 1000  # messages not returned to a worker that goes on lending, or returned ones of which it is not told yet
_AT_ONCE = 8  # large results at once for which memory is not asked of the system each time
_CLOSING = 0.1  # seconds in which a process that has closed the channel ends by itself, if it is ending
_LAST_BYTES = 0.25  # seconds an ended worker's channel may stay open in a process it left behind


class ProcessTransport:
    """One worker process. A `Transport`; what happens to it is told to *sink*."""

    def __init__(self, launch: Launch, sink: Sink, launcher: Launches) -> None:
        self._launch = launch
        self._launcher = launcher
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox = Inbox(sink, CODECS["json"](), launch.session_data_limit)
        self._reader = FrameReader(min(launch.frame_limit, _HELLO_LIMIT))
        self._transport: Wire | None = None
        self._shared: SharedFile | None = None  # until the worker has ended, or says that it makes no use of it
        self._begun: int | None = None  # what the shared memory said last
        self._reading = 0
        self._takes_context = False  # context variables may go with its calls
        self._leaving = False  # it was asked to end
        self._hung_up = False  # it was killed because it had closed the channel
        self._broken = False  # it spoke nonsense: what else it says is taken only as far as it can be trusted
        self._tidying: asyncio.TimerHandle | None = None
        self._borrowed: deque[weakref.ref[Any] | None] = deque()  # what it lent, oldest first: None, or what views it
        self._untaken: deque[int] = deque()  # what has been returned: as of when that has gone (`Wire.passed`)
        self._large = False  # a large message came or went since it was last looked at
        self._launching: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._killed = False
        self._channel = Channel(-1, -1)
        self._ours = contextlib.ExitStack()  # our ends of the channel and the life-line, until it is gone
        self._outputs: list[Output] = []
        self._stderr: deque[str] = deque(maxlen=_TAIL_LINES)
        self._greeting: asyncio.Future[Any] | None = None  # what the handshake waits for
        self._gone: asyncio.Future[int | None] = self._loop.create_future()
        self._disconnected = False
        self._several = False  # messages came at once, last time: as many calls are likely to follow together
        self._receive: Callable[[memoryview], None] = self._greeted

    # -- start ----------------------------------------------------------------------------------------------------

    async def start(self) -> Ready:
        await self._begin()
        self._transport = Wire(
            self._channel, self._reader,
            received=self._received, deaf=self._connection_broken, lost=self._connection_lost,
        )  # fmt: skip
        try:
            return await self._shake_hands()
        except FrameError as error:
            raise StartError(f"the worker broke the protocol: {error}") from error

    async def _shake_hands(self) -> Ready:
        launch = self._launch
        self._send(messages.offer(launch.codecs, launch.frame_limit, launch.session_data_limit))
        hello = messages.hello(await self._next(), launch.codecs)
        codec = CODECS[hello.codec]()
        self._inbox.use(codec)
        self._takes_context = hello.context
        self._reader.limit = launch.frame_limit
        if not hello.shared:
            self._forget_shared()
        elif self._shared is not None:
            self._shared.memory.offsets = hello.offsets
        args, kwargs = launch.init
        payload = [list(args), dict(kwargs)]
        try:
            init = codec.encode(["init", launch.target, launch.path, codec.pack(payload), launch.options])
        except BaseException as error:  # whatever an encoder raises for what it cannot carry
            messages.pass_on(error)
            raise StartError(
                f"init_args and init_kwargs cannot be carried as {codec.name}: {messages.text_of(error)}"
            ) from error
        self._write(init)
        match await self._next():
            case ["ready", found]:
                operations = messages.operations(found)
                if self._gone.done():  # as soon as it was ready
                    raise self._never_started()
                self._receive = self._working
                assert self._process is not None
                return Ready(self._process.pid, hello.python, codec.name, operations)
            case ["error", 0, kind, name, text, trace, _]:
                failure = messages.failure(kind, name, text, trace)
                if failure.kind == "payload":
                    raise StartError(f"init_args and init_kwargs of {launch.target!r}: {failure.message}")
                text = f"cannot load {launch.target!r}: {failure.type_name}: {failure.message}"
                raise StartError(text, failure.traceback)
            case other:
                raise FrameError(f"no answer to init: {messages.shown(other)}")

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
        """Start the process with its ends of the channel and the life-line; ours stay in ``_ours``."""
        try:
            process = self._process = await self._launch_once()
        except ZygoteGoneError:
            self._ours.close()  # the end of a worker there may be
            process = self._process = await self._launch_once()
        process.on_end = self._ended
        for fd, line in ((process.stdout, self._stdout_line), (process.stderr, self._stderr_line)):
            self._outputs.append(Output(self._loop, fd, line))
        if process.ended:  # already
            self._ended()

    async def _launch_once(self) -> Process:
        with contextlib.ExitStack() as theirs:
            try:
                self._channel, fds = self._launcher.connect(self._ours, theirs)
            except OSError as error:  # no descriptor left
                raise StartError(f"cannot start a worker: {error}") from error
            fds |= theirs.enter_context(self._share())
            return await self._launcher.start(fds)

    @contextlib.contextmanager
    def _share(self) -> Iterator[dict[str, int]]:
        """The descriptor of the memory the worker is to share with us, if there can be one."""
        self._forget_shared()
        try:
            self._shared = shared = SharedFile(self._launch.frame_limit)
            self._inbox.counters = shared.memory.counters
        except OSError:  # no room, no descriptor left: it also works without
            yield {}
            return
        try:
            yield {"POOL_MONITOR_SHARED": shared.fd}
        finally:
            shared.close_fd()

    def _forget_shared(self) -> None:
        self._inbox.counters = None
        self._borrowed.clear()  # of views that are left, no word is wanted any more
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    async def _next(self) -> Any:
        """The next message of the handshake."""
        self._greeting = self._loop.create_future()
        if self._gone.done():
            raise self._never_started()
        return await self._greeting

    def _greeted(self, body: memoryview) -> None:
        """A message of a worker that is not ready yet."""
        message = self._inbox.decode(body)
        kind = message[0] if type(message) is list and message else None
        if type(kind) is str and kind in _FROM_CONSTRUCTORS:
            self._message(message)
        elif self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(message)
        else:
            raise FrameError(f"a message that nothing asked for: {messages.shown(message)}")

    def _never_started(self) -> StartError:
        code = self._gone.result() if self._gone.done() else None
        program, needed = self._launcher.program
        how = f"the worker, {program!r}, ended before it was ready ({exit_words(code)})"
        tail = "\n".join(self._stderr)
        return StartError(f"{how}; its last lines on stderr:\n{tail}" if tail else f"{how}; {needed}")

    # -- sending --------------------------------------------------------------------------------------------------

    def call(
        self, call_id: int, operation: str, args: Sequence[Any], kwargs: Mapping[str, Any],
        stream: bool, session: tuple[str, dict[str, Any]] | None, context: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        codec = self._inbox.codec
        pieces: Sequence[Buffer] = ()
        try:
            if self._inbox.plain:
                message = ["call", call_id, operation, (args, kwargs), stream, session]
            else:
                state = None if session is None else [session[0], codec.pack(session[1])]
                message = ["call", call_id, operation, codec.pack((args, kwargs)), stream, state]
            if context is not None and self._takes_context:
                message.append({"context": codec.pack(context)})
            for value in args:
                if type(value) is bytes and len(value) >= LARGE:
                    pieces = codec.pieces(message)
                    break
            body = b"" if pieces else codec.encode(message)
        except BaseException as error:  # whatever an encoder raises for what it cannot carry
            messages.pass_on(error)
            text = messages.not_carried(codec, context, error)
            raise PayloadError(operation, type(error).__name__, text) from error
        size = sum(map(len, pieces)) if pieces else len(body)
        if size > self._launch.frame_limit:
            text = f"the arguments take {size} bytes, over the frame limit of {self._launch.frame_limit}"
            raise PayloadError(operation, "PayloadError", f"{text}; raise frame_limit or send less")
        inbox, wire = self._inbox, self._transport
        if wire is not None:
            if size >= LARGE:
                self._send_large(pieces or (body,), size)
            elif inbox.open or self._several:
                wire.join(body)
            else:
                wire.send(body)
        inbox.handed(call_id, stream)

    def flush(self) -> None:
        if self._transport is not None:
            self._transport.flush()

    @property
    def begun(self) -> int | None:
        if self._shared is None:
            return self._begun
        return max(self._shared.memory.begun, self._inbox.begun)  # it can take back what it has told

    @property
    def reading(self) -> int:
        return self._reading if self._shared is None else self._shared.memory.reading

    def recall(self, call_ids: Sequence[int]) -> None:
        if self._shared is None:
            return  # it never had one that it had not begun
        asked = self._inbox.recall(call_ids)
        if asked:
            self._urgent(["recall", asked])
        elif call_ids:
            self._look()  # it has been asked, and may not have seen it
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
        self._write(self._inbox.codec.encode(message))

    def _write(self, body: bytes) -> None:
        if self._transport is not None:
            self._transport.send(body)

    def _send_large(self, pieces: Sequence[Buffer], size: int) -> None:
        assert self._transport is not None
        self._note_large()
        lent = None if self._shared is None else self._shared.memory.lend(pieces, size)
        if lent is None:
            self._transport.send_pieces(pieces, size)
        elif self._inbox.open:
            self._transport.join(self._inbox.codec.encode(lent))
        else:
            self._send(lent)

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
        self._several = len(bodies) > 1
        try:
            self._take_in(bodies)
        finally:
            self._sink.caught_up()
        if broken is not None and not self._disconnected:
            self._break(str(broken), readable=False)

    def _take_in(self, bodies: Sequence[memoryview]) -> None:
        """The messages that arrived together, in order. Plain replies that follow each other are reported together."""
        at, end = 0, len(bodies)
        while at < end and not self._disconnected:
            if self._broken:
                self._inbox.salvage(bodies[at:])
                return
            try:
                replies = self._inbox.replies(bodies, at)
                if replies:
                    at += len(replies)
                    self._sink.returned(replies)
                else:
                    at += 1
                    self._receive(bodies[at - 1])
            except FrameError as error:
                self._break(str(error))
            except Exception as error:  # noqa: BLE001 - a defect, or no memory: it costs this worker and no other
                logger("pool").exception("a message of a worker could not be handled")
                self._break(f"a message could not be handled: {error!r:.200}")

    def _connection_lost(self) -> None:
        lost, self._disconnected = not self._disconnected, True
        if lost:
            self._empty_outbox()
        if self._gone.done() or self._process is None:
            return
        if self._process.ended:
            self._finish(self._process.returncode)
        elif self._killed:
            self.kill()
        else:
            self._connection_broken()

    def _connection_broken(self) -> None:
        """The process has closed the channel, or one way of it, or has ended."""
        self._loop.call_later(_CLOSING, self._closed_channel)

    def _closed_channel(self) -> None:
        """The process was about to end when it closed the channel; or it lives on, and is of no use."""
        if self._process is not None and not self._process.ended:
            working = self._receive == self._working
            if working and not (self._broken or self._killed or self._leaving):  # the other way may have been first
                self._hung_up = True
            self.kill()

    def _empty_outbox(self) -> None:
        """Take the answers that the worker held back and came to send no more. Some may have come twice."""
        if self._shared is None or self._receive != self._working:
            return
        reader = FrameReader(self._launch.frame_limit)
        held = self._shared.memory.held_back()
        reader.space()[: len(held)] = held
        try:
            bodies: Sequence[memoryview] = reader.received(len(held))
        except FrameError as error:  # it may have ended because it writes where it should not
            bodies = error.before
        self._inbox.salvage(bodies)

    def _working(self, body: memoryview) -> None:
        """A message of a worker at work. Raises FrameError for one that the protocol does not know."""
        about_lending = self._inbox.receive(body)
        if about_lending is not None:
            self._lending(about_lending)

    def _message(self, message: Any) -> None:
        """The same of one that is decoded."""
        if not self._inbox.take(message):
            self._lending(message)

    def _lending(self, message: list[Any]) -> None:
        if message[0] == "lent":
            self._borrow(*message[1:])
        else:
            self._returned()

    def _returned(self) -> None:
        """The worker has read what was lent."""
        if self._shared is None or not self._shared.memory.lent:
            raise FrameError("something was returned that had not been lent")
        self._shared.memory.returned()

    def _borrow(self, length: Any, offset: Any = 0) -> None:
        """Read the message that the worker lends, and give it back, if its value is not to be read where it lies."""
        shared = self._shared
        if shared is None:
            raise FrameError("a message was lent without shared memory")
        if max(self._count_untaken(), len(self._borrowed)) > _UNTAKEN:
            raise FrameError("it goes on lending and does not read what is returned")
        self._note_large()
        try:
            lent = shared.memory.borrowed(length, offset)
        except ValueError:
            place = f"{messages.shown(length)} bytes at {messages.shown(offset)}"
            raise FrameError(f"{place} cannot have been lent") from None
        viewed = None
        with lent:
            body, start, end = apart(lent)
            message = self._inbox.decode(memoryview(body), length)
            if end and self._sink.takes_view(message[1]):
                viewed = shared.view(offset + start, offset + end, self._unviewed)
            if viewed is None:
                expect_large(length, _AT_ONCE)
            if end:
                message[2] = bytes(lent[start:end]) if viewed is None else viewed[0]
        self._borrowed.append(None if viewed is None else viewed[1])
        self._return()
        if type(message) is list and message and message[0] in ("lent", "returned"):
            raise FrameError("a message about lending, lent")
        self._message(message)

    def _unviewed(self, _view: Any) -> None:
        """Something that was lent is viewed no more. Called in any thread, at any moment."""
        here = threading.get_ident() == self._thread
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(self._return)

    def _return(self) -> None:
        """Return what was lent and is read, in the order it was lent."""
        borrowed = self._borrowed
        while borrowed and (borrowed[0] is None or borrowed[0]() is None):
            borrowed.popleft()
            if self._transport is not None:  # with the next call, if one comes this turn
                self._untaken.append(self._transport.passed + self._transport.waiting)
                self._transport.join(self._inbox.codec.encode(["returned"]))

    def _count_untaken(self) -> int:
        """Messages that were returned, and of which the worker is not told while there is no room in the channel."""
        wire, untaken = self._transport, self._untaken
        if wire is None or not wire.waiting:
            untaken.clear()
        else:
            while untaken and untaken[0] < wire.passed:
                untaken.popleft()
        return len(untaken)

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

    def _break(self, reason: str, *, readable: bool = True) -> None:
        """It spoke nonsense, and is ended. Answers to other calls than the one under way are taken, as long as what
        it says is *readable*: where one frame ends and the next begins is known.
        """
        if not self._broken and self._receive == self._working:
            self._broken = True
            self._inbox.forget_first()
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
        elif self._receive == self._working:
            self._leaving = True
            self._send(["stop"])
        else:
            grace = 0.0  # it has not come so far as to understand
        for patience, number in ((grace, signal.SIGTERM), (kill_grace, signal.SIGKILL)):
            with anyio.move_on_after(patience):  # not asyncio's, which needs Python 3.11.4 in a task that is cancelled
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
        self._ours.close()
        self._begun, self._reading = self.begun, self.reading
        self._forget_shared()
        self._reader.let_go()  # what is left of a worker may stay until it is collected, in a circle of references
        if self._tidying is not None:
            self._tidying.cancel()
        self._gone.set_result(exit_code)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(self._never_started())
        if self._hung_up and exit_code == -signal.SIGKILL:  # else it was ending by itself, and took its time
            self._sink.broke("it closed the channel and went on")
        self._sink.gone(exit_code, "\n".join(self._stderr))
