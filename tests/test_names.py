"""Names from outside mean nothing: SQL, shell, format strings and terminal escapes are stored and found as they are."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pool_monitor import Monitor
from pool_monitor.adapters import MonitoredCalls
from pool_monitor.config import HistoryConfig, MonitorConfig
from pool_monitor.export import totals_json
from pool_monitor.service.client import Address, connected, fetch, follow
from pool_monitor.storage import Reader
from pool_monitor.view import overview, plain
from tests.helpers.programs import runtime_dir

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")

NAMES = [
    "x'); DROP TABLE names; --",
    'y" OR "1"="1',
    "$(touch /tmp/owned); `id` && rm -rf ~ | cat",
    "{0.__class__} %s %(pool)s %n {}",
    "\x1b]0;title\x07\x1b[2J\x9b31m\x00\x7f",
    "\u202ereversed\u200b\ufeff",
    'a="b",c="d"} 1\n# TYPE injected counter\ninjected 1',
    "data: {}\r\n\r\nevent: snapshot",
    "<script>alert(1)</script>&amp;",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "NaN",
    "*",
    "\\",
    "naïve 日本 🐍",
]


async def test_operations_of_any_name_are_found_by_it_everywhere(tmp_path):
    calls = MonitoredCalls(name="odd", limit=len(NAMES))
    go = asyncio.Event()
    path = tmp_path / "odd.db"
    async with Monitor(calls, config=MonitorConfig(history=HistoryConfig(path=str(path)))) as monitor:
        at = Address("it", monitor.address, "http://localhost")
        tasks = [asyncio.create_task(calls.wrap(go.wait, operation=name)()) for name in NAMES]
        await asyncio.sleep(0)
        async with connected(at) as http, aclosing(follow(at, "5m")) as snapshots:
            for taken in (await fetch(at, "5m"), await anext(snapshots)):
                assert {worker.operation for worker in taken.pools["odd"].workers.values()} == set(NAMES)
                shown = plain(overview(taken, (200, 60)))
                assert all(char.isprintable() for line in shown.splitlines() for char in line)
            go.set()
            await asyncio.gather(*tasks)

            assert set((await fetch(at, "5m")).pools["odd"].operations) == set(NAMES)
            summary = msgspec.json.decode((await http.get("/v1/summary")).content)
            assert set(summary["pools"]["odd"]["operations"]) == set(NAMES)
            for name in NAMES:
                asked = {"start": str(monitor.metrics.since), "operation": name}
                course = msgspec.json.decode((await http.get("/v1/range", params=asked)).content)
                assert (course["operation"], sum(point["calls"] for point in course["points"])) == (name, 1)
            families = list(text_string_to_metric_families((await http.get("/metrics")).content.decode()))
            assert all(family.name.startswith("pool_monitor_") for family in families)
            [ended] = [family.samples for family in families if family.name == "pool_monitor_calls"]
            assert {one.labels["operation"] for one in ended if one.value} == set(NAMES)
        totals = totals_json.decode(b"".join(totals_json.encode(monitor.metrics.totals())))
        assert {operation for _pool, operation, _worker in totals.names.rows} >= set(NAMES)
    with Reader(path) as reader:
        start, end = reader.extent()
        recording = reader.read(start, end, 1)
    assert {operation for _pool, operation, _worker in recording.names.rows} >= set(NAMES)
