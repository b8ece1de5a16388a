"""Finds where the elements of an encoded array begin and end, without decoding them.

It is for messages that cannot be decoded as a whole: nested too deep, or with a value that this side cannot represent.
The search does not recurse, and gives up on a message that would take long. Used on both sides of the wire.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Iterator, Tuple

_STEPS = 1_000_000  # per search: some tenths of a second
_ELEMENTS = 16  # more than any message has
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},]', re.DOTALL)

# What follows the first byte of a msgpack value, in bytes: the whole rest; a length; a count of values.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4}
_FIXED.update({0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17})
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTED = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_EXTENSIONS = (0xC7, 0xC8, 0xC9)  # one more byte, with the type


def msgpack_elements(body: memoryview) -> Iterator[memoryview]:
    """Yield the elements of a msgpack array, still encoded. Raises ValueError or IndexError at an invalid one."""
    tag = body[0]
    at, count = _past(body, 0)
    if not (0x90 <= tag < 0xA0 or tag in (0xDC, 0xDD)) or count > _ELEMENTS:
        raise ValueError("not a message")
    steps = 0
    for _ in range(count):
        start, missing = at, 1
        while missing:
            at, more = _past(body, at)
            missing += more - 1
            steps += 1
            if steps > _STEPS:
                raise ValueError("too many values in the message")
        if at > len(body):
            raise ValueError("the message is truncated")
        yield body[start:at]
    if at != len(body):
        raise ValueError("the message has trailing bytes")


def _past(body: memoryview, at: int) -> Tuple[int, int]:
    """Return where the head of the value at *at* ends, and how many values follow inside it."""
    tag = body[at]
    at += 1
    if tag < 0x80 or tag >= 0xE0:
        return at, 0
    if tag < 0xA0:
        return at, (tag & 15) * (1 if tag >= 0x90 else 2)
    if tag < 0xC0:
        return at + (tag & 31), 0
    if tag in _FIXED:
        return at + _FIXED[tag], 0
    width = _COUNTED.get(tag) or _SIZED.get(tag)
    if width is None:
        raise ValueError("a byte that is not the start of a value")
    number = int.from_bytes(body[at : at + width], "big")
    if tag in _COUNTED:
        return at + width, number * (2 if tag >= 0xDE else 1)
    return at + width + number + (tag in _EXTENSIONS), 0


def json_elements(body: memoryview) -> Iterator[memoryview]:
    """Yield the elements of a JSON array, still encoded. Raises ValueError at an invalid one."""
    if bytes(body[:1]) != b"[":
        raise ValueError("not a message")
    depth = start = found = 0
    for step, token in enumerate(_TOKENS.finditer(body)):
        mark = token.group()
        if mark in (b"[", b"{"):
            depth += 1
            if depth == 1:
                start = token.end()
        elif mark in (b"]", b"}"):
            depth -= 1
        if (depth == 1 and mark == b",") or not depth:
            yield body[start : token.start()]
            start = token.end()
            found += 1
        if not depth:
            break
        if step > _STEPS or found > _ELEMENTS:
            raise ValueError("too many values in the message")
    if depth or bytes(body[start:]).strip():
        raise ValueError("the message is truncated, or has trailing bytes")
