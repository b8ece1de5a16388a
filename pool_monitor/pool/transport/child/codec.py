"""What messages are carried in. Used on both sides of the wire."""

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
"""Bytes from which on a value is sent from where it lies, and a message is worth lending."""


class PayloadError(Exception):
    """Something cannot be carried to the parent."""


class Undecodable:
    """Stands in a message for a value that cannot be decoded. *error*: why; without its traceback, whose frames would
    keep the memory alive that the message lay in.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error.with_traceback(None)


def _same(payload: Any) -> Any:
    return payload


def _no_elements(_body: memoryview) -> Iterable[Any]:
    raise ValueError("a message of this codec cannot be taken apart")


class Codec:
    """``encode``/``decode`` are for whole messages, ``pack``/``unpack`` for the user's values inside them. ``split``
    gives the elements of a message as they are encoded, without a look inside them.
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
        self.apart = pack is not _same  # a value is encoded apart from its message
        self._pieces, self._split = pieces, split

    def decode_or_parts(self, body: memoryview) -> Any:
        """What `decode` gives, or else what `parts` gives."""
        try:
            return self.decode(body)
        except Exception:
            return self.parts(body)

    def parts(self, body: memoryview) -> List[Any]:
        """What `decode` cannot give: the message *body* with an `Undecodable` for each element that cannot be decoded,
        so that a bad value costs the call it belongs to and not the worker. It ends with one where the elements can be
        told apart no longer. Raises what splitting raises when not even its kind and what it is about are there.
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
        """What `encode` gives, in pieces, large values of bytes being pieces of their own, not copied."""
        return (self.encode(message),) if self._pieces is None else self._pieces(message)

    def splits(self, value: Any) -> bool:
        """Whether `pieces` would save copying *value*."""
        return type(value) is bytes and len(value) >= LARGE and self._pieces is not None


def with_remedy(encode: Callable[[Any], bytes], others: List[str]) -> Callable[[Any], bytes]:
    """*encode*, whose errors about numbers and texts say what to do about them: that the codecs *others* carry them.
    Of values that have no form at all, `conversion_error` says it.
    """

    def encoded(message: Any) -> bytes:
        try:
            return encode(message)
        except UnicodeEncodeError as error:
            error.reason += "; " + remedy(others)
            raise
        except OverflowError as error:  # of an integer; or of a date with a zone, which JSON has none of
            error.args = ("%s; %s" % (error, remedy(others if "int" in str(error).lower() else others[1:])),)
            raise

    return encoded


# What a key that was no string looks like when it has become one. Strings may look like that too.
_MAY_BE_A_KEY = re.compile(r'"(?:-?\d[^"\\]*|true|false|null)":').search


def json_codec() -> Codec:
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=convert_for_json)

    def encode(message: Any) -> bytes:
        try:
            text = encoder.encode(message)
        except TypeError:
            check_string_keys(message, carried=False)  # in other words than the encoder's, if it is that
            raise
        except ValueError as error:
            if "JSON compliant" in str(error):
                error.args = ("%s; %s" % (error, remedy(["codec='pickle'", MSGPACK])),)
            raise
        if _MAY_BE_A_KEY(text):  # a look at the text costs a quarter of a look at every value
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
    except Exception:  # not there, or the message is too deep for it
        return msgpack_elements(body)


def msgpack_package() -> Tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    """What the package msgpack has for it, set to give what msgspec gives."""
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
    """The first of *names* that this interpreter has. Ends the process, saying why, when there is none."""
    for name in names:
        try:
            return CODECS[name]()
        except (KeyError, ImportError):
            continue
    sys.exit(
        "pool_monitor: %s has no %s: install it there, or leave the pool's codec at 'auto'"
        % (sys.executable, " or ".join(names))
    )
