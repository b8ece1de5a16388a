"""The actions on alerts (silence, unsilence, acknowledge) and on their receivers (test)."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_monitor.service.acting import Acting, Action, Body, Done


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A matcher that is a shell pattern."""

    glob: str


class SilenceBody(Body, frozen=True, kw_only=True):
    """Silence the alerts that match."""

    matchers: dict[str, str | Pattern]
    """Label -> the text that it must be, or a pattern."""
    duration: str
    """For how long, such as ``2h``."""
    comment: str = ""
    starts_in: str | None = None
    """After how long it begins; None: now."""


class AckBody(Body, frozen=True, kw_only=True):
    """Acknowledge an alert."""

    comment: str = ""
    duration: str | None = None
    """For how long; None: until it is resolved."""


async def _silence(monitor: Acting, _params: dict[str, str], body: SilenceBody) -> Done:
    matchers: dict[str, Any] = {
        label: {"glob": value.glob} if isinstance(value, Pattern) else value for label, value in body.matchers.items()
    }
    made = monitor.alerts.silence(
        matchers, duration=body.duration, comment=body.comment, author=body.author, starts_in=body.starts_in
    )
    await monitor.alerts.settled()
    words = ", ".join(
        f"{label} is like {value.glob}" if isinstance(value, Pattern) else f"{label} is {value}"
        for label, value in body.matchers.items()
    )
    return Done(f"{made}: alerts whose {words}, for {body.duration}", {"id": made})


async def _unsilence(monitor: Acting, params: dict[str, str], _body: Body) -> Done:
    monitor.alerts.unsilence(params["id"])
    await monitor.alerts.settled()
    return Done(params["id"])


async def _ack(monitor: Acting, params: dict[str, str], body: AckBody) -> Done:
    fingerprint = params["fingerprint"]
    monitor.alerts.ack(fingerprint, author=body.author, comment=body.comment, duration=body.duration)
    await monitor.alerts.settled()
    return Done(fingerprint)


async def _unack(monitor: Acting, params: dict[str, str], _body: Body) -> Done:
    monitor.alerts.unack(params["fingerprint"])
    await monitor.alerts.settled()
    return Done(params["fingerprint"])


async def _test(monitor: Acting, params: dict[str, str], _body: Body) -> Done:
    outcome = await monitor.alerts.test_receiver(params["receiver"])
    came = "it has arrived" if outcome.result == "sent" else outcome.reason or outcome.result
    return Done(f"{params['receiver']}: {came}", {"sent": outcome.result == "sent", "reason": outcome.reason})


ALERT_ACTIONS: tuple[Action[Any], ...] = (
    Action(
        "silence",
        "POST",
        "/v1/alerts/silences",
        SilenceBody,
        "Silence alerts with {matchers} for {duration}?",
        _silence,
    ),
    Action("unsilence", "DELETE", "/v1/alerts/silences/{id}", Body, "End the silence {id}?", _unsilence),
    Action("ack", "POST", "/v1/alerts/{fingerprint}/ack", AckBody, "Acknowledge the alert {fingerprint}?", _ack),
    Action(
        "unack",
        "DELETE",
        "/v1/alerts/{fingerprint}/ack",
        Body,
        "Take back the acknowledgement of {fingerprint}?",
        _unack,
    ),
    Action("test", "POST", "/v1/alerts/receivers/{receiver}/test", Body, "Send a test message to {receiver}?", _test),
)
