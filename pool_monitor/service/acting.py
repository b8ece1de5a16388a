"""The handling of requests that change something: what is read, who may, what is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.events import MONITOR_ACTION
from pool_monitor.log import logger, plain
from pool_monitor.service.requester import Requester, requester_of, why_refused

if TYPE_CHECKING:
    from starlette.requests import Request

    from pool_monitor.advisor.manager import Advisor
    from pool_monitor.alerts.manager import AlertManager
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.tuner.manager import Tuner

BODY_MAX = 64 * 1024
"""Longest body of a request, in bytes."""
BODY_S = 10.0
"""Longest time until a whole body has come, in seconds."""
WORDS_MAX = 500
"""Most characters of a text in an event."""
BodyT = TypeVar("BodyT", bound="Body")
_encode = msgspec.json.Encoder().encode


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON object in the body of an action. Without fields of its own: nothing needs to be said."""

    author: str = ""
    """Who acts, as they say themselves. Empty: the user id, where it is known."""


class Acting(Protocol):
    """What actions need of a monitor."""

    config: MonitorConfig
    context: Context

    @property
    def alerts(self) -> AlertManager:
        """The alerts."""

    @property
    def advisor(self) -> Advisor:
        """The advice."""

    @property
    def tuner(self) -> Tuner:
        """The tuner."""


class Done(NamedTuple):
    """What an action did."""

    subject: str
    """What it was about, in words."""
    answer: Any = msgspec.UNSET
    """The value to send back; unset: an empty object."""


class Action(NamedTuple, Generic[BodyT]):
    """One action: what a program may ask of a service, and what follows."""

    name: str
    method: str
    path: str
    body: type[BodyT]
    confirmation: str
    """What a person is asked before it is done. A template of the fields of the body and of the path."""
    run: Callable[[Acting, dict[str, str], BodyT], Awaitable[Done]]
    """Called with the monitor, the parameters of the path, and the body. Raises ConfigError and UnknownName."""


def route_of(action: Action[Any], monitor: Acting, *, local: bool) -> Route:
    """The route of *action*. *local*: it is served on the local socket, which no other user can open."""

    async def handle(request: Request) -> Response:
        why = why_refused(request, local=local, allowed=monitor.config.service.actions)
        if why is not None:
            return JSONResponse({"error": why}, status_code=403)
        problem, raw = await _read(request)
        if problem is not None:
            return problem
        requester = requester_of(request, local=local)
        body = _named(_decoded(raw, action.body), requester)
        params = {name: str(value) for name, value in request.path_params.items()}
        try:
            done = await action.run(monitor, params, body)
        except PoolError as error:
            _note(monitor.context, action.name, requester, body.author, ", ".join(params.values()), str(error))
            raise
        _note(monitor.context, action.name, requester, body.author, done.subject, None)
        answer = {} if done.answer is msgspec.UNSET else done.answer
        return Response(_encode(answer), media_type="application/json")

    return Route(action.path, handle, methods=[action.method])


async def _read(request: Request) -> tuple[Response | None, bytes]:
    """Read the body, or return the answer to a request whose body cannot be taken."""
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                raw += piece
                if len(raw) > BODY_MAX:
                    return _error(413, f"the body is longer than {BODY_MAX // 1024} KiB"), b""
    except TimeoutError:
        return _error(408, f"the body has not come within {BODY_S:g} s"), b""
    except ClientDisconnect:
        return _error(400, "the caller has gone before the whole body had come"), b""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw and kind != "application/json":  # no web page of another site may send this type without being asked for it
        return _error(415, "the body must be JSON: send it with Content-Type: application/json"), b""
    return None, bytes(raw)


def _error(status: int, words: str) -> Response:
    # The rest of a body that was not read would be taken for the next request.
    return JSONResponse({"error": words}, status_code=status, headers={"Connection": "close"})


def _decoded(raw: bytes, kind: type[BodyT]) -> BodyT:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the body does not fit: {error}") from None


def _named(body: BodyT, requester: Requester) -> BodyT:
    if body.author or requester.peer is None:
        return body
    return msgspec.structs.replace(body, author=f"uid {requester.peer.uid}")


def _note(context: Context, action: str, requester: Requester, author: str, subject: str, failed: str | None) -> None:
    """Emit and log an action that was executed."""
    about: dict[str, Any] = {
        "action": action,
        "subject": plain(subject)[:WORDS_MAX],
        "outcome": "done" if failed is None else "failed",
        "reason": plain(failed or "")[:WORDS_MAX],
        "author": plain(author)[:WORDS_MAX],
        "origin": requester.origin,
    }
    if requester.peer is not None:
        about |= {"uid": requester.peer.uid, "pid": requester.peer.pid}
    logger("monitor").warning("an action was taken" if failed is None else "an action failed", **about)
    MONITOR_ACTION.event.emit(
        {"system_time": context.clock.wall_ns()}, {"monitor": context.monitor, "service": context.service, **about}
    )
