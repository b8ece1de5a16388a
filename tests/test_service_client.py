"""Questions to a running service: its answers as values, and what is wrong with one as the right kind of error."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from pool_monitor.errors import ConfigError, ConnectError
from pool_monitor.service.client import Client
from tests.helpers import samples


def asked(status: int, body: bytes, seen: list[httpx.Request] | None = None) -> Client:
    """A client of a service that answers every query so."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return httpx.Response(status, content=body)

    return Client(httpx.AsyncClient(base_url="http://service", transport=httpx.MockTransport(answer)))


async def test_what_is_asked_arrives_and_the_answer_is_a_value() -> None:
    seen: list[httpx.Request] = []
    summary, course = samples.summary("text", "vision"), samples.course()
    assert await asked(200, msgspec.json.encode(summary), seen).summary("1h") == summary
    found = await asked(200, msgspec.json.encode(course), seen).range(1.5, 2.5, 10, pool="a&b", operation="c d")
    assert found == course
    await asked(200, msgspec.json.encode(course), seen).range(1.5, 2.5, 10)
    assert [(request.url.path, dict(request.url.params)) for request in seen] == [
        ("/v1/summary", {"window": "1h"}),
        ("/v1/range", {"start": "1.5", "end": "2.5", "step": "10s", "pool": "a&b", "operation": "c d"}),
        ("/v1/range", {"start": "1.5", "end": "2.5", "step": "10s"}),
    ]


async def test_what_a_service_refuses_is_the_askers_mistake() -> None:
    with pytest.raises(ConfigError, match="ask for a larger step"):
        await asked(400, b'{"error": "ask for a larger step"}').range(1, 2, 1)


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (404, b"Not Found", "the service answered 404: Not Found"),
        (500, b"oops", "the service answered 500: oops"),
        (400, b"<html>", "the answer is not a dict"),
        (200, b"<html>", "the answer is not a Summary"),
        (200, b'{"start": 1}', "the answer is not a Summary"),
        (200, b"\xff", "the answer is not a Summary"),
    ],
)
async def test_an_answer_that_is_none_is_no_connection(status: int, body: bytes, complaint: str) -> None:
    with pytest.raises(ConnectError, match=complaint):
        await asked(status, body).summary("1h")
