"""The actions on recommendations (dismiss) and on the tuner (approve, reject, roll back, freeze, thaw, mode)."""

from __future__ import annotations

from typing import Any

from pool_monitor.service.acting import Acting, Action, Body, Done
from pool_monitor.snapshot import TunerMode


class ReasonBody(Body, frozen=True, kw_only=True):
    """Say why."""

    reason: str = ""


class FreezeBody(Body, frozen=True, kw_only=True):
    """Let the tuner change nothing."""

    reason: str
    """Why, such as ``release``."""
    duration: str | None = None
    """For how long, such as ``1h``; None: until it is thawed."""


class RollbackBody(Body, frozen=True, kw_only=True):
    """Roll back what is on trial, or else the latest change that was kept."""

    everything: bool = False
    """Restore each setting to the value with which its pool began."""


class ProposeBody(Body, frozen=True, kw_only=True):
    """Propose a change by hand."""

    pool: str
    setting: str
    """The name of the tunable, such as ``size``."""
    value: float
    reason: str = ""


class ModeBody(Body, frozen=True, kw_only=True):
    """Set the mode of the tuner."""

    mode: TunerMode


async def _dismiss(monitor: Acting, params: dict[str, str], body: ReasonBody) -> Done:
    monitor.advisor.dismiss(params["id"], body.reason, author=body.author)
    await monitor.advisor.settled()
    return Done(params["id"])


async def _approve(monitor: Acting, params: dict[str, str], body: Body) -> Done:
    monitor.tuner.approve(params["id"], author=body.author)
    await monitor.tuner.settled()
    return Done(params["id"])


async def _reject(monitor: Acting, params: dict[str, str], body: ReasonBody) -> Done:
    monitor.tuner.reject(params["id"], author=body.author, reason=body.reason)
    await monitor.tuner.settled()
    return Done(params["id"])


async def _rollback(monitor: Acting, params: dict[str, str], body: Body) -> Done:
    undone = monitor.tuner.rollback(params["id"], author=body.author)
    await monitor.tuner.settled()
    return Done(params["id"], {"ids": undone})


async def _rollback_latest(monitor: Acting, _params: dict[str, str], body: RollbackBody) -> Done:
    undone = monitor.tuner.rollback(None, everything=body.everything, author=body.author)
    await monitor.tuner.settled()
    return Done("everything" if body.everything else ", ".join(undone), {"ids": undone})


async def _propose(monitor: Acting, _params: dict[str, str], body: ProposeBody) -> Done:
    made = monitor.tuner.propose(body.pool, body.setting, body.value, reason=body.reason, author=body.author)
    await monitor.tuner.settled()
    return Done(f"{made}: {body.setting} of {body.pool}, {body.value:g}", {"id": made})


async def _freeze(monitor: Acting, _params: dict[str, str], body: FreezeBody) -> Done:
    monitor.tuner.freeze(body.reason, body.duration, author=body.author)
    await monitor.tuner.settled()
    return Done(f"{body.reason}, {'until it is thawed' if body.duration is None else f'for {body.duration}'}")


async def _thaw(monitor: Acting, _params: dict[str, str], body: Body) -> Done:
    monitor.tuner.thaw(author=body.author)
    await monitor.tuner.settled()
    return Done("the tuner")


async def _mode(monitor: Acting, _params: dict[str, str], body: ModeBody) -> Done:
    monitor.tuner.set_mode(body.mode, author=body.author)
    await monitor.tuner.settled()
    return Done(f"the tuner: {body.mode}")


TUNING_ACTIONS: tuple[Action[Any], ...] = (
    Action(
        "dismiss", "POST", "/v1/recommendations/{id}/dismiss", ReasonBody, "Dismiss the recommendation {id}?", _dismiss
    ),
    Action("freeze", "POST", "/v1/tuning/freeze", FreezeBody, "Freeze the tuner for {reason}?", _freeze),
    Action("thaw", "POST", "/v1/tuning/thaw", Body, "Let the tuner go on?", _thaw),
    Action("mode", "POST", "/v1/tuning/mode", ModeBody, "Set the mode of the tuner to {mode}?", _mode),
    Action(
        "propose",
        "POST",
        "/v1/tuning/proposals",
        ProposeBody,
        "Propose {value} for the setting {setting} of {pool}?",
        _propose,
    ),
    Action(
        "rollback-latest", "POST", "/v1/tuning/rollback", RollbackBody, "Roll back the latest change?", _rollback_latest
    ),
    Action("approve", "POST", "/v1/tuning/{id}/approve", Body, "Approve the change {id}?", _approve),
    Action("reject", "POST", "/v1/tuning/{id}/reject", ReasonBody, "Reject the change {id}?", _reject),
    Action("rollback", "POST", "/v1/tuning/{id}/rollback", Body, "Roll back the change {id}?", _rollback),
)
