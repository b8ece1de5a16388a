"""The format ``slack``: blocks for Slack's incoming webhooks, and for those who read the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.channels.formats.format import Format, confirmed
from pool_monitor.alerts.channels.formats.writing import encoded, is_link
from pool_monitor.alerts.channels.text import cut, details, headline, subject

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert

SECTION_MAX, HEADER_MAX, BLOCKS_MAX, TEXT_MAX = 3000, 150, 50, 30_000
"""Slack's limits of a section, a header and the blocks, in characters; it cuts a message after 35,000."""
_MARKS = {"emergency": "🔴", "critical": "🔴", "error": "🟠", "warning": "🟡", "info": "🔵"}
_UNKNOWN_MARK, _RESOLVED_MARK = "🟡", "🟢"


def _body(notification: Notification, _key: str) -> bytes:
    title = subject(notification)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(title, HEADER_MAX), "emoji": False}},
        {"type": "context", "elements": [_mrkdwn(escaped(cut(_why(notification), 500)))]},
    ]
    left, listed = TEXT_MAX - len(title), 0
    for alert in notification.alerts:
        text = _told(alert)
        # The last block is for what is not listed.
        if len(blocks) + 1 >= BLOCKS_MAX or len(text) > left:
            break
        blocks.append({"type": "section", "text": _mrkdwn(text)})
        left, listed = left - len(text), listed + 1
    if rest := notification.firing + notification.resolved - listed:
        blocks.append({"type": "context", "elements": [_mrkdwn(f"{rest} more alerts are not listed.")]})
    return encoded({"text": escaped(title), "blocks": blocks})


def _why(notification: Notification) -> str:
    return " · ".join(filter(None, (notification.reason, notification.about, notification.service)))


def _told(alert: ToldAlert) -> str:
    """The text of one alert: what is wrong, then as many of its details as there is room for. A part is cut before it
    is escaped, which makes a character at most five, so that no escape and no link is cut in two.
    """
    mark = _RESOLVED_MARK if alert.status == "resolved" else _MARKS.get(alert.severity, _UNKNOWN_MARK)
    name, _, said = cut(headline(alert), 450).partition(": ")
    text, before = f"{mark} *{escaped(name)}*{f': {escaped(said)}' if said else ''}", "\n"
    for detail in _details(alert):
        if len(text) + len(before) + len(detail) <= SECTION_MAX:
            text, before = f"{text}{before}{detail}", " · "
    return text


def _details(alert: ToldAlert) -> Iterator[str]:
    for text in details(alert):
        yield escaped(cut(text, 120))
    if alert.acknowledged_by:
        yield escaped(cut(f"acknowledged by {alert.acknowledged_by}", 50))
    if alert.delayed:
        yield "told late"
    if alert.flapping:
        yield "flapping"
    link = escaped(alert.runbook.replace("|", "%7C"))
    if is_link(alert.runbook) and len(link) < 500:
        yield f"<{link}|runbook>"


def escaped(text: str) -> str:
    """Return *text* so that Slack shows it and reads no link, mention or command in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


SLACK = Format(_body, confirmed)
