"""The requests over HTTP that do something, and not only read what is known.

`ACTIONS` is the table of those that change something: they need ``[service] actions = true``. The stack of a worker
changes nothing, but interrupts it: it is answered over the local socket alone, which no other user can open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pool_monitor.service.acting import Acting, Action, route_of
from pool_monitor.service.alert_actions import ALERT_ACTIONS
from pool_monitor.service.listener import Listener
from pool_monitor.service.stacks import Samplings, StackReading, StackSamples, checked_seconds, sample
from pool_monitor.service.tuning_actions import TUNING_ACTIONS

if TYPE_CHECKING:
    Handler = Callable[[Request], Awaitable[Response]]

ACTIONS: tuple[Action[Any], ...] = (*ALERT_ACTIONS, *TUNING_ACTIONS)
"""Every action that changes something."""
_encode = msgspec.json.Encoder().encode


class Actor(Acting, Protocol):
    """What the actions need of a monitor."""

    async def stack(self, pool: str, slot: str) -> StackReading:
        """What a worker does now. Raises UnknownName."""


def action_routes(source: Actor, *, local: bool) -> list[Route]:
    """The routes of the actions. *local*: they are served on the local socket."""
    samplings = Samplings()

    async def stack(request: Request) -> Response:
        pool, slot = request.path_params["pool"], request.path_params["slot"]
        seconds = checked_seconds(request.query_params.get("seconds"))
        take = partial(source.stack, pool, slot)
        told: StackReading | StackSamples
        if seconds is None:
            told = await take()
        else:
            with samplings.one(pool, slot):
                told = await sample(take, seconds, _wanted_by(request))
        return Response(_encode(told), media_type="application/json")

    def route(path: str, handler: Handler) -> Route:
        return Route(path, handler if local else _refusing(handler), methods=["POST"])

    return [
        route("/v1/pools/{pool:path}/workers/{slot:path}/stack", stack),
        *(route_of(action, source, local=local) for action in ACTIONS),
    ]


def _wanted_by(request: Request) -> Callable[[], Awaitable[bool]]:
    """Whether a long answer is still wanted: not when the client has gone, and not when the server is stopping, because
    it waits for the answer.
    """
    listener = Listener(request.scope.get("server"))

    async def wanted() -> bool:
        return not listener.closed() and not await request.is_disconnected()

    return wanted


def _refusing(handler: Handler) -> Handler:
    @wraps(handler)
    async def refuse(_request: Request) -> Response:
        why = "a mounted app takes no stacks: use the service's local socket, as the command line does"
        return JSONResponse({"error": why}, status_code=403)

    return refuse
