"""Read the measurements of a running service, over its Unix socket or over HTTP."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from pool_monitor.errors import ConfigError, ConnectError
from pool_monitor.service import AGAIN
from pool_monitor.service.discovery import Service, file_name, runtime_dir, services
from pool_monitor.service.silence import why_silent
from pool_monitor.service.stacks import StackReading, StackSamples
from pool_monitor.snapshot import (
    SCHEMA_VERSION,
    AdviceReport,
    AlertReport,
    ErrorReport,
    Explanation,
    Range,
    ResourceRange,
    RuleView,
    Snapshot,
    Summary,
    TuningReport,
)

T = TypeVar("T")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}(/.*)?", re.ASCII)
_UNFIT = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNSUPPORTED_MEDIA_TYPE)
_TIMEOUT = 5.0  # seconds without a byte after which a service counts as gone; it sends a heartbeat every 2 s
_OLDER = "it is of an older version, which knows no advice and no tuner"
_TESTED_S = 30.0  # seconds: a test takes up to 20 s
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode


class _Version(msgspec.Struct):
    version: int


class _Made(msgspec.Struct):
    id: str


class _Undone(msgspec.Struct):
    ids: list[str]


class _Tested(msgspec.Struct):
    sent: bool
    reason: str = ""


_decode_version = msgspec.json.Decoder(_Version).decode


class Address(NamedTuple):
    """The address of a service: a Unix socket, or the base of its URLs."""

    name: str
    """The service's name in messages."""
    socket: Path | None
    base: str


def resolve(address: str | None) -> Address:
    """The `Address` for a user's input: the path of a socket, a URL, ``HOST:PORT``, or the name or pid of a service.

    None means the only service that runs on this machine. Raises ConnectError, with a list of the services, when no
    service or several services match.
    """
    if address is not None and (url := _url(address)):
        _check_url(url)
        return Address(address, None, url.rstrip("/"))
    if address is not None and ("/" in address or address.endswith(".sock")):
        path = Path(address)
        try:
            found = path.is_socket()
        except OSError as error:  # is_socket returns False only for a file that is missing
            raise ConnectError(f"{address}: cannot be accessed: {error.strerror}") from error
        if not found:
            raise ConnectError(
                f"{address}: no socket there; `pool-monitor dashboard` without an address looks in {runtime_dir()}"
            )
        return Address(address, path, "http://localhost")
    running = services()
    matching = [service for service in running if address is None or _matches(service, address)]
    if len(matching) == 1:
        return Address(matching[0].name, matching[0].path, "http://localhost")
    if not running:
        raise ConnectError(
            f"no running service found in {runtime_dir()}; start one with `pool-monitor demo`, or enter a Monitor "
            "in your service"
        )
    if matching:
        raise ConnectError(f"several services are running; name one:\n{_listed(matching)}")
    raise ConnectError(f"no service {address!r}; running:\n{_listed(running)}")


def _url(address: str) -> str | None:
    """*address* as a URL, if it is one or lacks only ``http://``; else None."""
    if address.startswith(("http://", "https://")):
        return address
    return f"http://{address}" if _HOST_PORT.fullmatch(address) and not os.path.lexists(address) else None


def _check_url(address: str) -> None:
    try:
        url = httpx.URL(address)
        if url.host and (url.port or 1) < 1 << 16:
            return
    except httpx.InvalidURL:
        pass
    raise ConnectError(f"{address}: not a URL of a service, such as http://127.0.0.1:8000/monitor")


def _matches(service: Service, address: str) -> bool:
    return address in (str(service.pid), service.id) or file_name(address) == service.name


def _listed(found: list[Service]) -> str:
    return "\n".join(f"  {service.id}" for service in found)


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for one service."""
    local = address.socket is not None
    transport = None
    if not address.base.startswith("https:"):  # to read the authorities takes longer than most queries
        transport = httpx.AsyncHTTPTransport(uds=None if address.socket is None else str(address.socket), verify=False)
    async with httpx.AsyncClient(
        base_url=address.base,
        # On the same machine, compression would only cost the service time.
        headers={"Accept-Encoding": "identity"} if local else None,
        transport=transport,
        timeout=_TIMEOUT,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # else it keeps what a service sets, without bound
    ) as http:
        yield http


class Client:
    """Queries to one service, made by `open_client`.

    All methods raise ConnectError when the service cannot be reached, and ConfigError for a query that it refuses.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def snapshot(self, window: str) -> Snapshot:
        return parse(await self._get("/v1/snapshot", window=window))

    async def summary(self, window: str) -> Summary:
        return _decoded(await self._get("/v1/summary", window=window), Summary)

    async def range(
        self, start: float, end: float, step: int, *, pool: str | None = None, operation: str | None = None
    ) -> Range:
        """The Range from *start* to *end* (seconds since the epoch) in steps of *step* seconds."""
        query = {"start": start, "end": end, "step": f"{step}s", "pool": pool, "operation": operation}
        return _decoded(await self._get("/v1/range", **query), Range)

    async def errors(self, window: str, pool: str | None = None) -> ErrorReport:
        """The error groups of every pool, or of *pool*, in *window*."""
        return _decoded(await self._get("/v1/errors", window=window, pool=pool), ErrorReport)

    async def resources(self, start: float, end: float, step: int, subject: str | None = None) -> ResourceRange:
        """The same for the figures of *subject*; None: of all resources."""
        query = {"start": start, "end": end, "step": f"{step}s", "resource": subject or "all"}
        return _decoded(await self._get("/v1/range", **query), ResourceRange)

    async def stack(self, pool: str, slot: str) -> StackReading:
        """What the worker in *slot* does now. Its call goes on undisturbed."""
        return _decoded(await self._post(_stack_path(pool, slot), _TIMEOUT), StackReading)

    async def stack_samples(self, pool: str, slot: str, seconds: float) -> StackSamples:
        """What the worker in *slot* does over *seconds*, at most `service.stacks.SECONDS_MAX`."""
        path, patience = _stack_path(pool, slot), seconds + 2 * _TIMEOUT
        return _decoded(await self._post(path, patience, seconds=seconds), StackSamples)

    async def alerts(self, state: str | None = None, limit: int = 100) -> AlertReport:
        """The alerts, or those in a *state*, the silences, and the latest changes."""
        return _decoded(await self._get("/v1/alerts", state=state, limit=limit), AlertReport)

    async def rules(self) -> list[RuleView]:
        """The rules that are evaluated."""
        return _decoded(await self._get("/v1/alerts/rules"), list[RuleView])

    async def silence(
        self,
        matchers: Mapping[str, str | Mapping[str, str]],
        *,
        duration: str,
        comment: str = "",
        author: str = "",
        starts_in: str | None = None,
    ) -> str:
        """Silence alerts, and return the id of the silence. Arguments as of `AlertManager.silence`."""
        body = {"matchers": matchers, "duration": duration, "comment": comment, "author": author}
        answer = await self._act("POST", "/v1/alerts/silences", body | {"starts_in": starts_in})
        return _decoded(answer, _Made).id

    async def unsilence(self, silence: str) -> None:
        """End a silence."""
        await self._act("DELETE", f"/v1/alerts/silences/{quote(silence, safe='')}")

    async def ack(self, fingerprint: str, *, author: str = "", comment: str = "", duration: str | None = None) -> None:
        """Acknowledge an alert, for *duration* or until it is resolved."""
        body = {"author": author, "comment": comment, "duration": duration}
        await self._act("POST", f"/v1/alerts/{quote(fingerprint, safe='')}/ack", body)

    async def unack(self, fingerprint: str) -> None:
        """Take an acknowledgement back."""
        await self._act("DELETE", f"/v1/alerts/{quote(fingerprint, safe='')}/ack")

    async def test_receiver(self, receiver: str) -> str:
        """Send a message to *receiver* that says it is a test. Return why it has not arrived; empty: it has. Takes
        up to 20 s.
        """
        path = f"/v1/alerts/receivers/{quote(receiver, safe='')}/test"
        tested = _decoded(await self._act("POST", path, patience=_TESTED_S), _Tested)
        return "" if tested.sent else tested.reason or "it has not arrived"

    # -- advice and tuning ----------------------------------------------------------------------------------------

    async def recommendations(self) -> AdviceReport:
        """What the advisor recommends."""
        return _decoded(await self._newer("/v1/recommendations"), AdviceReport)

    async def tuning(self, limit: int = 100) -> TuningReport:
        """The tuner, and its latest changes."""
        return _decoded(await self._newer("/v1/tuning", limit=limit), TuningReport)

    async def explain(self, kind: Literal["tuning", "recommendations"], name: str) -> str:
        """Why a change was tried, kept or rolled back, or why something is recommended."""
        return _decoded(await self._newer(f"/v1/{kind}/{quote(name, safe='')}/explain"), Explanation).text

    async def dismiss(self, recommendation: str, reason: str = "", *, author: str = "") -> None:
        """Show a recommendation no more."""
        path = f"/v1/recommendations/{quote(recommendation, safe='')}/dismiss"
        await self._act("POST", path, {"reason": reason, "author": author})

    async def tune(
        self, verb: Literal["approve", "reject", "rollback"], trial: str, *, author: str = "", reason: str = ""
    ) -> None:
        """Approve, reject or roll back a trial."""
        more = {"reason": reason} if verb == "reject" else {}
        await self._act("POST", f"/v1/tuning/{quote(trial, safe='')}/{verb}", {"author": author, **more})

    async def roll_back(self, *, everything: bool = False, author: str = "") -> list[str]:
        """Roll back what is on trial, or else the latest change, or *everything*. Return the ids of the trials."""
        answer = await self._act("POST", "/v1/tuning/rollback", {"everything": everything, "author": author})
        return _decoded(answer, _Undone).ids

    async def propose(self, pool: str, setting: str, value: float, *, reason: str = "", author: str = "") -> str:
        """Propose a change, and return the id of its trial."""
        body = {"pool": pool, "setting": setting, "value": value, "reason": reason, "author": author}
        return _decoded(await self._act("POST", "/v1/tuning/proposals", body), _Made).id

    async def freeze(self, reason: str, duration: str | None = None, *, author: str = "") -> None:
        """Let the tuner change nothing, for *duration* or until `thaw`."""
        await self._act("POST", "/v1/tuning/freeze", {"reason": reason, "duration": duration, "author": author})

    async def thaw(self, *, author: str = "") -> None:
        """End a freeze."""
        await self._act("POST", "/v1/tuning/thaw", {"author": author})

    async def set_tuner_mode(self, mode: str, *, author: str = "") -> None:
        """Set the mode of the tuner."""
        await self._act("POST", "/v1/tuning/mode", {"mode": mode, "author": author})

    async def _newer(self, path: str, **query: Any) -> bytes:
        """Do what `_get` does. Raises ConnectError for a service whose version does not have *path*."""
        response = await self._http.get(path, params=query)
        if response.status_code == httpx.codes.NOT_FOUND and _refusal(response) is None:
            raise ConnectError(_OLDER)
        return _accepted(response)

    async def _act(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, patience: float = _TIMEOUT
    ) -> bytes:
        return _accepted(await self._http.request(method, path, json=body, timeout=patience))

    async def _post(self, path: str, patience: float, **query: Any) -> bytes:
        return _accepted(await self._http.post(path, params=query, timeout=patience))

    async def _get(self, path: str, **query: Any) -> bytes:
        given = {name: value for name, value in query.items() if value is not None}
        return _accepted(await self._http.get(path, params=given))


@asynccontextmanager
async def open_client(address: Address) -> AsyncIterator[Client]:
    """A connection to one service, for any number of queries."""
    with _translated_errors(address):
        async with connected(address) as http:
            yield Client(http)


async def fetch(address: Address, window: str) -> Snapshot:
    """One Snapshot. Raises ConnectError when the service cannot be reached or answers with an error."""
    with _translated_errors(address):
        async with connected(address) as http:
            response = await http.get("/v1/snapshot", params={"window": window})
            _check_status(response, response.text)
            return parse(response.content)


async def follow(address: Address, window: str) -> AsyncGenerator[Snapshot, None]:
    """A Snapshot at every tick of the service. Ends when the service asks its viewers to attach again.

    Raises ConnectError when the service ends or answers with an error.
    """
    from httpx_sse import aconnect_sse

    with _translated_errors(address):
        async with (
            connected(address) as http,
            aconnect_sse(http, "GET", "/v1/stream", params={"window": window}) as source,
        ):
            if source.response.is_error:
                _check_status(source.response, (await source.response.aread()).decode(errors="replace"))
            async for event in source.aiter_sse():
                if event.event == "snapshot":
                    yield parse(event.data)
                elif event.event == AGAIN:
                    return
    raise ConnectError(f"{address.name}: the service has closed")


def parse(text: str | bytes) -> Snapshot:
    """The Snapshot in *text*. Raises ConnectError for any other JSON, and for a newer schema."""
    try:
        version = _decode_version(text).version  # before all else: a Snapshot of a newer schema may not decode
        if version <= SCHEMA_VERSION:
            return _decode_snapshot(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectError(f"the answer is not a Snapshot: {error}") from error
    raise ConnectError(
        f"the service uses snapshot schema {version}, but this program reads {SCHEMA_VERSION}: update this program"
    )


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectError(f"the answer is not {_named(kind)}: {error}") from error


def _named(kind: Any) -> str:
    return f"a {kind.__name__}" if hasattr(kind, "__name__") else str(kind)


def _accepted(response: httpx.Response) -> bytes:
    """The body of *response*. Raises ConfigError if the service refuses the query, ConnectError for other errors."""
    refusal = _refusal(response)
    if refusal is not None:
        raise ConfigError(refusal)
    _check_status(response, response.text)
    return response.content


def _refusal(response: httpx.Response) -> str | None:
    """Why the service refuses a query; None if it does not, or if the answer is not one of a service."""
    if response.status_code in _UNFIT:
        return _decoded(response.content, dict[str, str])["error"]
    # Not allowed here, or a name that is unknown.
    refused = response.status_code in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)
    if refused and response.headers.get("Content-Type") == "application/json":
        return _decoded(response.content, dict[str, str]).get("error")
    return None


def _stack_path(pool: str, slot: str) -> str:
    return f"/v1/pools/{quote(pool, safe='')}/workers/{quote(slot, safe='')}/stack"


def _check_status(response: httpx.Response, text: str) -> None:
    if response.is_error:
        raise ConnectError(f"the service answered {response.status_code}: {text.strip()[:500]}")


@contextmanager
def _translated_errors(address: Address) -> Iterator[None]:
    """Raise a ConnectError with the name of the service in place of the errors of httpx."""
    try:
        yield
    except httpx.TimeoutException as error:
        seconds = error.request.extensions["timeout"]["read"]  # longer where stacks are sampled first
        raise ConnectError(f"{address.name}: no answer in {seconds:g} s; {why_silent(address.socket)}") from error
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        raise ConnectError(f"{address.name}: the service is gone: {str(error) or type(error).__name__}") from error
    except httpx.HTTPError as error:
        raise ConnectError(f"{address.name}: {str(error) or type(error).__name__}") from error
