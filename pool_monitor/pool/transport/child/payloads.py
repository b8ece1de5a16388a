"""The user's values inside messages: packed and unpacked, and in words what is wrong with one."""

from __future__ import annotations

from .codec import PayloadError, Unreadable
from .report import text_of

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Sequence, Union

    from .codec import Buffer, Codec

    Body = Union[bytes, Sequence[Buffer]]  # an encoded message, in pieces when it is large


class Payloads:
    """What a worker and its parent have settled on. Whatever cannot be carried raises PayloadError, which names it."""

    def __init__(self, codec: Codec, frame_limit: int, session_data_limit: int) -> None:
        self.codec, self.frame_limit, self.session_data_limit = codec, frame_limit, session_data_limit

    def unpack(self, what: str, packed: Any) -> Any:
        if type(packed) is Unreadable:
            raise PayloadError("%s cannot be rebuilt: %s" % (what, text_of(packed.error))) from packed.error
        try:
            return self.codec.unpack(packed)
        except Exception as error:
            raise PayloadError("%s cannot be rebuilt: %s" % (what, text_of(error))) from error

    def pack(self, what: str, value: Any) -> Any:
        try:
            return self.codec.pack(value)
        except Exception as error:
            raise self.not_carried(what, error) from error

    def encode(self, what: str, message: Any, in_pieces: bool = False) -> Body:
        try:
            body: Body = self.codec.pieces(message) if in_pieces else self.codec.encode(message)
        except Exception as error:
            raise self.not_carried(what, error) from error
        size = sum(map(len, body)) if in_pieces else len(body)  # type: ignore[arg-type]
        if size > self.frame_limit:
            raise PayloadError(
                "%s takes %d bytes, over the frame limit of %d; raise frame_limit or return less"
                % (what, size, self.frame_limit)
            )
        return body

    def item(self, call_id: int, value: Any) -> Body:
        """The encoded ``item`` of a stream."""
        packed = self.pack("an item", value)
        return self.encode("an item", ["item", call_id, packed], self.codec.splits(packed))

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

    def not_carried(self, what: str, error: Exception) -> PayloadError:
        return PayloadError("%s cannot be carried as %s: %s" % (what, self.codec.name, text_of(error)))
