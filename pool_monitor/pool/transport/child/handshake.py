"""The handshake with the parent. Its result decides which kind of worker is made."""

from __future__ import annotations

import json
import os
import sys

from . import PROTOCOL
from .codec import first_codec, json_codec
from .payloads import Payloads
from .shared_memory import SharedMemory

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, List, Optional, Sequence, Tuple

    from .channel import Channel
    from .codec import Codec


class Connection:
    """The channel, and what both sides have agreed on. *shared* is None if there is no shared memory."""

    def __init__(self, channel: Channel, codec: Codec, payloads: Payloads, shared: Optional[SharedMemory]) -> None:
        self.channel, self.codec, self.payloads, self.shared = channel, codec, payloads, shared


class Init:
    """The message ``init``: what to load, and how. *payload* holds the arguments of a target that is a class."""

    def __init__(self, target: str, path: List[str], payload: Any, options: Any = None) -> None:
        self.target, self.path, self.payload = target, path, payload
        options = options or {}
        self.concurrency: int = options.get("concurrency", 1)
        self.variables: Sequence[str] = options.get("context", ())
        self.stack_signal: Optional[int] = options.get("stack")  # None: the pool asks for no stacks


def shake_hands(channel: Channel, shared_fd: int = -1) -> Tuple[Connection, Init]:
    """Agree on a codec and the limits, and receive ``init``. *shared_fd* is the descriptor of the shared memory, or -1.
    It is closed here.

    Raises ParentGone. Exits with a message if the two sides have no protocol or codec in common.
    """
    try:
        hello = json.loads(bytes(channel.receive()))
        if PROTOCOL not in hello["protocols"]:
            sys.exit("pool_monitor: the pool speaks protocols %s, but this worker %d" % (hello["protocols"], PROTOCOL))
        codec = first_codec(hello["codecs"])
        channel.limit = hello["frame_limit"]
        shared = channel.shared = map_shared(shared_fd, hello["frame_limit"])
    finally:
        if shared_fd >= 0:
            os.close(shared_fd)
    answer = {"type": "hello", "protocol": PROTOCOL, "codec": codec.name, "context": True}
    answer["python"] = ".".join(map(str, sys.version_info[:3]))
    if shared is not None:
        answer["shared"] = answer["offsets"] = True
        shared.offsets = hello.get("offsets") is True
    channel.send(json_codec().encode(answer))
    init = Init(*codec.decode_or_parts(channel.receive())[1:5])
    payloads = Payloads(codec, hello["frame_limit"], hello["session_data_limit"])
    return Connection(channel, codec, payloads, shared), init


def map_shared(fd: int, frame_limit: int) -> Optional[SharedMemory]:
    """Return the shared memory in the file *fd*. None if there is none or this system cannot map it."""
    if fd < 0:
        return None
    try:
        return SharedMemory(fd, frame_limit, False)
    except (OSError, ValueError):
        return None
