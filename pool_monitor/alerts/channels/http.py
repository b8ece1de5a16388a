"""One POST to a receiver: within a total time, without redirects, with little read of the answer, and judged.

httpcore is used without httpx's client, which would write each URL to the service's log.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from pool_monitor.alerts.channels.secrets import Redactor, bare_origin, cleaned
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.delivery.notification import SENT, Outcome, Result
from pool_monitor.version import __version__

if TYPE_CHECKING:
    import httpcore

CONNECT_S = 3.0
STEP_S = 10.0
"""How long one step of an attempt may take: one read, one write."""
ANSWER_S = 5.0
"""How long the body of an answer may take. Its status says already what came of the attempt."""
ANSWER_MAX = 4096
"""Most bytes that are read of the body of an answer."""
EXCERPT_MAX = 256
"""Most characters of an answer in a reason."""
RETRY_AFTER_MAX = 3600.0
"""Longest pause in seconds that a receiver can ask for."""

_BY_CLASS: Mapping[int, Result] = {2: "sent", 3: "refused", 4: "refused", 5: "retry"}
_BY_STATUS: Mapping[int, Result] = {408: "retry", 410: "gone", 413: "too_large", 425: "retry", 429: "retry"}


class Answer(NamedTuple):
    """What a receiver answered."""

    status: int
    headers: Mapping[str, str]
    """By name in small letters."""
    text: str
    """The beginning of the body, cleaned, without secrets."""


Judge = Callable[[Answer, float], Outcome]
"""Says what an answer means that arrived at a time, in seconds since the epoch."""


def judged(answer: Answer, now: float) -> Outcome:
    """Return what *answer* means for most receivers."""
    status = answer.status
    result = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, "refused")
    if result == "sent":
        return SENT
    if 300 <= status < 400:
        where = bare_origin(answer.headers.get("location", ""))
        return Outcome("refused", f"answered {status}: moved{f' to {where}' if where else ''}, and is not followed")
    reason = f"answered {status}{f': {answer.text[:EXCERPT_MAX]}' if answer.text else ''}"
    wanted = seconds_wanted(answer.headers.get("retry-after"), now) if result == "retry" else None
    return Outcome(result, reason, retry_after=wanted)


class HttpClient:
    """Makes POSTs, one at a time, and keeps the connection for the next one. *backend* connects; without it, any
    address is connected to. Made without I/O.
    """

    def __init__(self, backend: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._backend = backend
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, hide: Redactor, judge: Judge = judged
    ) -> Outcome:
        """POST *body* once. Returns within `SEND_S`; raises nothing but the cancellation."""
        attempt = _Attempt()
        try:
            # The time limits of httpcore begin anew with every byte.
            with anyio.fail_after(SEND_S):
                answer = await self._answer(attempt, url, body, headers, hide)
        except TimeoutError:
            return Outcome("retry", f"not done within {SEND_S:g} s", unsure=attempt.begun)
        except Exception as error:  # noqa: BLE001 - whatever a receiver sends costs this attempt alone
            outcome = _failed(error, attempt)
            return outcome._replace(reason=hide(cleaned(outcome.reason))[:EXCERPT_MAX])
        return judge(answer, time.time())

    async def aclose(self) -> None:
        """Close the connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.move_on_after(1.0):
                await pool.aclose()

    async def _answer(
        self, attempt: _Attempt, url: str, body: bytes, headers: Mapping[str, str], hide: Redactor
    ) -> Answer:
        import httpcore

        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=await anyio.to_thread.run_sync(_authorities) if url.startswith("https:") else None,
                max_connections=1,
                max_keepalive_connections=1,
                keepalive_expiry=30.0,
                network_backend=self._backend,
            )
        limits = {"connect": CONNECT_S, "read": STEP_S, "write": STEP_S, "pool": CONNECT_S}
        request = httpcore.Request(
            "POST",
            url,
            headers=_headers(url, body, headers),
            content=body,
            extensions={"timeout": limits, "trace": attempt.note},
        )
        response = await self._pool.handle_async_request(request)
        content = bytearray()
        try:
            with anyio.move_on_after(ANSWER_S):
                async for chunk in response.aiter_stream():
                    content += chunk
                    if len(content) >= ANSWER_MAX:
                        break
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            pass  # the status has arrived
        finally:
            await response.aclose()
        known = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, known, excerpt(bytes(content), hide))


class _Attempt:
    """How far an attempt has come."""

    begun = False
    """Whether something of the request was sent: then the receiver may have it."""

    async def note(self, name: str, _info: dict[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self.begun = True


def excerpt(content: bytes, hide: Redactor) -> str:
    """Return the text of the beginning of an answer, cleaned and without secrets."""
    text = hide(content.decode(errors="replace"))
    if len(content) >= ANSWER_MAX:
        text = text[: -hide.longest]  # the end may have the beginning of a secret, which nobody recognises
    return hide(cleaned(text))


def seconds_wanted(retry_after: str | None, now: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, which is a number or a date; None: it is missing or invalid."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if retry_after.strip().isdecimal() else _date(retry_after) - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _date(text: str) -> float:
    when = parsedate_to_datetime(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _headers(url: str, body: bytes, given: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of a request: *given* ones replace the usual ones."""
    named = {
        "Host": bare_origin(url).partition("://")[2],
        "User-Agent": f"pool_monitor/{__version__}",
        "Accept": "*/*",
        "Content-Type": "application/json",
    }
    taken = {name.lower() for name in given}
    named = {name: value for name, value in named.items() if name.lower() not in taken} | dict(given)
    named["Content-Length"] = str(len(body))
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in named.items()]


def _failed(error: Exception, attempt: _Attempt) -> Outcome:
    """Return what came of an attempt that ended without an answer."""
    import httpcore

    cause = next((one for one in _causes(error) if isinstance(one, ssl.SSLError | OSError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Outcome("refused", f"its certificate is not valid: {cause.verify_message}")
    if not attempt.begun and isinstance(error, httpcore.TimeoutException):
        return Outcome("retry", f"no connection within {CONNECT_S:g} s")
    if not attempt.begun and isinstance(error, httpcore.NetworkError):
        why = (cause.strerror or cause.__class__.__name__) if cause is not None else "the connection failed"
        return Outcome("retry", f"cannot be connected to: {why}")
    if isinstance(error, httpcore.TimeoutException):
        return Outcome("retry", f"no answer within {STEP_S:g} s", unsure=True)
    if isinstance(error, httpcore.NetworkError):
        return Outcome("retry", "the connection ended before the answer", unsure=True)
    if isinstance(error, httpcore.RemoteProtocolError):
        return Outcome("retry", "the connection ended without an answer of HTTP", unsure=True)
    # A defect of ours or of a library, whose text may hold anything.
    return Outcome("retry", f"failed with {type(error).__name__}", unsure=attempt.begun)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from (one for one in error.args if isinstance(one, Exception))
        error = error.__cause__ or error.__context__


@cache
def _authorities() -> ssl.SSLContext:
    """The authorities that the machine trusts, and the usual ones. Takes 40 ms."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
