"""What the formats share: JSON, moments, links, and foreign text of several lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pool_monitor.answers import cleaned

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S = 253_402_214_400.0
"""The beginning of the last day that datetime knows."""


def encoded(value: Any) -> bytes:
    """Return *value* as JSON. A lone surrogate, which has no UTF-8 form, is escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_with_utf8(value))


def _with_utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_with_utf8(key): _with_utf8(item) for key, item in value.items()}
    return [_with_utf8(item) for item in value] if isinstance(value, list | tuple) else value


def moment_of(at: float) -> datetime:
    """Return *at* (seconds since the epoch) in UTC, to the millisecond; the nearest time that datetime has."""
    return _EPOCH + timedelta(milliseconds=round(min(max(at, 0.0), _LAST_S) * 1000))


def rfc3339(at: float) -> str:
    """Return *at* (seconds since the epoch) in UTC, to the millisecond: ``2026-11-30T17:40:00.25Z``. As Go writes it,
    zeros at the end are left out.
    """
    text = moment_of(at).isoformat(timespec="milliseconds").removesuffix("+00:00")
    return f"{text.rstrip('0').rstrip('.')}Z"


def is_link(text: str) -> bool:
    """Whether *text* is a URL that a person may be led to."""
    return text.startswith(("https://", "http://")) and text.isprintable()


def cleaned_lines(text: str) -> str:
    """Return foreign text cleaned, with its lines."""
    return "\n".join(cleaned(line) for line in text.splitlines())
