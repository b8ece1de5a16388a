"""Names that are SQL, shell, format strings, markup or terminal escapes are stored and found as they are."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import msgspec
import pytest

from pool_monitor import Monitor, Pool
from pool_monitor.adapters import MonitoredCalls
from pool_monitor.config import HistoryConfig, MonitorConfig
from pool_monitor.errors import OperationError, UnknownName
from pool_monitor.service.client import connected
from pool_monitor.snapshot import Range
from pool_monitor.storage import Reader
from tests.helpers.programs import Done, command, runtime_dir
from tests.helpers.stores import rows_in
from tests.helpers.support import TARGETS, eventually
from tests.targets.odd_names import NAMES
from tests.test_monitor import at

__all__ = ["command", "runtime_dir"]
POOL = "'; DROP TABLE names; -- {0} %s $(id)"
CALLS = 'calls" | `id` %n {name} \\'


def calls_of(found: Range) -> int:
    return sum(point.calls for point in found.points)


async def ran(monitor: Monitor, pool: Pool, calls: MonitoredCalls) -> None:
    """One call of every name, of each; and one that fails with an error of such a name."""
    for name in NAMES:
        assert await pool.run(name) == name

        async def nothing() -> None:
            pass

        await calls.wrap(nothing, operation=name)()
    with pytest.raises(OperationError):
        await pool.run("fail", NAMES[0])
    began = monitor.snapshot().taken_at
    await eventually(lambda: monitor.snapshot().taken_at > began + 1.2)  # until the second is over
    assert await monitor.history._history.flush()


async def test_any_name_goes_through_pool_history_reader_range_and_report_as_it_is(
    tmp_path: Path, command, no_leaks: None
) -> None:
    path, began = tmp_path / "history.db", time.time() - 1
    pool, calls = Pool(f"{TARGETS / 'odd_names.py'}:Odd", name=POOL, size=1), MonitoredCalls(name=CALLS, limit=2)
    config = MonitorConfig(history=HistoryConfig(path=str(path), flush_interval=0.1))
    async with pool, Monitor([pool, calls], config=config) as monitor, connected(at(monitor)) as http:
        await ran(monitor, pool, calls)
        assert monitor.metrics.worker(f"{POOL}-0").last_error == NAMES[0]
        for name in NAMES:
            for of in (POOL, CALLS):
                assert calls_of(await monitor.history.range(began, step="1s", pool=of, operation=name)) == 1
                assert calls_of(monitor.metrics.range(began, step="1s", pool=of, operation=name)) == 1
            answer = await http.get("/v1/range", params={"start": began, "pool": POOL, "operation": name})
            assert calls_of(msgspec.json.decode(answer.content, type=Range)) == 1
        worker = await monitor.history.range(began, step="1s", worker=f"{POOL}-0")
        assert calls_of(worker) == len(NAMES) + 1
        assert set(await monitor.history.error_rates()) == {*NAMES, "fail"}
        for name in ("%", "*", "' OR '1'='1", f"{NAMES[0]} "):
            with pytest.raises(UnknownName):
                await monitor.history.range(began, step="1s", operation=name)
    with Reader(path) as found:
        assert found.pools() == tuple(sorted([POOL, CALLS]))
        start, end = found.extent()
        names = found.read(start, end, 1).names
    assert {operation for pool_name, operation, _worker in names.rows if pool_name == CALLS} == set(NAMES)
    assert {worker for of, _operation, worker in names.rows if of == POOL} == {f"{POOL}-0"}
    assert rows_in(path)
    check_report(path, command)


def check_report(path: Path, command) -> None:
    done: Done = command("report", path, "--format", "json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert report["summary"]["pools"].keys() == report["courses"].keys() == {POOL, CALLS}
    for of, also in ((POOL, {"fail"}), (CALLS, set())):
        operations = report["summary"]["pools"][of]["operations"]
        assert operations.keys() == {*NAMES, *also}
        assert all(operations[name]["calls"] == 1 for name in NAMES)
    rows = list(csv.DictReader(io.StringIO(command("report", path, "--format", "csv").out, newline="")))
    assert {row["pool"].lstrip("'") for row in rows} >= {POOL.lstrip("'"), CALLS}
    for form in ("text", "md"):
        done = command("report", path, "--format", form)
        assert (done.code, done.err) == (0, "")
        assert not [letter for letter in done.out if not letter.isprintable() and letter != "\n"]
