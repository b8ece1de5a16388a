"""What an answer over HTTP means. Without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pool_monitor.alerts.channels.secrets import bare_origin
from pool_monitor.alerts.delivery.notification import SENT, Outcome, Result
from pool_monitor.answers import seconds_wanted

EXCERPT_MAX = 256
"""Most characters of an answer in a reason."""

_BY_CLASS: Mapping[int, Result] = {2: "sent", 3: "refused", 4: "refused", 5: "retry"}
_BY_STATUS: Mapping[int, Result] = {408: "retry", 410: "gone", 413: "too_large", 425: "retry", 429: "retry"}


class Answer(NamedTuple):
    """What a receiver answered."""

    status: int
    headers: Mapping[str, str]
    """By name in small letters."""
    text: str = ""
    """The beginning of the body, cleaned, without secrets."""


Judge = Callable[[Answer, float], Outcome]
"""Says what an answer means that arrived at a time, in seconds since the epoch."""


def judged(answer: Answer, now: float) -> Outcome:
    """Return what *answer* means for most receivers."""
    status = answer.status
    result = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, "refused")
    if result == "sent":
        return SENT
    if 300 <= status < 400:
        where = bare_origin(answer.headers.get("location", ""))
        return Outcome("refused", f"answered {status}: moved{f' to {where}' if where else ''}, and is not followed")
    reason = f"answered {status}{f': {answer.text[:EXCERPT_MAX]}' if answer.text else ''}"
    wanted = seconds_wanted(answer.headers.get("retry-after"), now) if result == "retry" else None
    return Outcome(result, reason, retry_after=wanted)
