"""How it stands with one receiver: whether it may be sent anything now, and when again. Pure; times are seconds.

An attempt that fails in a way that may pass is followed by a pause with full jitter: a random time up to a limit that
doubles with each failure in a row. After `OPENS_AFTER` failures in a row the breaker opens: only single attempts, far
apart, find out whether the receiver works again. A receiver that names a time (``Retry-After``) is left alone until
then. One that refuses a message gets its other messages, and that one again now and then.
"""

from __future__ import annotations

from enum import StrEnum
from typing import get_args

import msgspec
from msgspec import Struct

from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.snapshot import ReceiverState
from pool_monitor.state_machine import StateMachine

BACKOFF_MAX_S = 300.0
"""Longest pause after a failure, as long as the breaker is closed."""
OPENS_AFTER = 5
"""Failures in a row that open the breaker."""
OPEN_S = (30.0, 600.0)
"""The first and the longest pause between two attempts while the breaker is open. Each doubles the one before."""
RETRY_AFTER_MAX_S = 3600.0
"""Longest pause that a receiver can ask for."""
RETRY_AFTER_JITTER = 0.05
"""A pause that a receiver asks for is longer by up to this share of it, and never shorter."""
PROBE_S = 300.0
"""Time between two attempts to send something that was refused."""
PROBE_AGAIN_S = 30.0
"""The same, if something else was accepted in between: then the receiver may accept it too."""
_ERROR_MAX = 500


class ReceiverPhase(StrEnum):
    """`snapshot.ReceiverState` says what each means."""

    READY = "ready"
    RETRYING = "retrying"
    PAUSED = "paused"
    OPEN = "open"
    PARKED = "parked"
    GONE = "gone"


assert tuple(ReceiverPhase) == get_args(ReceiverState)

_OPEN_ROW = {
    "sent": ReceiverPhase.READY,
    "paused": ReceiverPhase.PAUSED,
    "opened": ReceiverPhase.OPEN,
    "refused": ReceiverPhase.PARKED,
    "gone": ReceiverPhase.GONE,
    "changed": ReceiverPhase.READY,
}
_ROW = {**_OPEN_ROW, "failed": ReceiverPhase.RETRYING}

CONTACT = StateMachine(
    "receiver",
    ReceiverPhase.READY,
    {
        ReceiverPhase.READY: _ROW,
        ReceiverPhase.RETRYING: _ROW,
        ReceiverPhase.PAUSED: _ROW,
        ReceiverPhase.OPEN: _OPEN_ROW,
        ReceiverPhase.PARKED: _ROW,
        ReceiverPhase.GONE: {"changed": ReceiverPhase.READY},
    },
)
"""The states of a receiver. ``changed``: its configuration, or a person wants it to be tried now."""


class Contact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One receiver. Times are seconds since the epoch."""

    state: ReceiverPhase = ReceiverPhase.READY
    failures: int = 0
    """In a row."""
    blocked_until: float = 0.0
    """Nothing is sent before."""
    open_s: float = 0.0
    """The latest pause of the breaker."""
    probed_at: float = 0.0
    """When something refused was tried last."""
    probe_at: float = 0.0
    """When it is tried next."""
    arrived_at: float | None = None
    """When a notification arrived last; None: none has."""
    error: str = ""
    """Why the latest attempt failed; empty: it did not."""
    lost: int = 0
    """Notifications that were given up."""
    config: str = ""
    """Names its configuration: one that is gone stays gone until this is another. Empty: not known yet."""

    def next_at(self, at: float) -> float | None:
        """Return when it is tried again, seen from *at*; None: it is not, or nothing is in the way."""
        if self.state is ReceiverPhase.GONE or self.state is ReceiverPhase.READY:
            return None
        return self.blocked_until if self.blocked_until > at else self.probe_at or None

    def after(self, outcome: Outcome, at: float, chance: float) -> Contact:
        """Return the contact as it is when an attempt has ended. *chance*: a random number from 0 to 1."""
        if outcome.result == "sent":
            return self._replaced(
                "sent", failures=0, blocked_until=0.0, open_s=0.0, probe_at=self._probe_again(at), arrived_at=at
            )
        error = outcome.reason[:_ERROR_MAX] or outcome.result
        if outcome.result == "gone":
            return self._replaced("gone", error=error)
        if outcome.result == "retry":
            return self._after_failure(outcome.retry_after, at, chance, error)
        blocked = self._paused(outcome.retry_after, at, chance)
        return self._replaced(
            "refused", failures=0, blocked_until=blocked, open_s=0.0, probed_at=at, probe_at=at + PROBE_S, error=error
        )

    def probed(self, at: float) -> Contact:
        """Return the contact as it is when something that was refused is tried once more."""
        return msgspec.structs.replace(self, probed_at=at, probe_at=at + PROBE_S)

    def changed(self) -> Contact:
        """Return the contact as it is when everything may be tried at once."""
        return self._replaced("changed", failures=0, blocked_until=0.0, open_s=0.0, probe_at=0.0)

    def clamped(self, at: float) -> Contact:
        """Return the same, without pauses that cannot be, because the clock was ahead when they began."""
        return msgspec.structs.replace(
            self,
            blocked_until=min(self.blocked_until, at + RETRY_AFTER_MAX_S * (1 + RETRY_AFTER_JITTER)),
            probe_at=min(self.probe_at, at + PROBE_S),
            probed_at=min(self.probed_at, at),
            arrived_at=None if self.arrived_at is None else min(self.arrived_at, at),
        )

    def _after_failure(self, retry_after: float | None, at: float, chance: float, error: str) -> Contact:
        failures, open_s, trigger = self.failures + 1, 0.0, "failed"
        if failures >= OPENS_AFTER:
            trigger = "opened"
            open_s = min(max(2 * self.open_s, OPEN_S[0]), OPEN_S[1])
            blocked = at + open_s
        else:
            blocked = at + chance * min(BACKOFF_MAX_S, 2.0 ** (failures - 1))
        if retry_after is not None:
            asked = self._paused(retry_after, at, chance)
            if trigger == "failed":  # it knows better than the backoff
                trigger, blocked = "paused", asked
            blocked = max(blocked, asked)
        return self._replaced(trigger, failures=failures, blocked_until=blocked, open_s=open_s, error=error)

    def _paused(self, retry_after: float | None, at: float, chance: float) -> float:
        if retry_after is None:
            return 0.0
        return at + min(max(retry_after, 0.0), RETRY_AFTER_MAX_S) * (1 + RETRY_AFTER_JITTER * chance)

    def _probe_again(self, at: float) -> float:
        return min(max(self.probed_at + PROBE_AGAIN_S, at), self.probe_at) if self.probe_at else at

    def _replaced(self, trigger: str, *, error: str = "", **fields: float | str) -> Contact:
        return msgspec.structs.replace(self, state=CONTACT.step(self.state, trigger), error=error, **fields)
