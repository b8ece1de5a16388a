"""The server that tests of delivery send to: it does what is scripted, so that they test what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.helpers import fault_server as fs
from tests.helpers.fault_server import Answer, FaultServer


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as made:
        yield made


async def post(url: str, body: bytes = b"{}") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=0.3) as client:
        return await client.post(url, content=body, headers={"x-mark": "1"})


async def test_answers_are_used_in_their_order_and_the_last_one_again(server: FaultServer) -> None:
    server.script("/a", fs.status(503, retry_after="2"), fs.moved("/b"), fs.busy_until(60), fs.ok())
    codes = [(await post(server.url("/a?key=1"), b"%d" % number)).status_code for number in range(5)]
    assert codes == [503, 301, 429, 200, 200]
    assert server.bodies("/a") == [b"0", b"1", b"2", b"3", b"4"]
    assert server.of("/a")[0].headers["x-mark"] == "1"
    assert not server.of("/b")
    assert (await post(server.url("/unscripted"))).status_code == 200


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (fs.reset(), httpx.TransportError),
        (fs.disconnect(), httpx.RemoteProtocolError),
        (fs.garbage(), httpx.RemoteProtocolError),
        (fs.truncated(), httpx.RemoteProtocolError),
        (fs.huge_head(), httpx.RemoteProtocolError),
        (fs.hang(), httpx.ReadTimeout),
    ],
    ids=["reset", "disconnect", "garbage", "truncated", "huge_head", "hang"],
)
async def test_what_breaks_http_breaks_it(server: FaultServer, answer: Answer, error: type[Exception]) -> None:
    server.script("/a", answer)
    with pytest.raises(error):
        await post(server.url("/a"))
    assert len(server.of("/a")) == 1


@pytest.mark.parametrize("answer", [fs.dripping_head(0.01), fs.dripping_body(0.01)], ids=["head", "body"])
async def test_what_drips_never_ends_and_never_times_out_by_itself(server: FaultServer, answer: Answer) -> None:
    server.script("/a", answer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):  # longer than the client waits for one byte
            await post(server.url("/a"))
    assert server.open["/a"] == 1


async def test_old_servers_and_informational_answers_are_understood(server: FaultServer) -> None:
    server.script("/a", fs.old(body=b"old"), fs.informed(fs.ok(b"new")))
    assert [(await post(server.url("/a"))).content for _ in range(2)] == [b"old", b"new"]
