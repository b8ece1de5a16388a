"""Decides whether a call that failed is sent again, and when. No I/O, no clock.

Only calls that were declared idempotent may be sent again; the code that uses this module checks that first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from pool_monitor.errors import Category, OperationError, PayloadError, PoolError

if TYPE_CHECKING:
    from pool_monitor.pool.policy.jitter import Jitter

_PAUSE_MAX = 5.0


class Retry(NamedTuple):
    """How often a call is sent again, and whether after a growing pause or at once."""

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
"""The retries by category of the error. ``operation`` applies only to the target's exceptions that the configuration
names."""


class RetryBudget:
    """The number of retries that may still be made: *initial* at first; each call adds *ratio*, up to *cap*.

    So retries cannot multiply the load of a pool that fails because of its load.
    """

    __slots__ = ("_calls", "_cap", "_most", "_price", "refused")

    def __init__(self, ratio: float, cap: int = 50, initial: int = 10) -> None:
        # Counted in calls, not in fractions of a retry: as floats, ten tenths add up to less than one.
        self._cap = cap
        self._price = 1 / ratio if ratio else 1.0
        self._most = cap * self._price if ratio else 0.0
        self._calls = min(initial * self._price, self._most)
        self.refused = 0
        """Retries that were not made because the budget was used up."""

    def change(self, ratio: float) -> None:
        """Change what a call adds. The retries that are left stay, as far as the cap allows."""
        left = self._calls / self._price if self._most else 0.0
        self._price = 1 / ratio if ratio else 1.0
        self._most = self._cap * self._price if ratio else 0.0
        self._calls = min(left * self._price, self._most)

    def earn(self) -> None:
        """Add the share of one call."""
        if self._calls < self._most:
            self._calls += 1

    def spend(self) -> bool:
        """Take one retry off the budget. Returns False, and counts a refusal, if none is left."""
        if self._calls < self._price:
            self.refused += 1
            return False
        self._calls -= self._price
        return True


class RetryPolicy:
    """Decides by `RETRIES`. *retries* replaces its numbers, except where they are 0. *errors* are the type names of the
    target's exceptions after which a call is sent again. Pauses are drawn from *rng*. The longest pause before the
    second attempt is *delay* seconds; it doubles with each further attempt.
    """

    __slots__ = ("_random", "budget", "delay", "errors", "retries")

    def __init__(
        self, retries: int | None, errors: frozenset[str], budget: RetryBudget, rng: Jitter, delay: float = 0.05
    ) -> None:
        self.retries, self.errors, self.budget = retries, errors, budget
        self._random, self.delay = rng, delay

    def decide(self, error: PoolError, attempts: int, time_left: float) -> float | None:
        """Return the seconds to wait before a call is sent again after *attempts* attempts. None: do not send it again.

        Takes one retry off the budget unless it returns None.
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
        """Draw a pause between 0 and a bound that doubles, so that calls that failed together are not sent together."""
        return self._random.uniform(0, min(max(_PAUSE_MAX, self.delay), self.delay * 2.0 ** min(attempts - 1, 16)))
