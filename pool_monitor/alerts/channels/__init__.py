"""Channels: how a notification becomes a message, and how the message is sent.

A *sender* makes the messages of one receiver. It knows nothing of retries, order or limits: it tries once, within a
total time, and says what came of it. A text in its outcome is cleaned, and has no secret.
"""

from __future__ import annotations

from pool_monitor.alerts.channels.sender import Sender
from pool_monitor.alerts.channels.table import import_senders, sender_of

__all__ = ["Sender", "import_senders", "sender_of"]
