"""The HTTP interface of a monitor: one small ASGI app. It only reads, unless ``[service] actions = true``.

Mount it in a Starlette or FastAPI service, or let the monitor serve it on a Unix socket (server.py). The URLs are the
same.

    GET /                        the list of these URLs
    GET /v1/snapshot?window=5m   one Snapshot as JSON
    GET /v1/stream?window=5m     a Snapshot at every tick, as server-sent events, with comments between them as
                                 heartbeat. It ends when the monitor is left. When the server stops, its last event is
                                 ``again``: another process may then serve the same address
    GET /v1/summary?window=15m   a Summary as JSON
    GET /v1/range?start=&end=&step=&pool=&operation=&worker=
                                 a Range as JSON, from memory, or from the history if memory does not reach back that
                                 far; start and end are seconds since the epoch
    GET /v1/range?start=&end=&step=&resource=
                                 a ResourceRange, in the same way: the figures of ``host``, ``process``, ``loop``,
                                 ``gpu INDEX``, ``worker SLOT``, or ``all``
    GET /v1/errors?window=5m&pool=
                                 an ErrorReport as JSON: the error groups of every pool, or of one
    GET /v1/alerts?state=&limit= an AlertReport as JSON: the alerts, or those in a *state* (or several, with commas),
                                 the silences, the latest changes, at most *limit* (100), and the receivers
    GET /v1/alerts/rules         the rules that are evaluated, as a list of RuleView
    POST /v1/alerts/silences     silence alerts: ``{"matchers": {"alertname": "X", "pool": {"glob": "text*"}},
                                 "duration": "2h", "comment": "", "author": "", "starts_in": null}``. Answers
                                 ``{"id": ...}``. This and the next four only where ``[service] actions = true``; over
                                 TCP, only from this machine
    DELETE /v1/alerts/silences/ID                  end a silence
    POST /v1/alerts/FINGERPRINT/ack                acknowledge an alert: ``{"comment": "", "author": "",
                                 "duration": null}``
    DELETE /v1/alerts/FINGERPRINT/ack              take that back
    POST /v1/alerts/receivers/NAME/test            send a test message. Answers ``{"sent": true, "reason": ""}``
    GET /v1/recommendations      an AdviceReport as JSON: what the advisor recommends, the most urgent first
    GET /v1/recommendations/ID/explain             why, as ``{"text": ...}``
    POST /v1/recommendations/ID/dismiss            show it no more: ``{"reason": "", "author": ""}``. This and the next
                                 only where ``[service] actions = true``; over TCP, only from this machine
    GET /v1/tuning?limit=        a TuningReport as JSON: the tuner, and its latest changes, at most *limit* (100)
    GET /v1/tuning/ID/explain    why a change is tried, was kept or rolled back, as ``{"text": ...}``
    POST /v1/tuning/ID/approve   let a change that waits begin. So also ``reject`` (``{"reason": ""}``) and ``rollback``
    POST /v1/tuning/rollback     roll back the latest change, or with ``{"everything": true}`` all of them
    POST /v1/tuning/proposals    propose a change: ``{"pool": "text", "setting": "size", "value": 6, "reason": ""}``.
                                 Answers ``{"id": ...}``
    POST /v1/tuning/freeze       change nothing: ``{"reason": "release", "duration": "1h"}``; ``/thaw`` ends it
    POST /v1/tuning/mode         ``{"mode": "off" | "recommend" | "auto"}``
    GET /metrics?window=5m       everything counted since the monitor was entered, for Prometheus, with percentiles of
                                 the window
    POST /v1/pools/NAME/workers/SLOT/stack?seconds=
                                 what a worker does now, as JSON: ``stack``, or ``reason``; with *seconds*, the samples
                                 of that time, folded. Only over the local socket, which no other user can open
    GET /livez                   200 while the event loop runs
    GET /readyz                  200 when every pool can take calls, else 503 and the reason. Both answer ``ok``; with
                                 ``?verbose`` some lines, with ``?format=json`` or ``Accept: application/json`` JSON

All responses except the stream are compressed from 1 KiB on, if the client accepts gzip.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.export import gzipped, prometheus
from pool_monitor.metrics import LiveMetrics
from pool_monitor.self_measuring import WorkMeter
from pool_monitor.service import AGAIN, health
from pool_monitor.service.actions import Actor, action_routes
from pool_monitor.service.alerts import alert_routes
from pool_monitor.service.listener import Listener
from pool_monitor.service.stacks import TooManySamplings
from pool_monitor.service.tuning import tuning_routes
from pool_monitor.snapshot import Range, Readiness, ResourceRange, Snapshot

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from pool_monitor.storage import HistoryMetrics

HEARTBEAT = 2.0  # seconds without an event after which a stream sends a comment
VIEWERS_MAX = 16  # streams at once; each costs at most one encoding per tick
LOOK = 0.25  # seconds between checks whether the server is stopping, which waits for its streams
LIFE = 8.0  # seconds after which a stream ends when it cannot check that: most process managers kill after ten
COMPRESSED_FROM = 1024  # bytes: a smaller response fits into one packet anyway
_EVENTS = "text/event-stream"
_KINDS: dict[health.Form, str] = {"word": "text/plain", "lines": "text/plain", "json": "application/json"}
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_encode = msgspec.json.Encoder().encode


class Source(Actor, Protocol):
    """What the app needs of a monitor."""

    viewers: int
    metrics: LiveMetrics

    @property
    def history(self) -> HistoryMetrics | None:
        """Queries of the history on disk, if one is kept."""

    def snapshot(self, window: str = "5m") -> Snapshot:
        """The Snapshot now. Raises ConfigError for an unknown window."""

    work: WorkMeter

    def readiness(self) -> Readiness:
        """Whether the pools can take calls."""

    def watched(self) -> AbstractContextManager[None]:
        """Count one more viewer while the block is open."""

    async def ticked(self) -> bool:
        """Wait for the next tick. Returns False when the monitor is closing, because no tick will follow."""


def make_app(source: Source, *, local: bool = False) -> Starlette:
    """The ASGI app of one monitor. *local*: it is served to our own user only, and may interrupt workers."""

    async def index(request: Request) -> Response:
        mounted_at = request.scope.get("root_path", "")
        urls = [route.path for route in routes[1:] if "GET" in (route.methods or ()) and "{" not in route.path]
        return PlainTextResponse("".join(f"{mounted_at}{url}\n" for url in urls))

    async def snapshot(request: Request) -> Response:
        return await _json(request, source.snapshot(_window(request)))

    async def stream(request: Request) -> Response:
        window = _window(request)
        first = source.snapshot(window)
        if source.viewers >= VIEWERS_MAX:
            return JSONResponse({"error": f"{VIEWERS_MAX} viewers are already attached"}, status_code=503)
        if request.method == "HEAD":
            return StreamingResponse(_nothing(), media_type=_EVENTS, headers=_HEADERS)
        return _Stream(source, _events(source, window, first, Listener(request.scope.get("server"))))

    async def summary(request: Request) -> Response:
        return await _json(request, source.metrics.summary(request.query_params.get("window", "15m")))

    async def over_time(request: Request) -> Response:
        return await _json(request, await _over_time(source, dict(request.query_params)))

    async def metrics(request: Request) -> Response:
        kind = prometheus.negotiate(request.headers.get("accept"))
        page = prometheus.render(source.snapshot(_window(request)), source.metrics.totals(), kind)
        return await _answer(request, page, kind)

    async def livez(request: Request) -> Response:
        form = _form(request)
        # The pools are not read for the usual answer: it must not depend on them.
        body = b"ok\n" if form == "word" else health.livez(source.readiness(), form)
        return Response(body, media_type=_KINDS[form])

    async def readyz(request: Request) -> Response:
        form, readiness = _form(request), source.readiness()
        status = 200 if readiness.ready else 503
        return Response(health.readyz(readiness, form), status_code=status, media_type=_KINDS[form])

    routes = [
        Route("/", index),
        Route("/v1/snapshot", snapshot),
        Route("/v1/stream", stream),
        Route("/v1/summary", summary),
        Route("/v1/range", over_time),
        Route("/v1/errors", _errors_of(source)),
        *alert_routes(source, _json),
        *tuning_routes(source, _json),
        Route("/metrics", metrics),
        Route("/livez", livez),
        Route("/readyz", readyz),
        *action_routes(source, local=local),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={ConfigError: _refused(400), UnknownName: _refused(404), TooManySamplings: _refused(503)},
    )


def _errors_of(source: Source) -> Callable[[Request], Awaitable[Response]]:
    async def errors(request: Request) -> Response:
        report = source.metrics.error_groups(_window(request), pool=request.query_params.get("pool"))
        return await _json(request, report)

    return errors


async def _over_time(source: Source, asked: dict[str, str]) -> Range | ResourceRange:
    start, end = (_number(asked, name) for name in ("start", "end"))
    if start is None:
        raise ConfigError("start is missing: the beginning of the range, in seconds since the epoch")
    if (resource := asked.get("resource")) is not None:
        return await _resources(source, start, end, asked.get("step"), None if resource == "all" else resource)
    selection = {name: asked.get(name) for name in ("pool", "operation", "worker")}
    return await _range(source, start, end, asked.get("step"), selection)


async def _range(
    source: Source, start: float, end: float | None, step: str | None, selection: dict[str, str | None]
) -> Range:
    """The range from memory if memory has all of it, else from the history if there is one."""
    history = source.history
    if history is None or start >= source.metrics.since:
        try:
            return source.metrics.range(start, end, step, **selection)
        except (ConfigError, UnknownName):
            if history is None:
                raise
    return await history.range(start, end, step or "1m", **selection)


async def _resources(
    source: Source, start: float, end: float | None, step: str | None, subject: str | None
) -> ResourceRange:
    """The same for the figures of resources."""
    history = source.history
    if history is None or start >= source.metrics.since:
        try:
            return source.metrics.resources(start, end, step, subject=subject)
        except (ConfigError, UnknownName):
            if history is None:
                raise
    return await history.resources(start, end, step or "1m", subject=subject)


def _refused(status: int) -> Callable[[Request, Exception], Response]:
    return lambda _request, error: JSONResponse({"error": str(error)}, status_code=status)


async def _json(request: Request, value: Any) -> Response:
    return await _answer(request, _encode(value), "application/json")


async def _answer(request: Request, body: bytes, kind: str) -> Response:
    """A response with *body*, compressed if the client accepts gzip and *body* is large enough."""
    headers = {"Content-Type": kind, "Vary": "Accept-Encoding"}  # media_type could add a second charset
    if len(body) >= COMPRESSED_FROM and gzipped.accepts_gzip(request.headers.get("accept-encoding")):
        body = await gzipped.run_in_steps(gzipped.compressed_in_steps(body))
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers)


def _number(asked: dict[str, str], name: str) -> float | None:
    text = asked.get(name)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r}: needs seconds since the epoch") from None


def _form(request: Request) -> health.Form:
    return health.form_of(request.headers.get("accept"), request.query_params)


def _window(request: Request) -> str:
    return request.query_params.get("window", "5m")


class _Stream(StreamingResponse):
    """A viewer's stream. It counts the viewer here, because its iterator may start late and finish even later."""

    def __init__(self, source: Source, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type=_EVENTS, headers=_HEADERS)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._source.watched():
            await super().__call__(scope, receive, send)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def _events(source: Source, window: str, first: Snapshot, listener: Listener) -> AsyncIterator[bytes]:
    """A Snapshot per tick. A slow reader gets the newest Snapshot when it is ready, never a backlog.

    The stream ends when the monitor closes, and when the server stops, because the server waits for it. When the stream
    cannot detect that (`Listener.known`), it ends after `LIFE` seconds.

    Written by hand because sse-starlette (3.7) leaves a polling task on the service's event loop after the last viewer
    has left, and patches uvicorn's signal handling when imported.
    """
    now = asyncio.get_running_loop().time
    yield _event(source, first)
    end = math.inf if listener.known else now() + LIFE
    heartbeat = now() + HEARTBEAT
    while not listener.closed() and now() < end:
        try:
            async with asyncio.timeout_at(min(now() + LOOK, heartbeat)):
                going_on = await source.ticked()
        except TimeoutError:
            if now() < heartbeat:
                continue
            yield b": heartbeat\n\n"
        else:
            if not going_on:
                return
            yield _event(source, source.snapshot(window))
        heartbeat = now() + HEARTBEAT
    yield b"event: %b\ndata: {}\n\n" % AGAIN.encode()


def _event(source: Source, snapshot: Snapshot) -> bytes:
    with source.work.measure("encode"):
        event = b"event: snapshot\nid: %d\ndata: %b\n\n" % (snapshot.seq, _encode(snapshot))
    source.work.encoded_bytes = len(event)
    return event
