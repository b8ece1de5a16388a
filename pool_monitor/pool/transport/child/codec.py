"""Codecs: how messages and the values in them become bytes. Used on both sides of the wire."""

from __future__ import annotations

import functools
import importlib
import json
import re
import struct
import sys

from .conversions import MSGPACK, check_string_keys, convert, convert_for_json, convert_fully, remedy

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, List, Sequence, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]

LARGE = 128 * 1024
"""Size in bytes from which a value is sent without a copy, and a message is lent."""


class PayloadError(Exception):
    """A value cannot be carried to or from the parent."""


class Undecodable:
    """Stands in a message for a value that cannot be decoded. *error* says why. Its traceback is dropped, because its
    frames would keep the message's memory alive.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error.with_traceback(None)


def _same(payload: Any) -> Any:
    return payload


def _no_elements(_body: memoryview) -> Iterable[Any]:
    raise ValueError("messages of this codec cannot be split")


class Codec:
    """``encode`` and ``decode`` take whole messages, ``pack`` and ``unpack`` the user's values inside them. ``split``
    returns the elements of a message without decoding them.
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[Any], bytes],
        decode: Callable[[Any], Any],
        pack: Callable[[Any], Any] = _same,
        unpack: Callable[[Any], Any] = _same,
        pieces: Callable[[Any], Sequence[Buffer]] | None = None,
        split: Callable[[memoryview], Iterable[Any]] = _no_elements,
    ) -> None:
        self.name, self.encode, self.decode, self.pack, self.unpack = name, encode, decode, pack, unpack
        self.apart = pack is not _same  # values are encoded apart from their message
        self._pieces, self._split = pieces, split

    def decode_or_parts(self, body: memoryview) -> Any:
        """Return what `decode` returns or, if it fails, what `parts` returns."""
        try:
            return self.decode(body)
        except Exception:
            return self.parts(body)

    def parts(self, body: memoryview) -> List[Any]:
        """Return the message *body* with an `Undecodable` for each element that cannot be decoded, so that a bad value
        fails its call and not the worker. If the rest cannot be split into elements, the last one is an `Undecodable`.
        Raises what splitting raises if there are not even two elements, the kind and the call.
        """
        found: List[Any] = []
        try:
            for part in self._split(body):
                try:
                    found.append(self.decode(part))
                except (Exception, SystemExit) as error:
                    found.append(Undecodable(error))
        except (ValueError, IndexError) as error:
            if len(found) < 2:
                raise
            found.append(Undecodable(error))
        return found

    def pieces(self, message: Any) -> Sequence[Buffer]:
        """Return what `encode` returns, in pieces. Large values of bytes are separate pieces, not copied."""
        return (self.encode(message),) if self._pieces is None else self._pieces(message)

    def splits(self, value: Any) -> bool:
        """Whether `pieces` would save copying *value*."""
        return type(value) is bytes and len(value) >= LARGE and self._pieces is not None


def with_remedy(encode: Callable[[Any], bytes], others: List[str]) -> Callable[[Any], bytes]:
    """Return *encode* with errors about numbers and texts that name the remedy: the codecs *others* carry them. For
    values of unknown types `conversion_error` does that.
    """

    def encoded(message: Any) -> bytes:
        try:
            return encode(message)
        except UnicodeEncodeError as error:
            error.reason += "; " + remedy(others)
            raise
        except OverflowError as error:  # from an integer, or from a date with a zone, which JSON cannot carry
            error.args = ("%s; %s" % (error, remedy(others if "int" in str(error).lower() else others[1:])),)
            raise

    return encoded


# What a key looks like that was no string before it was encoded. Strings may look like that too.
_MAY_BE_A_KEY = re.compile(r'"(?:-?\d[^"\\]*|true|false|null)":').search


def json_codec() -> Codec:
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=convert_for_json)

    def encode(message: Any) -> bytes:
        try:
            text = encoder.encode(message)
        except TypeError:
            check_string_keys(message, carried=False)  # with a better text, if a key is the reason
            raise
        except ValueError as error:
            if "JSON compliant" in str(error):
                error.args = ("%s; %s" % (error, remedy(["codec='pickle'", MSGPACK])),)
            raise
        if _MAY_BE_A_KEY(text):  # searching the text costs a quarter of checking every value
            check_string_keys(message)
        return text.encode()

    decoder = json.JSONDecoder(parse_constant=_no_constant)

    def decode(body: Buffer) -> Any:
        return decoder.decode(str(body, "utf-8"))

    return Codec("json", encode, decode, split=_split_json)


def _no_constant(name: str) -> Any:
    raise ValueError("JSON has no %s" % name)


def _split_json(body: memoryview) -> Iterable[Any]:
    from .array_elements import json_elements  # hardly ever needed

    return json_elements(body)


def msgpack_codec() -> Codec:
    try:
        from msgspec.msgpack import Decoder, Encoder

        plain, decode = Encoder(enc_hook=convert).encode, Decoder().decode
    except ImportError:
        plain, decode = msgpack_package()
    encode = with_remedy(plain, ["codec='json'", "codec='pickle'"])

    def pieces(message: Any) -> Sequence[Buffer]:
        return msgpack_pieces(message, encode)

    return Codec("msgpack", encode, decode, pieces=pieces, split=_split_msgpack)


def _split_msgpack(body: memoryview) -> Iterable[Any]:
    from .array_elements import msgpack_elements  # hardly ever needed

    try:
        from typing import List

        import msgspec

        return msgspec.msgpack.decode(body, type=List[msgspec.Raw])
    except Exception:  # msgspec is not installed, or the message is nested too deep
        return msgpack_elements(body)


def msgpack_package() -> Tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    """Return the encoder and decoder of the package msgpack, set up to give the same results as msgspec."""
    msgpack = importlib.import_module("msgpack")
    options = {"strict_map_key": False, "timestamp": 3}

    def with_keys(pairs: Any) -> Any:
        return {_hashable(key): value for key, value in pairs}

    def decode(body: Any) -> Any:
        try:
            return msgpack.unpackb(body, **options)
        except TypeError:  # a list cannot be a key
            return msgpack.unpackb(body, object_pairs_hook=with_keys, **options)

    return functools.partial(msgpack.packb, datetime=True, default=convert_fully), decode


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


_ARRAY = struct.Struct(">BI")  # longest form of the head of an array or a byte string
_DEPTH = 3  # at which the arguments lie in a message


def msgpack_pieces(message: Any, encode: Callable[[Any], bytes]) -> List[Buffer]:
    """Return the encoded message in pieces. Its large values of bytes are separate pieces."""
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
    """Values are pickled apart from their message, so that one that cannot be rebuilt fails only its call."""
    import pickle

    def dump(value: Any) -> bytes:
        return pickle.dumps(value, protocol=4)

    return Codec("pickle", dump, pickle.loads, dump, pickle.loads)


CODECS = {"json": json_codec, "msgpack": msgpack_codec, "pickle": pickle_codec}


def first_codec(names: list[str]) -> Codec:
    """Return the first codec of *names* that this interpreter has. If it has none, exits with a message."""
    for name in names:
        try:
            return CODECS[name]()
        except (KeyError, ImportError):
            continue
    sys.exit(
        "pool_monitor: %s has no %s: install it there, or leave the pool's codec at 'auto'"
        % (sys.executable, " or ".join(names))
    )
