"""A digest: many notifications of one receiver in one message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.digest import Digest
from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert

AT = 1_700_000_000.0
RANK = {"critical": 0, "warning": 2}


def urgency(alert: ToldAlert) -> tuple[float, ...]:
    return (alert.status != "firing", RANK[alert.severity], alert.starts_at)


def told(number: int, *, firing: bool = True, severity: str = "warning", rule: str = "Slow") -> ToldAlert:
    return ToldAlert(
        alertname=rule,
        labels={"severity": severity},
        fingerprint=f"{number:016x}",
        status="firing" if firing else "resolved",
        severity=severity,
        starts_at=AT + number,
    )


def part(*alerts: ToldAlert, more: int = 0) -> Notification:
    """Return a notification of one group, which counts *more* firing alerts than it lists."""
    firing = sum(one.status == "firing" for one in alerts) + more
    return Notification(
        id="msg_1",
        receiver="ops",
        group_key="{}:{}",
        group_labels={},
        reason="first notification",
        status="firing" if firing else "resolved",
        alerts=alerts,
        firing=firing,
        resolved=len(alerts) + more - firing,
        at=AT,
    )


def digest(*parts: Notification, held_for: float = 30.0) -> Notification:
    found = Digest(urgency)
    for one in parts:
        found.add(one)
    return found.notification(id="msg_d", receiver="ops", service="shop", at=AT, held_for=held_for)


def test_it_says_how_much_it_stands_for() -> None:
    found = digest(part(told(1), more=9), part(told(2, firing=False, rule="Gone")))
    assert found.about == "2 messages were held back in 30 s: 11 alerts of 2 rules, 10 firing and 1 resolved"
    assert (found.groups, found.firing, found.resolved, found.truncated) == (2, 10, 1, 9)
    assert (found.group_key, found.reason, found.status) == ("", "digest", "firing")


def test_what_was_due_at_once_was_not_held_back() -> None:
    found = digest(*(part(told(number)) for number in range(13)), held_for=0.0)
    assert found.about == "13 messages were due at once: 13 alerts of 1 rule, 13 firing and 0 resolved"


def test_one_message_is_told_in_the_singular() -> None:
    assert digest(part(told(1))).about.startswith("1 message was held back in 30 s: 1 alert of 1 rule")


def test_of_ended_alerts_alone_it_is_resolved() -> None:
    assert digest(part(told(1, firing=False))).status == "resolved"


@given(
    groups=st.lists(
        st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(RANK))), min_size=1, max_size=30), max_size=40
    )
)
def test_the_counts_add_up_and_the_most_urgent_alerts_are_listed(groups: list[list[tuple[bool, str]]]) -> None:
    parts, number = [], 0
    every = []
    for group in groups:
        alerts = [
            told(number + index, firing=firing, severity=severity) for index, (firing, severity) in enumerate(group)
        ]
        number += len(alerts)
        every += alerts
        parts.append(part(*alerts))
    found = digest(*parts)
    assert found.alerts == tuple(sorted(every, key=urgency)[:ALERTS_MAX])
    assert found.firing == sum(one.status == "firing" for one in every)
    assert found.firing + found.resolved == len(every)
    assert found.groups == len(groups)
