"""Workers as processes of this machine: started by path, connected by pipes or a socket, and reaped here.

No threads, no polling: a process descriptor becomes readable when the process has ended. The descriptors 0 to 2 are
left to the target. Each worker leads its own process group, so that the processes it starts are ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from pool_monitor.errors import PayloadError, StartError
from pool_monitor.log import logger
from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.channel import ChannelEnds
from pool_monitor.pool.transport.child.codec import CODECS, LARGE
from pool_monitor.pool.transport.child.framing import FrameError, FrameReader
from pool_monitor.pool.transport.exiting import is_exiting
from pool_monitor.pool.transport.handshake import Handshake
from pool_monitor.pool.transport.inbox import Inbox
from pool_monitor.pool.transport.interface import Ready, Sink
from pool_monitor.pool.transport.launcher import Launcher, LaunchSpec, start_process
from pool_monitor.pool.transport.lending import Lending
from pool_monitor.pool.transport.output_lines import ProcessOutput
from pool_monitor.pool.transport.spawn import WatchedProcess, ended_early
from pool_monitor.pool.transport.stacks import WorkerStacks
from pool_monitor.pool.transport.wire import Wire

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer

_SIGNAL_AGAIN = 0.02  # seconds until a busy worker is signalled a second time
_HELLO_LIMIT = 1 << 20  # bytes of a frame before the handshake
_CLOSING = 0.1  # seconds that a process may still run after it has closed the channel
_LAST_BYTES = 0.25  # seconds that another process may keep the channel of an ended worker open


class ProcessTransport:
    """One worker process. A `Transport`, which reports to *sink*."""

    def __init__(self, launch: LaunchSpec, sink: Sink, launcher: Launcher) -> None:
        self._launch = launch
        self._launcher = launcher
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(sink, CODECS["json"](), launch.session_data_limit)
        self._reader = FrameReader(min(launch.frame_limit, _HELLO_LIMIT))
        self._wire: Wire | None = None
        self._lending = Lending(self._inbox, self._reader, sink, launch.frame_limit)
        self._handshake = Handshake(launch, self._inbox, self._reader, self._lending)
        self._receive: Callable[[memoryview], None] = self._handshake.receive
        self._working = False  # the handshake is done
        self._begun: int | None = None  # with ``_reading``: the last counters, once the memory is unmapped
        self._reading = 0
        self._takes_context = False  # the worker takes context variables with its calls
        self.stacks: WorkerStacks | None = None  # a `StackSource`, once the worker has offered stacks
        self._stopping = False  # the worker was asked to end
        self._hung_up = False  # the worker was killed because it had closed the channel
        self._broken = False  # the worker violated the protocol: only answers to open calls are still taken
        self._launching: asyncio.Task[None] | None = None
        self._process: WatchedProcess | None = None
        self._killed = False
        self._channel = ChannelEnds(-1, -1)
        self._ours = contextlib.ExitStack()  # our ends of the channel and the life-line, until the worker has ended
        self._output: ProcessOutput | None = None
        self._gone: asyncio.Future[int | None] = self._loop.create_future()
        self._disconnected = False
        self._several = False  # the last read had several messages: several calls are likely to follow

    # -- start ----------------------------------------------------------------------------------------------------

    async def start(self) -> Ready:
        await self._begin()
        self._wire = self._lending.wire = Wire(
            self._channel, self._reader,
            received=self._received, send_closed=self._connection_broken, lost=self._connection_lost,
        )  # fmt: skip
        try:
            hello, operations, offer = await self._handshake.run(self._wire)
        except FrameError as error:
            raise StartError(f"the worker broke the protocol: {error}") from error
        self._takes_context = hello.context
        self._working, self._receive = True, self._message
        assert self._process is not None
        if offer is not None:
            several = self._launch.concurrency > 1
            self.stacks = WorkerStacks(self._process, offer, several, lambda token: self._urgent(["stack", token]))
        return Ready(self._process.pid, hello.python, hello.codec, operations)

    async def _begin(self) -> None:
        """Start the process, unless `kill` was called before. Raises StartError."""
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
        """Start the process with its ends of the channel and the life-line. Our ends stay in ``_ours``."""
        self._channel, process = await start_process(self._launcher, self._ours, self._lending.share)
        self._process = process
        process.on_end = self._ended
        self._output = ProcessOutput(self._loop, process.stdout, process.stderr, self._sink.wrote)
        if process.ended:  # already
            self._ended()

    def _never_started(self) -> StartError:
        code = self._gone.result() if self._gone.done() else None
        program, needed = self._launcher.program
        tail = "" if self._output is None else self._output.tail
        return ended_early(StartError, f"the worker, {program!r},", code, tail, needed)

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
            messages.reraise_interrupt(error)
            text = messages.why_not_carried(codec, context, error)
            raise PayloadError(operation, type(error).__name__, text) from error
        size = sum(map(len, pieces)) if pieces else len(body)
        if size > self._launch.frame_limit:
            text = f"the arguments take {size} bytes, over the frame limit of {self._launch.frame_limit}"
            raise PayloadError(operation, "PayloadError", f"{text}; raise frame_limit or send less")
        inbox, wire = self._inbox, self._wire
        if wire is not None:
            if size >= LARGE:
                self._lending.send(pieces or (body,), size)
            elif inbox.open or self._several:
                wire.send_joined(body)
            else:
                wire.send(body)
        inbox.note_call(call_id, stream)

    def flush(self) -> None:
        if self._wire is not None:
            self._wire.flush()

    @property
    def begun(self) -> int | None:
        counters = self._inbox.counters
        if counters is None:
            return self._begun
        return max(counters[0], self._inbox.begun)  # the worker can lower its counter again

    @property
    def reading(self) -> int:
        counters = self._inbox.counters
        return self._reading if counters is None else counters[2]

    def recall(self, call_ids: Sequence[int]) -> None:
        if self._inbox.counters is None:
            return  # such a worker begins each call at once
        asked = self._inbox.recall(call_ids)
        if asked:
            self._urgent(["recall", asked])
        elif call_ids:
            self._signal_urgent()  # asked before, and perhaps not seen
        elif self._lending.held_back():
            self._signal_urgent()  # an operation may take longer than expected, with answers in the outbox

    def cancel(self, call_id: int) -> None:
        self._urgent(["cancel", call_id])

    def ping(self, token: int) -> None:
        self._urgent(["ping", token])

    def flow(self, *, paused: bool) -> None:
        if self._wire is not None:
            (self._wire.pause if paused else self._wire.resume)()

    def hold(self, call_id: int, *, held: bool) -> None:
        self._send(["pause" if held else "resume", call_id])

    def _send(self, message: Any) -> None:
        if self._wire is not None:
            self._wire.send(self._inbox.codec.encode(message))

    def _urgent(self, message: Any) -> asyncio.TimerHandle:
        """Send a message that a busy worker reads at once: SIGURG interrupts it (see child/). Ignored by default.
        Return the timer of the second SIGURG.
        """
        self._send(message)
        self._signal_urgent()
        # A signal in the instant before a blocking system call is not handled until that call returns: send another.
        return self._loop.call_later(_SIGNAL_AGAIN, self._signal_urgent)

    def _signal_urgent(self) -> None:
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
        """Take messages that arrived together, in order. Consecutive plain replies are reported together."""
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
            except Exception as error:  # noqa: BLE001 - a defect, or no memory: it ends only this worker
                logger("pool").exception("a message of a worker could not be handled")
                self._break(f"a message could not be handled: {error!r:.200}")

    def _connection_lost(self) -> None:
        lost, self._disconnected = not self._disconnected, True
        if lost and self._working:
            self._lending.empty_outbox()
        if self._gone.done() or self._process is None:
            return
        if self._process.ended:
            self._finish(self._process.returncode)
        elif self._killed:
            self.kill()
        else:
            self._connection_broken()

    def _connection_broken(self) -> None:
        """React to the channel being closed, in one direction or both. The process may be ending: give it time."""
        self._loop.call_later(_CLOSING, self._closed_channel)

    def _closed_channel(self) -> None:
        """Kill the process if it still runs after it has closed the channel. One that the kernel is ending already,
        such as a large one that was killed for want of memory, has not broken the protocol.
        """
        if self._process is not None and not self._process.ended:
            expected = self._broken or self._killed or self._stopping  # the other direction may have closed first
            if self._working and not expected and not is_exiting(self._process.pid):
                self._hung_up = True
            self.kill()

    def _message(self, body: memoryview) -> None:
        """Take a message of a worker that is ready. Raises FrameError for one that the protocol does not allow."""
        left = self._inbox.receive(body)
        if left is None:
            return
        if left[0] != "stack":
            self._lending.take(left)
        elif self.stacks is None:
            raise FrameError("stacks that the worker has not offered")
        else:
            self.stacks.answered(left[1], left[2])

    def _break(self, reason: str, *, readable: bool = True) -> None:
        """Kill a worker that violated the protocol. Its answers to calls other than the one under way are still taken,
        as long as the bytes are *readable*: it is known where each frame ends.
        """
        if not self._broken and self._working:
            self._broken = True
            self._inbox.drop_running()
            self._sink.broke(reason)
            self.kill()
            if readable:
                return
        if self._broken:
            self._lending.empty_outbox()
        self._disconnected = True
        self._handshake.broke(reason)
        self.kill()
        if self._wire is not None:
            self._wire.abort()  # ignore whatever it sends from here on

    # -- end ------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float, kill_grace: float) -> None:
        if self._process is None:  # there is no process yet that a signal could reach
            self.kill()
        elif self._working:
            self._stopping = True
            self._send(["stop"])
        else:
            grace = 0.0  # a worker that is not ready does not read ``stop``
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
        """Called once when the process has ended and is reaped."""
        assert self._process is not None
        if self._disconnected or self._wire is None:
            self._finish(self._process.returncode)
        else:  # its last answers are still to be read
            self.flow(paused=False)
            self._loop.call_later(_LAST_BYTES, self._wire.abort)

    def _finish(self, exit_code: int | None) -> None:
        """Release everything and report the end: the process is reaped, and everything it sent has been read."""
        if self._gone.done():
            return
        if self.stacks is not None:
            self.stacks.close()
        if self._output is not None:
            self._output.close()
        if self._wire is not None:
            self._wire.abort()
        self._ours.close()
        self._begun, self._reading = self.begun, self.reading
        self._lending.close()
        self._reader.close()  # free its buffer at once: reference cycles may keep this object for a while
        self._gone.set_result(exit_code)
        if not self._working:
            self._handshake.ended(self._never_started())
        if self._hung_up and exit_code == -signal.SIGKILL:  # any other exit code: it was ending by itself, slowly
            self._sink.broke("it closed the channel but did not end")
        self._sink.gone(exit_code, "" if self._output is None else self._output.tail)
