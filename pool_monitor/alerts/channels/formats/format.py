"""What a format is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification


class Format(NamedTuple):
    """How the notifications of a webhook are written."""

    body: Callable[[Notification], bytes]
    """The body of a notification. It depends on nothing else, so it is the same for each attempt."""
