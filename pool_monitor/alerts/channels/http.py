"""One POST to a receiver: within a total time, without redirects, with little read of the answer, and judged.

httpcore is used without httpx's client, which would write each URL to the service's log.
"""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import anyio
import certifi
import httpcore
import httpx

from pool_monitor.alerts.channels.address_guard import Reach, url_problem
from pool_monitor.alerts.channels.guarded_backend import GuardedBackend
from pool_monitor.alerts.channels.judgement import EXCERPT_MAX, Answer, Judge, judged
from pool_monitor.alerts.channels.reaching import Forbidden, LookupTimeout, system_error, words
from pool_monitor.alerts.channels.secrets import SecretMissing, origin, seen, value_of
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.channels.unlogged import unlogged
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.answers import Redactor, cleaned, excerpt
from pool_monitor.side_thread import SideThread
from pool_monitor.version import __version__

if TYPE_CHECKING:
    from pool_monitor.alerts.routing import Secret

CONNECT_S = 3.0
STEP_S = 10.0
"""How long one step of an attempt may take: one read, one write."""
ANSWER_S = 5.0
"""How long the body of an answer may take. Its status says already what came of the attempt."""
ANSWER_MAX = 4096
"""Most bytes that are read of the body of an answer."""
KEPT_S = 30.0
"""How long a connection is kept for the next message."""
REASON_MAX = EXCERPT_MAX + 100
"""Most characters of a reason."""
_LOGGERS = ("httpcore.connection", "httpcore.http11")
"""They log headers of an answer at DEBUG, which may repeat a secret."""


class Message(NamedTuple):
    """What is posted."""

    body: bytes
    headers: Mapping[str, str] = {}


class HttpClient:
    """Makes the POSTs to one receiver, one at a time, and keeps the connection for the next one.

    The *url*, the *headers* of each message and the *key*, which `post` passes on, are read anew for each attempt.
    Made without I/O. What may hang, as a file or the look-up of a name, is done in a thread of its own.
    """

    def __init__(
        self,
        url: Secret,
        headers: Sequence[tuple[str, Secret]] = (),
        key: Secret | None = None,
        *,
        reach: Reach = Reach.ANY_BUT_METADATA,
    ) -> None:
        self._url, self._headers, self._key, self._reach = url, headers, key, reach
        self._side_thread = SideThread("alerts http")
        self._pool: httpcore.AsyncConnectionPool | None = None
        self.where = seen(url)
        """Where messages go, as people may see it."""

    async def post(self, write: Callable[[str], Message], judge: Judge = judged, *, path: str = "") -> Outcome:
        """POST what *write* returns for the key (empty: there is none), once, and return what came of it. *path* is
        added to the path of the URL.

        Returns within `SEND_S`. Raises only the cancellation.
        """
        attempt = _Attempt()
        try:
            # The time limits of httpcore begin anew with every byte.
            with unlogged(*_LOGGERS), anyio.fail_after(SEND_S):
                url, headers, key = await self._side_thread.run(self._secrets)
                attempt.hide = Redactor([url], [*headers.values(), key])
                self.where = origin(url)
                message = write(key)
                request = _request(joined(url, path), message.body, {**message.headers, **headers}, attempt)
                await self._exchange(attempt, request)
        except Exception as error:  # noqa: BLE001 - whatever a receiver sends costs this attempt alone
            await self._disconnect()
            answer = attempt.answer
            outcome = unanswered(error, begun=attempt.begun) if answer is None else judge(answer, time.time())
        except BaseException:
            # A request that is cancelled may keep its place in httpcore's pool, and there is one place.
            with anyio.CancelScope(shield=True):
                await self._disconnect()
            raise
        else:
            assert attempt.answer is not None
            outcome = judge(attempt.answer, time.time())
        return outcome._replace(reason=attempt.hide(cleaned(outcome.reason))[:REASON_MAX])

    def _secrets(self) -> tuple[str, Mapping[str, str], str]:
        headers = {name: value_of(value) for name, value in self._headers}
        return value_of(self._url), headers, "" if self._key is None else value_of(self._key)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._disconnect()
        await self._side_thread.close()

    async def _disconnect(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            with unlogged(*_LOGGERS), anyio.move_on_after(1.0):
                await pool.aclose()

    async def _exchange(self, attempt: _Attempt, request: httpcore.Request) -> None:
        if self._pool is None:
            self._pool = await self._made_pool(secure=request.url.scheme == b"https")
        response = await self._pool.handle_async_request(request)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        attempt.answer = Answer(response.status, headers)  # it counts, whatever becomes of its body
        content = bytearray()
        try:
            with anyio.move_on_after(ANSWER_S):
                async for chunk in response.aiter_stream():
                    content += chunk
                    if len(content) >= ANSWER_MAX:
                        break
        finally:
            text = excerpt(bytes(content[:ANSWER_MAX]), attempt.hide, whole=len(content) < ANSWER_MAX)
            attempt.answer = Answer(response.status, headers, text)
            await response.aclose()

    async def _made_pool(self, *, secure: bool) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=await self._side_thread.run(_authorities) if secure else None,
            max_connections=1,
            keepalive_expiry=KEPT_S,
            network_backend=GuardedBackend(self._side_thread, self._reach),
        )


class _Attempt:
    """How far an attempt has come."""

    begun = False
    """Whether something of the request was sent: then the receiver may have it."""
    answer: Answer | None = None
    hide: Redactor = Redactor()

    async def note(self, name: str, _info: dict[str, Any]) -> None:
        """Take account of a step of httpcore."""
        if name.endswith("send_request_headers.started"):
            self.begun = True


def joined(url: str, path: str) -> str:
    """Return *url* with *path* after its own; a query stays. Raises Unsendable."""
    if problem := url_problem(url):
        raise Unsendable(f"its URL {problem}")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path)) if path else url


def _request(url: str, body: bytes, given: Mapping[str, str], attempt: _Attempt) -> httpcore.Request:
    """Return a request. *given* headers replace the usual ones. Raises Unsendable."""
    try:
        parsed = httpx.URL(url)
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Unsendable("its URL is not valid") from error
    named = {
        "Host": parsed.netloc.decode("ascii"),
        "User-Agent": f"pool_monitor/{__version__}",
        "Accept": "*/*",
        "Content-Type": "application/json",
    }
    if parsed.username or parsed.password:
        login = f"{parsed.username}:{parsed.password}".encode()
        named["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    taken = {name.lower() for name in given} | {"content-length", "transfer-encoding"}
    headers = {name: value for name, value in named.items() if name.lower() not in taken} | dict(given)
    for name, value in headers.items():
        if not _VALUE.fullmatch(value):
            raise Unsendable(f"the value of the header {name} has characters that no header may have")
    headers["Content-Length"] = str(len(body))
    return httpcore.Request(
        "POST",
        target,
        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
        content=body,
        extensions={
            "timeout": {"connect": CONNECT_S, "read": STEP_S, "write": STEP_S, "pool": CONNECT_S},
            "trace": attempt.note,
        },
    )


_VALUE = re.compile("[!-~\u00a1-\u00ff](?:[ -~\u00a1-\u00ff]*[!-~\u00a1-\u00ff])?|")


class Unsendable(Exception):
    """A request that cannot be made. The text says why, and has nothing secret."""


def unanswered(error: Exception, *, begun: bool) -> Outcome:
    """Return what came of an attempt that *error* ended before there was an answer. *begun*: the receiver may have
    something of the request.
    """
    cause = system_error(error)
    if isinstance(error, Unsendable | SecretMissing):
        return Outcome("refused", str(error))
    if isinstance(error, Forbidden):
        return Outcome("refused", f"its address {error}")
    if isinstance(error, LookupTimeout):
        return Outcome("retry", str(error))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Outcome("refused", f"its certificate is not valid: {cause.verify_message}")
    if isinstance(error, httpcore.TimeoutException) and not begun:
        return Outcome("retry", f"no connection within {CONNECT_S:g} s")
    if isinstance(error, httpcore.NetworkError) and not begun:
        return Outcome("retry", f"cannot be connected to: {words(cause)}")
    if isinstance(error, TimeoutError):
        return Outcome("retry", f"not done within {SEND_S:g} s", unsure=begun)
    if isinstance(error, httpcore.TimeoutException):
        return Outcome("retry", f"no answer within {STEP_S:g} s", unsure=True)
    if isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError):
        return Outcome("retry", "the connection ended without an answer of HTTP", unsure=True)
    # A defect of ours or of a library, whose text may hold anything.
    return Outcome("retry", f"failed with {type(error).__name__}", unsure=begun)


@cache
def _authorities() -> ssl.SSLContext:
    """The authorities that the machine trusts, and the usual ones. Takes 40 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.load_verify_locations(certifi.where())
    return context
