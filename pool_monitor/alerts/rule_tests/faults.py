"""What comes of an attempt at a receiver that a test has put out of order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pool_monitor.alerts.channels.judgement import Answer, judged
from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.rehearsal import Upshot
from pool_monitor.alerts.rule_tests.suite import Fault

WITHOUT_ANSWER = ("timeout", "reset", "unreachable")
"""What an attempt is called that gets no answer."""
_SLACK = 1e-6


def answered(status: int, retry_after: float | None) -> Outcome:
    """Return what an answer with an HTTP *status* means, and the seconds of its ``Retry-After``, as a webhook judges
    it.
    """
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:.0f}"}
    return judged(Answer(status, headers, ""), 0.0)


def broken(word: str) -> Upshot:
    """Return what comes of an attempt that gets no answer, as a webhook judges it. *word*: of `WITHOUT_ANSWER`."""
    import httpcore

    from pool_monitor.alerts.channels.http import CONNECT_S, STEP_S, unanswered

    if word == "unreachable":
        return Upshot(unanswered(httpcore.ConnectTimeout(), begun=False), CONNECT_S)
    if word == "timeout":
        return Upshot(unanswered(httpcore.ReadTimeout(), begun=True), STEP_S)
    return Upshot(unanswered(httpcore.ReadError(), begun=True))


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
