"""What comes into a Snapshot from outside the monitor, checked where it comes in.

A Snapshot is one answer for all pools. A gauge that its JSON form cannot carry, or that no reader could decode, would
cost everybody the whole of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

TEXT_MAX = 1000
"""Characters kept of a text: names and reasons may be as long as whoever made them likes."""

StructT = TypeVar("StructT", bound=Struct)


def checked(kind: type[StructT], fields: Mapping[str, Any]) -> StructT:
    """A *kind* of those *fields* that it has, which every reader can decode.

    Text is cut, and half surrogates in it (as `os.fsdecode` makes of odd file names) are spelt out. A number without a
    JSON form is unknown. Raises `msgspec.ValidationError`, which names the field, for a value of another type.
    """
    return msgspec.convert({name: _plain(value) for name, value in fields.items()}, kind)


def plain_text(text: str, limit: int = TEXT_MAX) -> str:
    """The first *limit* characters of *text*; half surrogates, which have no UTF-8 form, are spelt out."""
    return text[:limit].encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else None
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return value
