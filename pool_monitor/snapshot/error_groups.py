"""The few errors that many failures are."""

from __future__ import annotations

from msgspec import Struct


class ErrorSample(Struct, frozen=True, kw_only=True):
    """One failure of a group: its first, or one after a pause. Secrets in it are replaced, and it is cut."""

    at: float
    """Wall-clock time, seconds since the epoch."""
    message: str
    operation: str | None = None
    worker: str | None = None
    traceback: str | None = None
    """The traceback of the target's exception."""
    stack: str | None = None
    """What the worker was running when it was interrupted or killed; None: it was neither, or the stack could not be
    had."""


class ErrorGroup(Struct, frozen=True, kw_only=True):
    """Failures that are equal in type, in the message without its variable parts, and in the target's innermost frames.

    Refused and cancelled calls are not failures.
    """

    fingerprint: str
    """16 hexadecimal digits: equal for equal failures, also in another process or after a restart. ``other`` for the
    group of all failures beyond the limit on groups."""
    type: str
    """The type of the exception; ``other`` beyond the limit."""
    message: str
    """The message with placeholders, such as ``<n>``, for its variable parts."""
    frames: tuple[str, ...] = ()
    """Up to three innermost frames of the target's own code, ``file:function``, innermost first."""
    count: int
    """Failures in the window."""
    total: int
    """Failures since the monitor was entered; from a history: since the history began."""
    rate: float | None = None
    """Failures per second of the time that the window covers."""
    first_seen: float
    """Wall-clock time of the first one, seconds since the epoch."""
    last_seen: float
    operations: tuple[str, ...] = ()
    """The operations that failed, the most frequent first: at most 8."""
    workers: tuple[str, ...] = ()
    """The slots on which it happened, the most frequent first: at most 8."""
    sample: ErrorSample | None = None
    """One of the failures. In a Snapshot, the 32 most frequent groups of a pool have one; an `ErrorReport` has all."""


class ErrorReport(Struct, frozen=True, kw_only=True):
    """The error groups of pools in a period. Times are seconds since the epoch."""

    start: float
    end: float
    covered_seconds: float
    """How much of the period the counts cover."""
    pools: dict[str, tuple[ErrorGroup, ...]]
    """By pool, the most frequent group first. A pool without failures may be missing."""
