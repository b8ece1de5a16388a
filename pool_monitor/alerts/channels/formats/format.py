"""What a format is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pool_monitor.alerts.channels.http import Judge, judged

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification


class Format(NamedTuple):
    """How the notifications of a webhook are written, and what its answers mean."""

    body: Callable[[Notification, str], bytes]
    """The body of a notification. The text is the receiver's secret, for a format whose bodies hold it."""
    judge: Judge = judged
    signed: bool = True
    """Whether the secret of the receiver signs the body."""
