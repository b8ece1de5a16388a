"""What a format is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pool_monitor.alerts.channels.judgement import Answer, Judge, judged
from pool_monitor.alerts.delivery.notification import Outcome

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification

ACCEPTED = 202
"""What PagerDuty answers."""


class Format(NamedTuple):
    """How the notifications of a webhook are written, and what its answers mean."""

    body: Callable[[Notification, str], bytes]
    """The body of a notification. It depends only on that and on the receiver's secret (empty: it has none), so it is
    the same for each attempt.
    """
    judge: Judge = judged
    signed: bool = True
    """Whether the secret of the receiver signs the body."""


def confirmed(answer: Answer, now: float) -> Outcome:
    """As `judged`, for services whose answer says that they took the message. Another page that answers 200, as of a
    proxy that asks for a password, has not.
    """
    outcome = judged(answer, now)
    if outcome.result == "sent" and answer.status != ACCEPTED and not _says_yes(answer.text):
        return Outcome("refused", f"answered {answer.status} without confirming: {answer.text}")
    return outcome


def _says_yes(text: str) -> bool:
    if text.lower() in ("", "ok"):
        return True
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and (
        "success" in (said.get("status"), said.get("result")) or True in (said.get("ok"), said.get("success"))
    )
