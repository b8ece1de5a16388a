"""The requests over HTTP that do something to a pool, and not only read what is known. They are answered over the local
socket alone, which no other user can open; a mounted app refuses them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pool_monitor.service.listener import Listener
from pool_monitor.service.stacks import Samplings, StackReading, StackSamples, checked_seconds, sample

if TYPE_CHECKING:
    Handler = Callable[[Request], Awaitable[Response]]

_encode = msgspec.json.Encoder().encode


class StackTaker(Protocol):
    """What the actions need of a monitor."""

    async def stack(self, pool: str, slot: str) -> StackReading:
        """What a worker does now. Raises UnknownName."""


def action_routes(source: StackTaker, *, local: bool) -> list[Route]:
    """The routes of the actions. Unless *local*, each answers 403."""
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

    return [route("/v1/pools/{pool:path}/workers/{slot:path}/stack", stack)]


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
        why = "a mounted app only reads: use the service's local socket, as the command line does"
        return JSONResponse({"error": why}, status_code=403)

    return refuse
