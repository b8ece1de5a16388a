"""Messages as trees, and as bytes: also such bytes as no encoder makes.

A tree is of lists, dicts and plain values. `Payload` marks the values that are the user's (those with * in
docs/WORKER_PROTOCOL.md); the other classes stand for what Python has no value for. Standard library only.
"""

from __future__ import annotations

import itertools
import json
import pickle
import struct
from typing import Any, NamedTuple


class Payload(NamedTuple):
    """A value of the user's: codec pickle pickles it apart."""

    value: Any


class Pairs(NamedTuple):
    """A dict whose keys may be anything, and repeat."""

    pairs: tuple[tuple[Any, Any], ...]


class Ext(NamedTuple):
    """One of msgpack's types of one's own; in other codecs its bytes."""

    code: int
    data: bytes


class Raw(NamedTuple):
    """Bytes that stand as they are. In codec pickle *pickle* counts for a payload, and is a text elsewhere."""

    json: bytes
    msgpack: bytes
    pickle: bytes = pickle.dumps(None, 4)


def nested(depth: int) -> Raw:
    """A list in a list in a list ..."""
    return Raw(
        b"[" * depth + b"]" * depth,
        b"\x91" * depth + b"\xc0",
        b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b".",
    )


def nested_dicts(depth: int) -> Raw:
    return Raw(
        b'{"a":' * depth + b"1" + b"}" * depth,
        b"\x81\xa1a" * depth + b"\xc0",
        b"\x80\x04" + b"}\x8c\x01a" * depth + b"N" + b"s" * depth + b".",
    )


NAN = Raw(b"NaN", b"\xcb" + struct.pack(">d", float("nan")), pickle.dumps(float("nan"), 4))
INFINITY = Raw(b"-Infinity", b"\xca" + struct.pack(">f", float("-inf")), pickle.dumps(float("-inf"), 4))
ENDLESS = Raw(b"9" * 5000, b"\xcf" + b"\xff" * 8, pickle.dumps(1 << 40_000, 4))
"""An integer that Python does not print."""
BAD_TEXT = Raw(b'"\xff\xfe\xc3"', b"\xa3\xff\xfe\xc3", b"\x80\x04\x8c\x03\xff\xfe\xc3.")
HALF_A_PAIR = Raw(b'"\\ud83d"', b"\xa3\xed\xa0\xbd", b"\x80\x04\x8c\x03\xed\xa0\xbd.")
"""A lone surrogate, as each codec would write it."""
UNFINISHED = Raw(b'["', b"\xdd\xff\xff\xff\xff", b"\x80\x04]")


def encode(codec: str, tree: Any) -> bytes:
    """*tree* as the body of a frame."""
    if codec == "json":
        return _json(tree)
    if codec == "msgpack":
        return _msgpack(tree)
    return pickle.dumps(_plain(tree), 4)


def decode(codec: str, body: bytes) -> Any:
    """What an honest parent has sent."""
    if codec == "json":
        return json.loads(body)
    if codec == "msgpack":
        return _Unpacker(body).next()
    return pickle.loads(body)


def payload(codec: str, packed: Any) -> Any:
    """A value of the user's, as it came in a message."""
    return pickle.loads(packed) if codec == "pickle" else packed


# -- each codec ---------------------------------------------------------------------------------------------------


def _json(value: Any) -> bytes:
    if isinstance(value, Payload):
        return _json(value.value)
    if isinstance(value, Raw):
        return value.json
    if isinstance(value, Pairs):
        return b"{%s}" % b",".join(_json(key) + b":" + _json(item) for key, item in value.pairs)
    if isinstance(value, (Ext, bytes)):
        return json.dumps((value.data if isinstance(value, Ext) else value).decode("latin-1")).encode()
    if isinstance(value, dict):
        return _json(Pairs(tuple(value.items())))
    if isinstance(value, (list, tuple)):
        return b"[%s]" % b",".join(map(_json, value))
    return json.dumps(value).encode()


def _msgpack(value: Any) -> bytes:
    if isinstance(value, Payload):
        return _msgpack(value.value)
    if isinstance(value, Raw):
        return value.msgpack
    if isinstance(value, Pairs):
        return struct.pack(">BI", 0xDF, len(value.pairs)) + b"".join(map(_msgpack, itertools.chain(*value.pairs)))
    if isinstance(value, Ext):
        return struct.pack(">BIb", 0xC9, len(value.data), value.code) + value.data
    if isinstance(value, dict):
        return _msgpack(Pairs(tuple(value.items())))
    if isinstance(value, (list, tuple)):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(_msgpack, value))
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return struct.pack(">BI", 0xDB, len(data)) + data
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return struct.pack(">Bq", 0xD3, value) if value < 2**63 else struct.pack(">BQ", 0xCF, value)
    return struct.pack(">Bd", 0xCB, float(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Payload):
        return value.value.pickle if isinstance(value.value, Raw) else pickle.dumps(_plain(value.value), 4)
    if isinstance(value, Raw):
        return value.json.decode("latin-1")
    if isinstance(value, Ext):
        return value.data
    if isinstance(value, Pairs):
        return {repr(key): _plain(item) for key, item in value.pairs}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_SIZED = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_SIZED |= {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


class _Unpacker:
    """As much of msgpack as a parent makes use of."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def next(self) -> Any:
        (first,) = self._take(1)
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first < 0xC0:  # short forms: a map, a list, a text
            kind, count = ((0xDF, first & 15), (0xDD, first & 15), (0xDB, first & 31), (0xDB, first & 31))[
                (first - 0x80) >> 4
            ]
            return self._sized(kind, count)
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first in _SIZED:
            return self._sized(first, self._number(_SIZED[first]))
        return {0xC0: None, 0xC2: False, 0xC3: True}[first]

    def _sized(self, kind: int, count: int) -> Any:
        if kind >= 0xDE:
            return {self.next(): self.next() for _ in range(count)}
        if kind >= 0xDC:
            return [self.next() for _ in range(count)]
        data = self._take(count)
        return data if kind <= 0xC6 else data.decode()

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        data = self.body[self.at : self.at + count]
        if len(data) < count:
            raise ValueError("the message ends too early")
        self.at += count
        return data
