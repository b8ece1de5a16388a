"""One worker process without a pool: what can be said to it while it works."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pool_monitor.pool.transport.process import Launch, ProcessTransport, import_path
from tests.support import OPS, eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


class Record:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.told.append((name, *values))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [values for what, *values in self.told if what == name]


@pytest.fixture
async def worker(no_leaks: None) -> AsyncIterator[tuple[ProcessTransport, Record]]:
    launch = Launch(
        target=OPS,
        python=sys.executable,
        path=import_path(sys.executable, []),
        env={},
        init=((), {}),
        codecs=["msgpack", "json"],
        frame_limit=1 << 20,
        session_data_limit=1 << 10,
    )
    record = Record()
    transport = ProcessTransport(launch, record)
    await transport.start()
    yield transport, record
    await transport.stop(5.0, 1.0)


async def test_an_idle_worker_answers_a_ping(worker: tuple[ProcessTransport, Record]) -> None:
    transport, record = worker
    transport.ping(7)
    await eventually(lambda: record.of("ponged") == [[7, None]])


@pytest.mark.parametrize(("operation", "args"), [("spin", []), ("sleep", [60]), ("later", [1, 60])])
async def test_a_busy_worker_answers_pings_and_names_its_call(
    operation: str, args: list[Any], worker: tuple[ProcessTransport, Record]
) -> None:
    transport, record = worker
    transport.call(1, operation, args, {}, stream=False, session=None)
    for token in range(1, 4):
        transport.ping(token)
        await eventually(lambda token=token: len(record.of("ponged")) == token)
    transport.ping(4)
    await eventually(lambda: record.of("ponged")[-1] == [4, 1])
    assert [token for token, _call in record.of("ponged")] == [1, 2, 3, 4]
    assert record.of("replied") == [], "it went on working"
    transport.cancel(1)
    await eventually(lambda: record.of("failed"))
    assert record.of("failed")[0][1].kind == "cancelled"


async def test_a_worker_answers_pings_between_the_items_of_a_stream(worker: tuple[ProcessTransport, Record]) -> None:
    transport, record = worker
    transport.call(1, "count", [50_000], {}, stream=True, session=None)
    for token in range(20):
        transport.ping(token)
    await eventually(lambda: record.of("replied") and len(record.of("ponged")) == 20)
    assert [value for _call, value in record.of("item")] == list(range(50_000))


async def test_a_cancel_for_another_call_interrupts_nothing(worker: tuple[ProcessTransport, Record]) -> None:
    transport, record = worker
    transport.call(1, "later", ["done", 0.05], {}, stream=False, session=None)
    transport.cancel(2)
    await eventually(lambda: record.of("replied"))
    assert record.of("replied")[0][:2] == [1, "done"]
