"""Events of alerts."""

from __future__ import annotations

from pool_monitor.events.spec import MONITOR_KEY, declare

ALERT_TRANSITION = declare(
    "alert.transition",
    "An alert changed its state, or its level while it fires.",
    {"system_time": "ns: wall clock", "value": "ratio?: the value that was judged, in the base unit of its metric"},
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "alert": "str: the name of the rule",
        "labels": "dict: the labels of the alert, with severity",
        "fingerprint": "str: 16 hexadecimal digits that name the alert, whatever its level",
        "from": "str: inactive, pending, firing, recovering or resolved",
        "to": "str: the same; from firing to firing, the level changed",
        "severity": "str: the level after the change",
        "reason": "str: why, if it was not the value: such as no_data or rule_removed; else empty",
        "summary": "str: the summary of the rule, with its placeholders replaced",
    },
)

ALERT_NOTIFY = declare(
    "alert.notify",
    "An attempt to send a notification has ended.",
    {
        "duration": "ns: of the attempt",
        "attempt": "count: which attempt it was, from 1 on",
        "alerts": "count: the alerts that it tells",
        "retry_after": "ns?: for how long the receiver wants no message",
    },
    {
        **MONITOR_KEY,
        "service": "str: the monitor's service name",
        "receiver": "str: the name of the receiver",
        "channel": "str: webhook, email, alertmanager, apprise, log or file",
        "id": "str: names the notification, the same for each attempt",
        "group": "str: the key of the group; empty for a digest",
        "status": "str: firing or resolved",
        "reason": "str: why it is told now, such as: first notification",
        "result": "str: sent, retry, refused, gone or too_large",
        "error": "str: in words, without secrets; empty if it was sent",
    },
)
