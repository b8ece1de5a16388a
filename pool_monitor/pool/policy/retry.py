"""Whether a call that failed is sent again, and when. No I/O, no clock: decisions as values.

Only for calls whose caller declared them idempotent; that is for the caller of this module to see to.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pool_monitor.errors import Category, OperationError, PayloadError, PoolError

_FIRST = 0.05  # seconds: the longest pause before the second attempt; it doubles with each further one
_LONGEST = 5.0


class Retry(NamedTuple):
    """How often something is tried again, and how: after a pause that grows, or at once."""

    times: int
    style: Literal["backoff", "at once"] = "backoff"


RETRIES: Mapping[Category, Retry] = {
    "configuration": Retry(0),
    "initialization": Retry(3),
    "resource": Retry(0),
    "timeout": Retry(1),
    "connection": Retry(2),
    "communication": Retry(2, "at once"),
    "session": Retry(1),
    "operation": Retry(2),
}
"""By what failed. ``operation``: only for those of the target's exceptions that were named."""


class RetryBudget:
    """Retries allowed per call made, over time: *ratio* for each, up to *cap* saved up, *initial* to begin with.

    So that retries cannot multiply the load of a pool that is failing because of its load.
    """

    __slots__ = ("_calls", "_most", "_price", "refused")

    def __init__(self, ratio: float, cap: int = 50, initial: int = 10) -> None:
        # Counted in calls, not in shares of retries: ten tenths would not make one.
        self._price = 1 / ratio if ratio else 1.0
        self._most = cap * self._price if ratio else 0.0
        self._calls = min(initial * self._price, self._most)
        self.refused = 0
        """Retries there was nothing left for."""

    def earn(self) -> None:
        """A call was made."""
        if self._calls < self._most:
            self._calls += 1

    def spend(self) -> bool:
        """Take a retry, if there is one."""
        if self._calls < self._price:
            self.refused += 1
            return False
        self._calls -= self._price
        return True


class RetryPolicy:
    """Decides by `RETRIES`; *retries* replaces its numbers, those that are 0 excepted. *errors*: type names of the
    target's exceptions that are worth another try.
    """

    __slots__ = ("_random", "budget", "errors", "retries")

    def __init__(
        self, retries: int | None, errors: frozenset[str], budget: RetryBudget, rng: random.Random | None = None
    ) -> None:
        self.retries, self.errors, self.budget = retries, errors, budget
        self._random = rng or random.Random()  # noqa: S311 - jitter, no secret

    def decide(self, error: PoolError, attempts: int, time_left: float) -> float | None:
        """Seconds to wait before the call is sent again after *attempts* attempts; None: it is not, and has failed.

        Takes a retry off the budget unless it says None.
        """
        if isinstance(error, OperationError) and (
            isinstance(error, PayloadError) or error.type_name not in self.errors
        ):
            return None
        retry = RETRIES[error.category]
        times = retry.times if self.retries is None or not retry.times else self.retries
        if attempts > times:
            return None
        pause = 0.0 if retry.style == "at once" else self._pause(attempts)
        return pause if pause < time_left and self.budget.spend() else None

    def _pause(self, attempts: int) -> float:
        """Anything up to a bound that doubles: calls that failed together do not come back together."""
        return self._random.uniform(0, min(_LONGEST, _FIRST * 2.0 ** min(attempts - 1, 16)))
