"""What messages are carried in. Used on both sides of the wire."""

from __future__ import annotations

import importlib
import json
import struct

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, List, Sequence, Union

    Buffer = Union[bytes, bytearray, memoryview]

LARGE = 128 * 1024
"""Bytes from which on a value is sent from where it lies, and a message is worth lending."""


class PayloadError(Exception):
    """Something cannot be carried to the parent."""


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
        pieces: Callable[[Any], Sequence[Buffer]] | None = None,
    ) -> None:
        self.name, self.encode, self.decode, self.pack, self.unpack = name, encode, decode, pack, unpack
        self._pieces = pieces

    def pieces(self, message: Any) -> Sequence[Buffer]:
        """What `encode` gives, in pieces, large values of bytes being pieces of their own, not copied."""
        return (self.encode(message),) if self._pieces is None else self._pieces(message)

    def splits(self, value: Any) -> bool:
        """Whether `pieces` would save copying *value*."""
        return type(value) is bytes and len(value) >= LARGE and self._pieces is not None


def json_codec() -> Codec:
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    return Codec("json", lambda message: encoder.encode(message).encode(), lambda body: json.loads(bytes(body)))


def msgpack_codec() -> Codec:
    try:
        from msgspec.msgpack import Decoder, Encoder

        encode, decode = Encoder().encode, Decoder().decode
    except ImportError:
        msgpack = importlib.import_module("msgpack")
        encode = msgpack.packb

        def decode(body: Any) -> Any:
            return msgpack.unpackb(body, strict_map_key=False)

    def pieces(message: Any) -> Sequence[Buffer]:
        return msgpack_pieces(message, encode)

    return Codec("msgpack", encode, decode, pieces=pieces)


_ARRAY = struct.Struct(">BI")  # the longest form of an array's and of a byte string's beginning
_DEPTH = 3  # of the arguments in a message


def msgpack_pieces(message: Any, encode: Callable[[Any], bytes]) -> List[Buffer]:
    """The encoded message in pieces, its large values of bytes being pieces of their own."""
    found: List[Buffer] = []
    small = bytearray()

    def add(value: Any, depth: int) -> None:
        nonlocal small
        if type(value) is bytes and len(value) >= LARGE:
            small += _ARRAY.pack(0xC6, len(value))
            found.extend((small, value))
            small = bytearray()
        elif depth and type(value) in (list, tuple):
            small += _ARRAY.pack(0xDD, len(value))
            for item in value:
                add(item, depth - 1)
        else:
            small += encode(value)

    add(message, _DEPTH)
    if small:
        found.append(small)
    return found


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
