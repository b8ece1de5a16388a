"""The handshake with a worker, up to its message ``ready``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pool_monitor.errors import StartError
from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.child.codec import CODECS
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.stacks import StackOffer, parse_offer

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.framing import FrameReader
    from pool_monitor.pool.transport.inbox import Inbox
    from pool_monitor.pool.transport.launcher import LaunchSpec
    from pool_monitor.pool.transport.lending import Lending
    from pool_monitor.pool.transport.wire import Wire

_FROM_CONSTRUCTORS = ("event", "log", "dropped", "returned")  # messages that may arrive before ``ready``


class Handshake:
    """The handshake with one worker. `receive` takes everything that the worker sends until it is ready."""

    def __init__(self, launch: LaunchSpec, inbox: Inbox, reader: FrameReader, lending: Lending) -> None:
        self._launch, self._inbox, self._reader, self._lending = launch, inbox, reader, lending
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Any] | None = None  # the message that `run` waits for
        self._ended: StartError | None = None

    async def run(self, wire: Wire) -> tuple[messages.Hello, dict[str, str], StackOffer | None]:
        """Return the worker's hello, its operations with their kinds, and whether it can tell its stacks. Switches the
        inbox to the worker's codec.

        Raises StartError, and FrameError for a message that violates the protocol.
        """
        launch = self._launch
        ours = messages.service_hello(launch.codecs, launch.frame_limit, launch.session_data_limit)
        wire.send(self._inbox.codec.encode(ours))
        hello = messages.parse_hello(await self._next(), launch.codecs)
        codec = CODECS[hello.codec]()
        self._inbox.use_codec(codec)
        self._reader.limit = launch.frame_limit
        if not hello.shared:
            self._lending.unshare()
        elif self._lending.shared is not None:
            self._lending.shared.memory.offsets = hello.offsets
        args, kwargs = launch.init
        payload = [list(args), dict(kwargs)]
        try:
            init = codec.encode(["init", launch.target, launch.path, codec.pack(payload), launch.options])
        except BaseException as error:  # whatever an encoder raises for what it cannot carry
            messages.reraise_interrupt(error)
            raise StartError(
                f"init_args and init_kwargs cannot be carried as {codec.name}: {messages.error_message(error)}"
            ) from error
        wire.send(init)
        match await self._next():
            case ["ready", found, *more] if len(more) <= ("stack" in launch.options):
                operations = messages.parse_operations(found)
                offer = parse_offer(more[0]) if more else None
                if self._ended is not None:  # the worker ended as soon as it was ready
                    raise self._ended
                return hello, operations, offer
            case ["error", 0, kind, name, text, trace, _]:
                failure = messages.parse_failure(kind, name, text, trace)
                if failure.kind == "payload":
                    raise StartError(f"init_args and init_kwargs of {launch.target!r}: {failure.message}")
                cause = f"{failure.type_name}: {failure.message}"
                raise StartError(f"cannot load {launch.target!r}: {cause}", failure.traceback, cause=cause)
            case other:
                raise FrameError(f"not an answer to init: {messages.short_repr(other)}")

    async def _next(self) -> Any:
        """Return the next message of the handshake. Raises StartError if the worker has ended."""
        self._answer = self._loop.create_future()
        if self._ended is not None:
            raise self._ended
        return await self._answer

    def receive(self, body: memoryview) -> None:
        """Take a message of a worker that is not ready yet. Raises FrameError for an unexpected one."""
        message = self._inbox.decode(body)
        kind = message[0] if type(message) is list and message else None
        if type(kind) is str and kind in _FROM_CONSTRUCTORS:
            if not self._inbox.take(message):
                self._lending.take(message)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
        else:
            raise FrameError(f"unexpected message: {messages.short_repr(message)}")

    def broke(self, reason: str) -> None:
        """Fail the handshake: the worker violated the protocol, and is being killed."""
        self._fail(StartError(f"the worker broke the protocol: {reason}"))

    def ended(self, error: StartError) -> None:
        """Fail the handshake with *error*: the worker has ended."""
        self._ended = error
        self._fail(error)

    def _fail(self, error: StartError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
