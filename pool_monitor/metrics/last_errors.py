"""What went wrong last on each worker slot, and what the last worker of each pool died of."""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.metrics.series import is_valid_name
from pool_monitor.metrics.window import LONGEST, SECOND_NS
from pool_monitor.snapshot.checks import plain_text

LAST_ERRORS = 1024
"""Slots whose last error is remembered: more than a machine can run."""
ERROR_BYTES = 1024
"""Upper estimate of one remembered error."""
_TEXT_MAX = 80


class _LastError(NamedTuple):
    text: str
    at_ns: int
    of_process: bool
    """Whether the process of the worker failed; else a call did."""


class LastErrors:
    """The last errors of slots; at most `LAST_ERRORS` of them, the latest."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, str], _LastError] = {}
        """By pool and slot, the latest at the end."""
        self._deaths: dict[str, str] = {}

    @staticmethod
    def most_bytes() -> int:
        return LAST_ERRORS * ERROR_BYTES

    @property
    def nbytes(self) -> int:
        return len(self._errors) * ERROR_BYTES

    def note(self, pool: str, worker: object, text: str, at_ns: int, *, of_process: bool) -> None:
        """Remember *text* as the last error of the slot *worker*. A worker without a valid name is ignored."""
        if not isinstance(worker, str) or not is_valid_name(worker):
            return
        self._errors.pop((pool, worker), None)
        self._errors[pool, worker] = _LastError(plain_text(text, _TEXT_MAX), at_ns, of_process)
        if len(self._errors) > LAST_ERRORS:
            del self._errors[next(iter(self._errors))]

    def process_just_failed(self, pool: str, worker: str, now_ns: int) -> bool:
        """Whether the last error of the slot is that of its process, and less than a second old."""
        last = self._errors.get((pool, worker))
        return last is not None and last.of_process and now_ns - last.at_ns < SECOND_NS

    def of(self, pool: str, now_ns: int) -> dict[str, tuple[str, float]]:
        """The last error of every slot of *pool* and its age in seconds, those within the longest window."""
        ages = {
            worker: (error.text, (now_ns - error.at_ns) / SECOND_NS)
            for (of_pool, worker), error in self._errors.items()
            if of_pool == pool
        }
        return {worker: (text, age_s) for worker, (text, age_s) in ages.items() if age_s <= LONGEST.seconds}

    def note_death(self, pool: str, text: str) -> None:
        """Remember *text* as what the last worker of *pool* died of. *pool* is one of those that are collected."""
        self._deaths[pool] = plain_text(text, _TEXT_MAX)

    def last_death(self, pool: str) -> str | None:
        """What the last worker of *pool* died of; None: none has died."""
        return self._deaths.get(pool)
