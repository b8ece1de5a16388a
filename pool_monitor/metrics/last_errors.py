"""The last error of each slot, and how the last worker of each pool that died ended."""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.metrics.series import is_valid_name
from pool_monitor.metrics.window import LONGEST, SECOND_NS
from pool_monitor.redaction import redact_and_cut
from pool_monitor.snapshot.validation import plain_text

LAST_ERRORS = 1024
"""Most slots whose last error is kept: more than a machine can run."""
ERROR_BYTES = 1024
"""Upper estimate of the memory for one error."""
_TEXT_MAX = 80


class _LastError(NamedTuple):
    text: str
    at_ns: int
    of_process: bool
    """Whether the worker's process failed; if False, a call failed."""


class LastErrors:
    """The last error of each slot, and the last death of each pool. It keeps the `LAST_ERRORS` latest errors."""

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
        """Store *text* as the last error of the slot *worker*. A worker without a valid name is ignored.

        Secrets are replaced in the text of a process's failure, which may quote the target. The text of a failed call
        is the name of its error.
        """
        if not isinstance(worker, str) or not is_valid_name(worker):
            return
        self._errors.pop((pool, worker), None)
        self._errors[pool, worker] = _LastError(
            _clean(text) if of_process else plain_text(text, _TEXT_MAX), at_ns, of_process
        )
        if len(self._errors) > LAST_ERRORS:
            del self._errors[next(iter(self._errors))]

    def process_just_failed(self, pool: str, worker: str, now_ns: int) -> bool:
        """Whether the slot's last error is a failure of its process and less than a second old."""
        last = self._errors.get((pool, worker))
        return last is not None and last.of_process and now_ns - last.at_ns < SECOND_NS

    def of(self, pool: str, now_ns: int) -> dict[str, tuple[str, float]]:
        """The last error of every slot of *pool*, and its age in seconds; only errors within the longest window."""
        ages = {
            worker: (error.text, (now_ns - error.at_ns) / SECOND_NS)
            for (of_pool, worker), error in self._errors.items()
            if of_pool == pool
        }
        return {worker: (text, age_s) for worker, (text, age_s) in ages.items() if age_s <= LONGEST.seconds}

    def note_death(self, pool: str, text: str) -> None:
        """Store *text* as how the last worker of *pool* died. *pool* must be one of the collected pools."""
        self._deaths[pool] = _clean(text)

    def last_death(self, pool: str) -> str | None:
        """How the last worker of *pool* that died ended; None: no worker has died."""
        return self._deaths.get(pool)


def _clean(text: str) -> str:
    return plain_text(redact_and_cut(text, _TEXT_MAX), _TEXT_MAX)
