"""Results as views of memory shared with a worker: good as long as anything made of them is there, then given back."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pool_monitor import ConfigError, Pool
from pool_monitor.pool.transport import lending, shared_memory
from pool_monitor.pool.transport.shared_memory import SharedFile
from tests.helpers.support import TARGETS, alive, eventually, ops_pool, read
from tests.helpers.transports import started

WIRE = f"{TARGETS / 'wire.py'}:Wire"
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("no_leaks")


def wire_pool(**fields: Any) -> Pool:
    return Pool(WIRE, **{"size": 1, "name": "wire", "timeout": 20.0, "frame_limit": 16 * MIB, **fields})


def transport_of(pool: Pool) -> Any:
    return pool._calls().workers["wire-0"].transport


def lent_by(pool: Pool) -> int:
    """Messages that the worker has lent and that are not returned."""
    return len(transport_of(pool)._lending._borrowed)


def noise(number: int = 0, size: int = MIB) -> bytes:
    return (bytes([number + 1]) + os.urandom(999)) * (size // 1000) + bytes(size % 1000)


# -- what comes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "concurrency"), [("msgpack", 1), ("msgpack", 5), ("pickle", 1)])
async def test_every_result_of_bytes_is_a_read_only_view(codec: str, concurrency: int) -> None:
    async with wire_pool(codec=codec, concurrency=concurrency) as pool:
        views = pool.options(zero_copy=True)
        for data in (b"", b"small", noise(size=100_000), noise(), noise(size=9 * MIB)):
            view = await views.run("echo", data)
            assert isinstance(view, memoryview)
            assert (view.readonly, view.format, view.ndim, view.nbytes) == (True, "B", 1, len(data))
            assert view == data
            assert type(await pool.run("echo", data)) is bytes
        del view
        for value in ("x" * MIB, None, {"a": noise()}, [b"a", b"b"]):
            assert await views.run("echo", value) == value


async def test_items_of_streams_and_what_else_calls_give_are_views_too() -> None:
    async with wire_pool() as pool:
        views = pool.options(zero_copy=True)
        datas = [noise(number, size) for number, size in enumerate((MIB, 10, 300_000, 0))]
        assert [bytes(view) async for view in views.map("echo", datas)] == datas
        assert isinstance((await views.try_run("echo", datas[0])).result, memoryview)
        expected = [bytes([number]) * 300_000 for number in range(5)]
        items = await read(views.stream("produce_bytes", 5, 300_000))
        assert items == expected
        assert all(isinstance(item, memoryview) for item in items)
        items.clear()
        await eventually(lambda: not lent_by(pool))
        items = (await views.try_run("produce_bytes", 5, 300_000)).result
        assert items == expected
        assert all(isinstance(item, memoryview) for item in items)
        assert lent_by(pool) == 5
        items.clear()
        await eventually(lambda: not lent_by(pool))


async def test_what_is_viewed_is_not_copied() -> None:
    async with wire_pool() as pool:
        views = pool.options(zero_copy=True)
        await views.run("bytes", 2 * MIB)
        tracemalloc.start()
        try:
            view = await views.run("bytes", 2 * MIB)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert view[-1] == 7
        assert peak < MIB
        del view


async def test_without_ctypes_results_are_copied_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_exporter", lambda _size: None)
    async with wire_pool() as pool:
        view = await pool.options(zero_copy=True).run("echo", data := noise())
        assert isinstance(view, memoryview)
        assert view == data
        await eventually(lambda: not lent_by(pool))


async def test_whether_to_copy_is_yes_or_no() -> None:
    with pytest.raises(ConfigError, match=r"options\(zero_copy=1\): needs True or False"):
        wire_pool().options(zero_copy=1)  # type: ignore[arg-type]


# -- how long it is good ------------------------------------------------------------------------------------------


async def test_views_stay_as_they_were_while_others_come_and_go() -> None:
    async with wire_pool(prefetch=16) as pool:
        views = pool.options(zero_copy=True)
        datas = [noise(number, 200_000 + 90_000 * number) for number in range(12)]
        kept = {number: await views.run("echo", datas[number]) for number in (0, 5, 9)}
        for _ in range(5):
            got = await asyncio.gather(*(views.run("echo", data) for data in datas))
            assert got == datas
            del got
        assert all(view == datas[number] for number, view in kept.items())
        kept.clear()
        await eventually(lambda: not lent_by(pool))


async def test_a_view_outlives_its_worker_and_the_pool() -> None:
    datas = [noise(number) for number in range(3)]
    async with wire_pool(backoff_min=0.001, backoff_max=0.01) as pool:
        views = pool.options(zero_copy=True)
        first = await views.run("echo", datas[0])
        pid = pool.workers()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not alive(pid) and pool.workers()[0].pid not in (None, pid))
        second = await views.run("echo", datas[1])
        assert first == datas[0]
        part = (await views.run("echo", datas[2]))[1000:2000]
    assert (first, second, part) == (datas[0], datas[1], datas[2][1000:2000])


def test_a_view_outlives_the_event_loop() -> None:
    async def viewed() -> Any:
        async with wire_pool() as pool:
            return await pool.options(zero_copy=True).run("bytes", MIB)

    view = asyncio.run(viewed())
    assert view == b"\x07" * MIB
    del view


async def test_a_slice_or_an_array_keeps_what_it_was_made_of() -> None:
    async with wire_pool() as pool:
        views = pool.options(zero_copy=True)
        for made in (
            lambda view: view[5:10],
            lambda view: view.cast("I")[1:],
            lambda view: np.frombuffer(view, "u1")[5:9],
        ):
            kept = made(await views.run("echo", data := noise()))
            assert lent_by(pool) == 1
            await asyncio.gather(*(pool.run("echo", noise(number)) for number in range(10)))
            assert bytes(kept) == bytes(made(memoryview(data)))
            del kept
            await eventually(lambda: not lent_by(pool))


# -- room ---------------------------------------------------------------------------------------------------------


async def test_views_that_are_kept_take_room_and_what_comes_then_is_right_all_the_same() -> None:
    async with wire_pool() as pool:
        views = pool.options(zero_copy=True)
        datas = [noise(number) for number in range(20)]
        kept = [await views.run("echo", data) for data in datas]
        assert lent_by(pool) == 7, "what is left of 8 MiB is too little for another"
        assert kept == datas
        del kept[0]
        await eventually(lambda: lent_by(pool) == 6)
        assert await views.run("echo", datas[0]) == datas[0]  # in the room of the first, or by the channel
        assert lent_by(pool) in (6, 7)  # it stands behind those that are kept
        kept.clear()
        await eventually(lambda: not lent_by(pool))
        view = await views.run("echo", datas[3])
        assert lent_by(pool) == 1
        assert view == datas[3]
        del view


async def test_a_worker_that_is_out_of_room_sees_what_was_returned_meanwhile(tmp_path: Path) -> None:
    async with started(target=WIRE, frame_limit=16 * MIB) as line:
        line.record.takes_view = lambda _call_id: True
        for _ in range(7):
            await line.run("bytes", MIB)
        waiting = line.call("until_exists", str(tmp_path / "go"))
        large = line.call("bytes", MIB)
        line.record.told.clear()
        await eventually(lambda: not line.transport._lending._borrowed)
        (tmp_path / "go").touch()
        await eventually(lambda: line.record.answered() == [waiting, large])
        assert len(line.transport._lending._borrowed) == 1
        line.record.told.clear()


async def test_a_view_may_go_in_any_thread() -> None:
    async with wire_pool() as pool:
        held = [await pool.options(zero_copy=True).run("bytes", MIB)]
        assert lent_by(pool) == 1
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        await eventually(lambda: not lent_by(pool))


async def test_a_result_that_nobody_waits_for_any_more_is_given_back(tmp_path: Path) -> None:
    async with wire_pool(cancel_grace=20.0) as pool:
        views = pool.options(zero_copy=True)
        task = asyncio.ensure_future(views.run("bytes", 4 * MIB))
        await eventually(lambda: transport_of(pool).begun == 1)
        task.cancel()
        del task  # on a busy machine it has its result by now, and would keep it
        assert len(await views.run("bytes", MIB)) == MIB
        await eventually(lambda: not lent_by(pool))


async def test_a_view_that_came_as_its_caller_was_cancelled_is_given_back_though_the_task_is_kept() -> None:
    async with wire_pool() as pool:
        task = asyncio.ensure_future(pool.options(zero_copy=True).run("bytes", MIB))
        while not lent_by(pool):  # this comes before the task, which is woken in the same turn
            await asyncio.sleep(0)
        task.cancel()
        await eventually(lambda: not lent_by(pool))
        assert task.cancelled()


async def test_a_worker_that_goes_on_lending_behind_a_view_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_UNREAD_LIMIT", 3)
    async with wire_pool(restart_limit=100, backoff_min=0.001, backoff_max=0.01) as pool:
        view = await pool.options(zero_copy=True).run("bytes", MIB)
        done = await asyncio.gather(*(pool.try_run("bytes", MIB // 2) for _ in range(6)))
        assert any("lent and not returned" in str(result.error) for result in done)
        assert view == b"\x07" * MIB
        del view


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="only Linux takes memory of a file back")
async def test_memory_is_not_taken_back_while_it_is_viewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_TRIM_AFTER", 0.02)
    async with wire_pool() as pool:
        view = await pool.options(zero_copy=True).run("echo", data := noise(size=4 * MIB))
        theirs = transport_of(pool)._lending.shared.memory._theirs
        for _ in range(200):  # after which a worker gives back what it does not need
            await pool.run("echo", 1)
        await eventually(lambda: transport_of(pool)._lending._trim_timer is None)
        assert view == data
        del view
        await eventually(lambda: not lent_by(pool))
        for _ in range(200):
            await pool.run("echo", 1)
        assert theirs[3 * MIB] == 0


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="only Linux takes memory of a file back")
async def test_what_is_left_of_an_ended_worker_for_a_view_is_what_it_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    new = SharedFile.__init__

    def keeping(self: SharedFile, frame_limit: int) -> None:
        new(self, frame_limit)
        kept.append(os.dup(self.fd))

    monkeypatch.setattr(SharedFile, "__init__", keeping)
    async with wire_pool() as pool:
        await pool.run("perhaps", None, noise(size=6 * MIB))
        view = await pool.options(zero_copy=True).run("bytes", MIB)
    try:
        assert view == b"\x07" * MIB
        assert os.fstat(kept[0]).st_blocks * 512 < 2 * MIB
    finally:
        os.close(kept[0])
        del view


async def test_the_results_of_a_map_are_views_too() -> None:
    async with ops_pool(size=1) as pool:
        results = pool.options(zero_copy=True).map("echo", [b"small", bytes(300_000), 5])
        views = [result async for result in results]
        assert [type(view) for view in views] == [memoryview, memoryview, int]
        assert [views[0], len(views[1])] == [b"small", 300_000]
