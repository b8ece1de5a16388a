"""Moments as messages write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds()


def rfc3339(at: float) -> str:
    """Return *at* (seconds since the epoch) in UTC, to the millisecond: ``2026-11-30T17:40:00.250Z``."""
    moment = _EPOCH + timedelta(milliseconds=round(min(max(at, 0.0), _LAST) * 1000))
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
