"""A notification of each kind that a receiver sees differently."""

from __future__ import annotations

from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification
from tests.helpers.notifications import ended, notification, told

HOSTILE = 'a\x00b\x1b[31m\r\n\u202e\u200b\u2028 <!channel> <@U1> & "q" \\ `c` *b* {x} \ud800 \U0001f600'


def kinds() -> dict[str, Notification]:
    """Return one notification of each kind, by its name."""
    unknown = told(
        2, severity="warning", value=None, value_text="", limit=None, values=(), summary="", runbook="", annotations={}
    )
    late = ended(3, delayed=True, reason="no_data")
    hostile = told(
        1, severity="odd", alertname=HOSTILE, summary=HOSTILE, runbook=f"javascript:{HOSTILE}", reason=HOSTILE,
        labels={"pool": HOSTILE}, annotations={"summary": HOSTILE, "more": HOSTILE}, value=float("inf"),
        value_text=HOSTILE, unit=HOSTILE, values=(float("nan"), float("inf"), 1e308, -1e308, None),
        acknowledged_by=HOSTILE, starts_at=-1e300,
    )  # fmt: skip
    return {
        "firing": notification(told(), unknown),
        "resolved": notification(ended(), late, reason="all alerts resolved"),
        "digest": notification(
            told(), told(2, flapping=True), ended(3), reason="digest", group_key="", group_labels={}, groups=3,
            about="3 groups were held back by the rate limit",
        ),
        "many": notification(*(told(number) for number in range(ALERTS_MAX)), firing=250),
        "hostile": notification(
            hostile, group_labels={"pool": HOSTILE}, group_key=f"{{}}:{{{HOSTILE}}}", about=HOSTILE, service=HOSTILE,
            receiver=HOSTILE, reason=HOSTILE,
        ),
        "empty": notification(alerts=(), firing=5, resolved=7),
    }  # fmt: skip
