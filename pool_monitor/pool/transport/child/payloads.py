"""Packs and unpacks the user's values inside messages, and describes what is wrong with one."""

from __future__ import annotations

from .codec import PayloadError, Undecodable
from .exception_text import error_message

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Dict, List, NoReturn, Sequence, Tuple, Union

    from .codec import Buffer, Codec

    Body = Union[bytes, Sequence[Buffer]]  # an encoded message; in pieces if it is large


class Payloads:
    """Uses the codec and the limits of the handshake. Raises PayloadError, with its name, for a value not carried."""

    def __init__(self, codec: Codec, frame_limit: int, session_data_limit: int) -> None:
        self.codec, self.frame_limit, self.session_data_limit = codec, frame_limit, session_data_limit

    # in

    def unpack(self, what: str, packed: Any) -> Any:
        if type(packed) is Undecodable:
            _cannot_be_rebuilt(what, packed.error)
        try:
            return self.codec.unpack(packed)
        except Exception as error:
            _cannot_be_rebuilt(what, error)

    def arguments(self, packed: Any) -> Tuple[Sequence[Any], Dict[str, Any]]:
        """Return the arguments for an operation."""
        try:
            args, kwargs = self.codec.unpack(packed) if self.codec.apart else packed
        except Exception as error:  # also for an Undecodable, which does not unpack
            _cannot_be_rebuilt("the arguments", packed.error if type(packed) is Undecodable else error)
        return args, kwargs

    def session(self, session: Any) -> Tuple[str, Dict[str, Any]]:
        """Return the id and the data of a session."""
        if type(session) is Undecodable:
            _cannot_be_rebuilt("the session", session.error)
        session_id, data = session
        return session_id, self.unpack("session.data", data)

    # out

    def carry(self, what: str, message: List[Any]) -> Body:
        """Return *message* encoded. Its third element is the user's value; *what* names it in errors."""
        codec = self.codec
        try:
            if codec.apart:
                message[2] = codec.pack(message[2])
            if type(message[2]) is bytes and codec.splits(message[2]):
                pieces = codec.pieces(message)
                body: Body = pieces
                size = sum(map(len, pieces))
            else:
                body = codec.encode(message)
                size = len(body)
        except Exception as error:
            raise self._not_carried(what, error) from error
        if size > self.frame_limit:
            raise self._too_large(what, size)
        return body

    def pack_session(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise PayloadError("session.data must be a dict, not %r" % type(data).__name__)
        try:
            packed = self.codec.pack(data)
            size = len(self.codec.encode(packed))
        except Exception as error:
            raise self._not_carried("session.data", error) from error
        if size > self.frame_limit:
            raise self._too_large("session.data", size)
        if size > self.session_data_limit:
            raise PayloadError(
                "session.data takes %d bytes, over the limit of %d; keep less in it or raise session_data_limit"
                % (size, self.session_data_limit)
            )
        return packed

    def _not_carried(self, what: str, error: Exception) -> PayloadError:
        return PayloadError("%s cannot be carried as %s: %s" % (what, self.codec.name, error_message(error)))

    def _too_large(self, what: str, size: int) -> PayloadError:
        return PayloadError(
            "%s takes %d bytes, over the frame limit of %d; raise frame_limit or return less"
            % (what, size, self.frame_limit)
        )


def _cannot_be_rebuilt(what: str, error: BaseException) -> NoReturn:
    raise PayloadError("%s cannot be rebuilt: %s" % (what, error_message(error))) from error
