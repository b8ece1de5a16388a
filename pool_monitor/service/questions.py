"""Ask a running service what it measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from pool_monitor.errors import ConfigError, ConnectError
from pool_monitor.service.client import Address, check_status, connected, explained, parse
from pool_monitor.snapshot import Range, Snapshot, Summary

T = TypeVar("T")


class Questions:
    """Questions to one service. All raise ConnectError when it cannot be reached, ConfigError for what it refuses."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def snapshot(self, window: str) -> Snapshot:
        return parse(await self._get("/v1/snapshot", window=window))

    async def summary(self, window: str) -> Summary:
        return _decoded(await self._get("/v1/summary", window=window), Summary)

    async def range(
        self, start: float, end: float, step: int, *, pool: str | None = None, operation: str | None = None
    ) -> Range:
        """Times and *step* are seconds."""
        asked = {"start": start, "end": end, "step": f"{step}s", "pool": pool, "operation": operation}
        return _decoded(await self._get("/v1/range", **asked), Range)

    async def _get(self, path: str, **asked: Any) -> bytes:
        response = await self._http.get(
            path, params={name: value for name, value in asked.items() if value is not None}
        )
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise ConfigError(_decoded(response.content, dict[str, str])["error"])
        check_status(response, response.text)
        return response.content


@asynccontextmanager
async def asking(address: Address) -> AsyncIterator[Questions]:
    """A connection for `Questions`."""
    with explained(address):
        async with connected(address) as http:
            yield Questions(http)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConnectError(f"the answer is no {kind.__name__}: {error}") from error
