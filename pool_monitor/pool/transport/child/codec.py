"""What messages are carried in. Used on both sides of the wire."""

from __future__ import annotations

import importlib
import json

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable


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
