"""Push metrics to an OTLP receiver, over HTTP, every few seconds.

Every push carries everything since the monitor was entered (otlp_request.py), so there is no queue: the next push
delivers what a failed one did not. At most one request is under way. Failures do not reach the service: they are
counted, and logged once per outage.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple, NoReturn

import anyio
import httpx

from pool_monitor.answers import Redactor, excerpt, seconds_wanted
from pool_monitor.errors import ConfigError
from pool_monitor.export.gzipped import compressed_in_steps, run_in_steps
from pool_monitor.export.otlp_request import Attribute, Proto, encoded_in_steps
from pool_monitor.log import logger
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import Snapshot
from pool_monitor.telemetry import describe
from pool_monitor.version import __version__

_PATH = "/v1/metrics"
_TOKEN, _VALUE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"), re.compile(r"[!-~](?:[ -~]*[!-~])?")
_RETRYABLE = (429, 502, 503, 504)
_BACKOFF_FIRST, _BACKOFF_LAST = 1.0, 60.0
_ANSWER_MAX = 64 * 1024
"""Most bytes that are read of an answer."""
_EXCERPT = 200
"""Most characters of an answer in an error."""
_LAST_PUSH_MAX = 2.0
"""Seconds the last push may take: it delays the end of the service."""


class PushResult(NamedTuple):
    """The result of a push."""

    error: str | None = None
    """None: the push was accepted."""
    retryable: bool = False
    retry_after: float | None = None
    """Seconds for which the receiver asked for no further push."""
    rejected: int = 0
    """Data points that the receiver rejected in a push that it accepted."""
    reason: str = ""
    """Why it rejected them."""


class OtlpExporter:
    """Pushes to *endpoint*, with pauses of *interval* seconds, while `run` runs.

    *endpoint* is the URL of a receiver: its base, such as ``http://127.0.0.1:4318``, with or without ``/v1/metrics`` at
    the end. *headers* are sent with every push; credentials belong there. *compression* is ``gzip``, or ``none`` for
    receivers without gzip. A push may take *timeout* seconds from the first byte to the last. *resource_attributes* are
    added to the attributes of the service, and replace attributes of the same name. *ssl_context* is for receivers
    whose certificate is not signed by one of the usual authorities. Redirects and proxy variables of the environment
    are ignored. *on_outage* is called with the reason when a push fails after one that did not, and *on_recovery* when
    a push is accepted again; neither may raise. Without these functions, both are logged.

    Raises ConfigError for a bad setting, and when opentelemetry-proto is not installed.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        interval: float = 10.0,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        compression: str = "gzip",
        resource_attributes: Mapping[str, Attribute] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        on_outage: Callable[[str], object] | None = None,
        on_recovery: Callable[[str], object] | None = None,
    ) -> None:
        for name, value in (("interval", interval), ("timeout", timeout)):
            if not 0 < value < float("inf"):
                raise ConfigError(f"OtlpExporter({name}={value!r}): needs seconds above 0")
        self._url = _url(endpoint)
        self.endpoint = str(self._url.copy_with(query=None))
        """The URL of the pushes without its query, which may hold secrets."""
        self.interval, self.timeout = interval, timeout
        self.exported = 0
        """Pushes that were accepted."""
        self.failed = 0
        """Pushes that failed."""
        self.rejected = 0
        """Data points that were rejected in accepted pushes."""
        self.last_error: str | None = None
        """Why the latest push failed; None when it was accepted."""
        if compression not in ("gzip", "none"):
            raise ConfigError(f"OtlpExporter(compression={compression!r}): needs to be 'gzip' or 'none'")
        self._compressed = compression == "gzip"
        self._headers = _headers(headers or {})
        if self._compressed:
            self._headers["Content-Encoding"] = "gzip"
        self._hide = Redactor([], [*(headers or {}).values(), *self._url.params.values()])
        self._proto = Proto()
        self._resource_attributes = dict(resource_attributes or {})
        try:
            self._proto.attributes(self._resource_attributes)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"OtlpExporter(resource_attributes=...): {error}") from error
        # Loading the usual authorities takes 40 ms, so http gets a context without any.
        no_authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ssl_context = ssl_context or (
            httpx.create_ssl_context(trust_env=False) if self._url.scheme == "https" else no_authorities
        )
        self._on_outage, self._on_recovery = on_outage or self._log_outage, on_recovery or self._log_recovery
        self._failures = 0  # in a row
        self._rejecting = False
        self._not_before = 0.0

    async def run(self, source: Callable[[], tuple[Snapshot, Totals]]) -> NoReturn:
        """Push what *source* returns, at once and then after every pause, until cancelled.

        Raises only the cancellation, after one last push, which may take two seconds. There is no last push while the
        receiver has asked for a pause.
        """
        # Without httpx's client, which would write the URL of every push to the service's log.
        transport = httpx.AsyncHTTPTransport(
            verify=self._ssl_context, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        loop, owner = asyncio.get_running_loop(), os.getpid()
        async with transport:
            try:
                while True:
                    result = await self._push(transport, source, self.timeout)
                    pause = self._pause(result)
                    if result.retry_after is not None:
                        self._not_before = loop.time() + pause
                    await asyncio.sleep(pause)
            except asyncio.CancelledError:
                # Not in a forked process: these numbers are its parent's, who will push later ones.
                if loop.time() >= self._not_before and os.getpid() == owner:
                    with anyio.CancelScope(shield=True):
                        await self._push(transport, source, min(self.timeout, _LAST_PUSH_MAX))
                raise

    def _pause(self, result: PushResult) -> float:
        """Seconds to the next push."""
        if not result.retryable:
            return self.interval
        backoff = pause_after(self._failures, random.random())  # noqa: S311 - spreads load, hides nothing
        return max(backoff, result.retry_after or 0.0)

    async def _push(
        self, transport: httpx.AsyncHTTPTransport, source: Callable[[], tuple[Snapshot, Totals]], timeout: float
    ) -> PushResult:
        try:
            # Not the timeout of httpx, which restarts with every byte. Not asyncio.timeout either: until Python
            # 3.11.4 it raises CancelledError in a task that was cancelled before, as it is at the last push.
            with anyio.fail_after(timeout):
                body = await run_in_steps(self._body(*source()))
                result = await self._post(transport, body)
        except TimeoutError:
            result = PushResult(f"not done within {timeout:g} s", retryable=True)
        except httpx.TransportError as error:
            result = PushResult(describe(error), retryable=True)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the pushes
            result = PushResult(describe(error))
        self._count(result)
        return result

    def _body(self, snapshot: Snapshot, totals: Totals) -> Generator[None, None, bytes]:
        encoded = yield from encoded_in_steps(snapshot, totals, self._resource_attributes)
        return (yield from compressed_in_steps(encoded)) if self._compressed else encoded

    async def _post(self, transport: httpx.AsyncHTTPTransport, body: bytes) -> PushResult:
        request = httpx.Request("POST", self._url, headers=self._headers, content=body)
        response = await transport.handle_async_request(request)
        try:
            answer = b""
            async for chunk in response.stream:  # type: ignore[union-attr]
                answer += chunk
                if len(answer) > _ANSWER_MAX:
                    break
        finally:
            await response.aclose()
        return self._judge(response.status_code, response.headers, answer, time.time())

    def _judge(self, status: int, headers: Mapping[str, str], answer: bytes, now: float) -> PushResult:
        """The result of a push, from the answer that arrived at *now* (seconds since the epoch)."""
        if not 200 <= status < 300:
            text = self._excerpt(answer)
            return PushResult(
                f"the receiver answered {status}{f': {text}' if text else ''}",
                retryable=status in _RETRYABLE,
                retry_after=seconds_wanted(headers.get("retry-after"), now) if status in _RETRYABLE else None,
            )
        if len(answer) > _ANSWER_MAX:
            return PushResult(f"the answer is not from an OTLP receiver: it has more than {_ANSWER_MAX} bytes")
        if answer[:1] == b"{":
            return PushResult()  # JSON: some receivers violate the protocol and answer a success with it
        try:
            partial = self._proto.Response.FromString(answer).partial_success
        except self._proto.DecodeError:
            return PushResult(f"the answer is not from an OTLP receiver: {self._excerpt(answer)!r}")
        return PushResult(rejected=partial.rejected_data_points, reason=self._excerpt(partial.error_message.encode()))

    def _excerpt(self, answer: bytes) -> str:
        return excerpt(answer[:_ANSWER_MAX], self._hide, whole=len(answer) <= _ANSWER_MAX)[:_EXCERPT]

    def _count(self, result: PushResult) -> None:
        self.last_error = result.error
        if result.error is not None:
            self.failed += 1
            self._failures += 1
            if self._failures == 1:
                self._on_outage(result.error)
            return
        if self._failures:
            self._on_recovery(f"pushes to {self.endpoint} succeed again, after {self._failures} failed")
        self._failures = 0
        self.exported += 1
        self.rejected += result.rejected
        if result.rejected and not self._rejecting:
            logger("export").warning(
                "OTLP receiver rejects data points",
                endpoint=self.endpoint, data_points=result.rejected, reason=result.reason,
            )  # fmt: skip
        self._rejecting = result.rejected > 0

    def _log_outage(self, reason: str) -> None:
        logger("export").warning("OTLP push failed", endpoint=self.endpoint, reason=reason)

    def _log_recovery(self, _what: str) -> None:
        logger("export").info("OTLP pushes succeed again", endpoint=self.endpoint, failed=self._failures)


def pause_after(failures: int, chance: float) -> float:
    """Seconds until the next try after *failures* failures in a row. *chance* is a random number from 0 to 1."""
    longest = min(_BACKOFF_FIRST * 2.0 ** min(failures - 1, 16), _BACKOFF_LAST)
    return longest * (0.5 + chance / 2)


def _url(endpoint: str) -> httpx.URL:
    try:
        url = httpx.URL(endpoint)
        usable = url.scheme in ("http", "https") and bool(url.host) and (url.port or 1) < 1 << 16
    except (TypeError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise ConfigError(f"OtlpExporter({endpoint!r}): needs a URL such as http://127.0.0.1:4318")
    if url.userinfo:
        raise ConfigError(f"OtlpExporter(): credentials do not belong in the URL of {url.host}; give them in headers")
    path = url.path.rstrip("/")
    return url.copy_with(path=path if path.endswith(_PATH) else path + _PATH, fragment=None)


def _headers(given: Mapping[str, str]) -> httpx.Headers:
    for name, value in given.items():
        # The value may be a secret, so it is not shown. Most often it was read from a file and ends with a newline.
        if not _TOKEN.fullmatch(str(name)) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigError(
                f"OtlpExporter(headers=...): {name!r} needs a value of printable ASCII without spaces at its ends"
            )
    headers = httpx.Headers(given)
    headers["Content-Type"] = "application/x-protobuf"
    headers.setdefault("User-Agent", f"pool_monitor/{__version__}")
    return headers


__all__ = ["OtlpExporter"]
