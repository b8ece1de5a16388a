"""Checks values that enter a Snapshot from outside the monitor.

A Snapshot is one answer for all pools. A single gauge that has no JSON form, or that readers cannot decode, would make
the whole Snapshot unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

TEXT_MAX = 1000
"""Characters kept of a text. Names and reasons come from other code and have no limit."""

StructT = TypeVar("StructT", bound=Struct)


def checked(kind: type[StructT], fields: Mapping[str, Any]) -> StructT:
    """Return a *kind* made from those *fields* that it has. Every reader can decode it.

    Text is cut, and lone surrogates in it (`os.fsdecode` makes them from odd file names) are escaped. A number without
    a JSON form becomes None. Raises `msgspec.ValidationError`, which names the field, for a value of another type.
    """
    return msgspec.convert({name: _plain(value) for name, value in fields.items()}, kind)


def plain_text(text: str, limit: int = TEXT_MAX) -> str:
    """Return the first *limit* characters of *text*. Lone surrogates, which have no UTF-8 form, are escaped."""
    return text[:limit].encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else None
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
