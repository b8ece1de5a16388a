"""Advice and tuning over HTTP, to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from starlette.routing import Route

from pool_monitor.errors import ConfigError
from pool_monitor.service import TRANSITIONS_MAX
from pool_monitor.snapshot import AdviceReport, Explanation, TuningReport

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pool_monitor.advisor.manager import Advisor
    from pool_monitor.tuner.manager import Tuner

CHANGES = 100
"""Changes in an answer, unless a number is asked for."""


class Tuned(Protocol):
    """What these answers need of a monitor."""

    @property
    def advisor(self) -> Advisor:
        """The advice."""

    @property
    def tuner(self) -> Tuner:
        """The tuner."""


def tuning_routes(source: Tuned, answer: Callable[[Request, Any], Awaitable[Response]]) -> list[Route]:
    """The routes. *answer* makes the response of a value."""

    async def advice(request: Request) -> Response:
        return await answer(request, AdviceReport(recommendations=source.advisor.recommendations()))

    async def explain_advice(request: Request) -> Response:
        return await answer(request, Explanation(text=source.advisor.explain(request.path_params["id"])))

    async def tuning(request: Request) -> Response:
        tuner, limit = source.tuner, _limit(request.query_params.get("limit"))
        return await answer(request, TuningReport(tuning=tuner.view(), history=tuner.history(limit)))

    async def explain_trial(request: Request) -> Response:
        return await answer(request, Explanation(text=source.tuner.explain(request.path_params["id"])))

    return [
        Route("/v1/recommendations", advice),
        Route("/v1/recommendations/{id}/explain", explain_advice),
        Route("/v1/tuning", tuning),
        Route("/v1/tuning/{id}/explain", explain_trial),
    ]


def _limit(text: str | None) -> int:
    if text is None:
        return CHANGES
    if text.isascii() and text.isdecimal() and int(text[:9]) <= TRANSITIONS_MAX:
        return int(text[:9])
    raise ConfigError(f"limit={text!r:.80}: needs a whole number from 0 to {TRANSITIONS_MAX}")
