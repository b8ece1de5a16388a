"""The last failures of each pool, as texts: a few entries per pool, each with a count of equal failures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pool_monitor.metrics.window import LONGEST, SECOND_NS
from pool_monitor.redaction import READ_BEYOND, redact_and_cut
from pool_monitor.snapshot import FailureView
from pool_monitor.snapshot.validation import plain_text

KEPT = 20
"""Most entries per pool. A new entry replaces the one whose last failure is oldest."""
MESSAGE_MAX = 300
NAME_MAX = 200
"""Most characters kept of a message (`MESSAGE_MAX`), and of the name of an error, an operation or a worker."""
ENTRY_BYTES = 512 + (2 * MESSAGE_MAX + READ_BEYOND + 3 * NAME_MAX) * 4
"""Upper estimate of the memory for one entry."""

_Key = tuple[str, str | None, str | None]


@dataclass(slots=True)
class _Entry:
    worker: str | None = None
    at_ns: int = 0
    count: int = 0
    message: str | None = None
    """The message of the first failure. Until it is shown, it is longer: a secret at the end must be seen whole."""
    redacted: bool = False

    def shown_message(self) -> str | None:
        """The message with its secrets replaced. They are searched for once, and only in what is shown."""
        if not self.redacted:
            self.message = self.message and redact_and_cut(self.message, MESSAGE_MAX)
            self.redacted = True
        return self.message


class LastFailures:
    """The last failures of *pools*. The store takes at most `bytes_for` bytes."""

    def __init__(self, pools: Iterable[str]) -> None:
        self._entries: dict[str, dict[_Key, _Entry]] = {pool: {} for pool in pools}
        """By pool; the entry of the latest failure is at the end."""

    @staticmethod
    def bytes_for(pools: int) -> int:
        return pools * KEPT * ENTRY_BYTES

    @property
    def nbytes(self) -> int:
        return sum(map(len, self._entries.values())) * ENTRY_BYTES

    def note(
        self, pool: str, error: str, message: object, operation: object, worker: object, at_ns: int, times: int = 1
    ) -> None:
        """Count *times* equal failures of *pool*. A message or name that is not a str counts as unknown."""
        entries = self._entries[pool]
        key = (_text(error) or "unknown", _text(message, MESSAGE_MAX), _text(operation))
        entry = entries.pop(key, None)
        if entry is None:
            entry = _Entry(message=_text(message, MESSAGE_MAX + READ_BEYOND))
            if len(entries) == KEPT:
                del entries[next(iter(entries))]
        entries[key] = entry
        entry.worker, entry.at_ns = _text(worker), at_ns
        entry.count += times

    def of(self, pool: str, now_ns: int) -> tuple[FailureView, ...]:
        """The failures of *pool* within the longest window, the latest first. Secrets in messages are replaced."""
        return tuple(
            FailureView(
                error,
                entry.shown_message(),
                operation,
                entry.worker,
                (now_ns - entry.at_ns) / SECOND_NS,
                entry.count,
            )
            for (error, _message, operation), entry in reversed(self._entries[pool].items())
            if (now_ns - entry.at_ns) / SECOND_NS <= LONGEST.seconds
        )


def _text(value: object, limit: int = NAME_MAX) -> str | None:
    if not isinstance(value, str):
        return None
    return value if len(value) <= limit and value.isascii() else plain_text(value, limit)
