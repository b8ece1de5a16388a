"""One message to one receiver, and what came of trying to send it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

Status = Literal["firing", "resolved"]
Result = Literal["sent", "retry", "refused", "gone", "too_large"]
"""What came of an attempt:

- ``sent``: the receiver has it.
- ``retry``: it is tried again after a pause.
- ``refused``: trying again does not help as things are. It is *parked*: tried rarely, and fallbacks are told.
- ``gone``: the receiver wants no message any more.
- ``too_large``: a smaller message may be accepted.
"""

TEST = "test"
"""The reason of a message that a person asked for to see whether it arrives."""
ALERTS_MAX = 100
"""Most alerts that a notification lists. It counts all of them."""


class ToldAlert(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An alert as a notification tells it. Times are seconds since the epoch."""

    alertname: str
    labels: dict[str, str]
    """With ``severity``, without ``alertname``."""
    fingerprint: str
    status: Status
    severity: str
    starts_at: float
    """When it began to fire."""
    ends_at: float | None = None
    """When it was resolved; None: it fires."""
    summary: str = ""
    runbook: str = ""
    annotations: dict[str, str] = {}
    value: float | None = None
    """In the base unit of its metric; None: unknown."""
    value_text: str = ""
    unit: str = ""
    limit: float | None = None
    """The bound that the value was judged against."""
    reason: str = ""
    """Why it ended, if that is not its value: such as no_data, rule_removed or route_changed."""
    acknowledged_by: str = ""
    flapping: bool = False
    delayed: bool = False
    """It began and ended before the receiver could be told that it fires."""
    values: tuple[float | None, ...] = ()
    """The measured value up to now, the oldest first, at equal distances; None: unknown. Empty: not known at all."""
    values_s: float = 0.0
    """The time that *values* span."""


class Notification(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message. It is stored before it is sent, and does not change: each attempt sends the same."""

    id: str
    """Names it for the receiver, who may get it twice. The same for each attempt and after a restart."""
    receiver: str
    group_key: str
    """As Alertmanager writes it: ``{}/{severity="critical"}:{alertname="Lat"}``. Empty: a digest."""
    group_labels: dict[str, str]
    reason: str
    """Why it is told now: first notification, new alerts added, some alerts resolved, all alerts resolved, repeat
    interval elapsed (Alertmanager's words), level changed, flapping, escalated, fallback, digest, test."""
    status: Status
    """firing: at least one of its alerts fires."""
    alerts: tuple[ToldAlert, ...]
    """Firing first, the worst first; at most `ALERTS_MAX`."""
    firing: int
    resolved: int
    """All of them, also those that *alerts* has no room for."""
    at: float
    """When it was made."""
    service: str = ""
    page: bool = False
    about: str = ""
    """More words on why the receiver is told, such as whom nobody acknowledged it at."""
    groups: int = 1
    """The groups that it speaks of. A digest speaks of several."""

    @property
    def truncated(self) -> int:
        """The alerts that are counted and not listed."""
        return self.firing + self.resolved - len(self.alerts)


class Outcome(NamedTuple):
    """What came of one attempt to send a notification."""

    result: Result
    reason: str = ""
    """In words, cleaned, without any secret; empty: it was sent."""
    retry_after: float | None = None
    """For how many seconds the receiver wants no message at all; None: it did not say."""
    unsure: bool = False
    """Whether it may have arrived all the same, as after a time-out."""


SENT = Outcome("sent")
