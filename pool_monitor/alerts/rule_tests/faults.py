"""What comes of an attempt at a receiver that a test has put out of order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.rehearsal import Upshot
from pool_monitor.alerts.rule_tests.suite import Fault

WORDS: Mapping[str, Upshot] = {
    "timeout": Upshot(Outcome("retry", "no answer within 10 s", unsure=True), 10.0),
    "reset": Upshot(Outcome("retry", "the connection ended before the answer", unsure=True)),
    "unreachable": Upshot(Outcome("retry", "no connection within 3 s"), 3.0),
}
"""What comes of an attempt that gets no answer."""


def answered(status: int, retry_after: float | None) -> Outcome:
    """Return what an answer with an HTTP *status* means, and the seconds of its ``Retry-After``."""
    if status < 300:
        return SENT
    return Outcome("retry", f"answered {status}", retry_after=retry_after)


def answers(faults: Sequence[Fault], start: float) -> Callable[[Notification, float], Upshot]:
    """Return what answers attempts with *faults*, which are of a test that began at *start*. The first one that is for
    the receiver and time of an attempt answers it; without one, it arrives.
    """
    left = list(faults)

    def answer(notification: Notification, at: float) -> Upshot:
        time = at - start + _SLACK
        for fault in left:
            if fault.receiver == notification.receiver and fault.starts_at <= time:
                if fault.ends_at is None:
                    left.remove(fault)
                elif time >= fault.ends_at:
                    continue
                return fault.upshot
        return Upshot(SENT)

    return answer


_SLACK = 1e-6
