"""The alerts over HTTP, to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, get_args

from starlette.routing import Route

from pool_monitor.errors import ConfigError
from pool_monitor.service import TRANSITIONS_MAX
from pool_monitor.snapshot import AlertReport, AlertState

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pool_monitor.alerts.manager import AlertManager

TRANSITIONS = 100
"""Changes in an answer, unless a number is asked for."""
_STATES = get_args(AlertState)


class Alerting(Protocol):
    """What these answers need of a monitor."""

    @property
    def alerts(self) -> AlertManager:
        """The alerts."""


def alert_routes(source: Alerting, answer: Callable[[Request, Any], Awaitable[Response]]) -> list[Route]:
    """The routes. *answer* makes the response of a value."""

    async def report(request: Request) -> Response:
        states, limit = _states(request.query_params.get("state")), _limit(request.query_params.get("limit"))
        alerts = source.alerts
        shown = tuple(one for one in alerts.shown() if one.state in states)
        found = AlertReport(
            alerts=shown,
            silences=alerts.silences(),
            transitions=alerts.history(limit),
            receivers=alerts.view().receivers,
        )
        return await answer(request, found)

    async def rules(request: Request) -> Response:
        return await answer(request, source.alerts.rules())

    return [Route("/v1/alerts", report), Route("/v1/alerts/rules", rules)]


def _states(text: str | None) -> frozenset[str]:
    found = frozenset(_STATES if text is None else text.split(","))
    if found <= set(_STATES):
        return found
    raise ConfigError(f"state={text!r:.80}: needs one of {', '.join(_STATES)}, or several with commas")


def _limit(text: str | None) -> int:
    if text is None:
        return TRANSITIONS
    if text.isascii() and text.isdecimal() and int(text[:9]) <= TRANSITIONS_MAX:
        return int(text[:9])
    raise ConfigError(f"limit={text!r:.80}: needs a whole number from 0 to {TRANSITIONS_MAX}")
