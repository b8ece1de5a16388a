"""Memory shared with a worker: large messages pass through it unharmed, in any order, and none of it is kept."""

from __future__ import annotations

import asyncio
import mmap
import os
import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.errors import PayloadError
from pool_monitor.pool.transport import lending, shared_memory
from pool_monitor.pool.transport.child.codec import CODECS, LARGE
from pool_monitor.pool.transport.child.shared_memory import SharedMemory, area_size
from pool_monitor.pool.transport.shared_memory import SharedFile
from tests.helpers.support import TARGETS, eventually, interpreter
from tests.helpers.transports import Line, started

pytestmark = pytest.mark.usefixtures("no_leaks")

WIRE = f"{TARGETS / 'wire.py'}:Wire"
MIB = 1 << 20


def wire(**fields: Any) -> Any:
    return started(**{"target": WIRE, "frame_limit": 16 * MIB, **fields})


class Watch:
    """Counts the messages a worker lends, and those lent to it."""

    def __init__(self, line: Line) -> None:
        self.to, self.back = 0, 0
        memory, borrow = line.transport._lending.shared.memory, line.transport._lending._borrow
        lend = memory.lend

        def lending(pieces: Any, size: int) -> list[Any] | None:
            lent = lend(pieces, size)
            self.to += lent is not None
            return lent

        def borrowing(*place: int) -> None:
            self.back += 1
            borrow(*place)

        memory.lend, line.transport._lending._borrow = lending, borrowing


# -- large messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("concurrency", [1, 10])
async def test_large_messages_are_lent_both_ways_whatever_the_codec(codec: str, concurrency: int) -> None:
    async with wire(codecs=[codec], concurrency=concurrency) as line:
        watch = Watch(line)
        for turn in range(5):
            text = chr(ord("a") + turn) * (2 * MIB)
            assert await line.run("echo", text) == text
            assert await line.run("echo", turn) == turn
        assert (watch.to, watch.back) == (5, 5)


@pytest.mark.parametrize("size", [LARGE - 100, LARGE - 1, LARGE, LARGE + 1, MIB, 8 * MIB - 64, 8 * MIB, 9 * MIB])
async def test_bytes_of_any_size_come_back_as_they_went(size: int) -> None:
    data = os.urandom(1000) * (size // 1000 + 1)
    async with wire() as line:
        assert await line.run("echo", data[:size]) == data[:size]
        assert await line.run("echo", {"a": [data[:size]]}) == {"a": [data[:size]]}
        assert await line.run("echo", value=data[:size]) == data[:size]


async def test_a_message_larger_than_the_area_goes_through_the_socket() -> None:
    async with wire() as line:
        watch = Watch(line)
        assert await line.run("echo", "x" * (9 * MIB)) == "x" * (9 * MIB)
        assert (watch.to, watch.back) == (0, 0)


async def test_large_messages_at_once_share_the_area_and_the_socket_in_order() -> None:
    async with wire() as line:
        watch = Watch(line)
        datas = [bytes([number]) * (MIB + number) for number in range(30)]
        calls = [line.call("echo", data) for data in datas]
        await eventually(lambda: len(line.record.answered()) == 30)
        assert line.record.answered() == calls
        assert list(line.record.results().values()) == datas
        assert 7 <= watch.to < 30
        assert watch.back >= 7


async def test_large_messages_of_many_sizes_on_their_way_at_once_arrive_as_they_went() -> None:
    sizes = [200_000, 3 * MIB, 500_000, MIB, 2 * MIB, 300_000, 1_500_000]
    datas = [bytes([number]) * sizes[number % len(sizes)] for number in range(64)]
    async with wire() as line:
        watch = Watch(line)
        calls = [line.call("echo", data) for data in datas[:16]]
        for number, data in enumerate(datas):
            await eventually(lambda count=number + 1: len(line.record.answered()) >= count)
            assert line.record.results()[calls[number]] == data
            calls += [line.call("echo", data) for data in datas[number + 16 : number + 17]]
        assert line.record.answered() == calls
        assert watch.to > 16
        assert watch.back > 16


async def test_what_finds_no_room_in_the_area_goes_through_the_socket(tmp_path: Path) -> None:
    async with wire() as line:
        watch, memory = Watch(line), line.transport._lending.shared.memory
        line.call("until_exists", str(tmp_path / "go"))
        await eventually(lambda: line.transport.begun == 1)
        datas = [bytes([number]) * MIB for number in range(12)]
        calls = [line.call("echo", data) for data in datas]
        assert watch.to == memory.lent_count == 7
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 13)
        assert list(line.record.results().values())[1:] == datas
        assert line.record.answered()[1:] == calls
        await line.run("echo", 1)
        assert memory.lent_count == 0


async def test_large_items_of_a_stream_arrive_in_order_among_small_ones() -> None:
    async with wire() as line:
        line.call("produce", 30, 300_000, stream=True)
        line.call("produce", 30, 3, stream=True)
        await eventually(lambda: len(line.record.answered()) == 2)
        assert [(call_id, len(value)) for call_id, value, _ in line.record.of("item")] == (
            [(1, 300_000)] * 30 + [(2, 3)] * 30
        )
        assert {size // 1000 for call_id, _, size in line.record.of("item") if call_id == 1} == {300}


async def test_a_worker_reads_a_large_call_while_it_runs_another(tmp_path: Path) -> None:
    async with wire() as line:
        memory = line.transport._lending.shared.memory
        waiting = line.call("until_exists", str(tmp_path / "go"))
        large = line.call("echo", "x" * MIB)
        assert memory.lent_count
        line.transport.ping(1)
        await eventually(lambda: not memory.lent_count)
        assert line.record.answered() == []
        line.transport.recall([large])
        await eventually(lambda: line.record.of("recalled") == [[large]])
        (tmp_path / "go").touch()
        await eventually(lambda: line.record.answered() == [waiting])


async def test_what_was_lent_is_returned_before_an_operation_expected_to_take_long(tmp_path: Path) -> None:
    async with wire() as line:
        line.call("until_exists", str(tmp_path / "go"), b"x" * MIB)
        await eventually(lambda: not line.transport._lending.shared.memory.lent_count)
        assert line.record.answered() == []
        (tmp_path / "go").touch()


async def test_what_was_lent_for_an_operation_that_takes_unexpectedly_long_is_returned_when_asked() -> None:
    async with wire() as line:
        for _ in range(20):
            await line.run("perhaps")
        call_id = line.call("perhaps", "wait", b"x" * MIB)
        await eventually(lambda: line.transport.begun == 21)
        line.transport.recall([])
        await eventually(lambda: not line.transport._lending.shared.memory.lent_count)
        line.transport.cancel(call_id)


async def test_the_limit_of_a_frame_holds_for_what_is_lent_too() -> None:
    async with wire(frame_limit=MIB) as line:
        for data in (b"x" * MIB, "x" * MIB, [b"x" * MIB]):
            with pytest.raises(PayloadError, match="over the frame limit of 1048576"):
                line.call("echo", data)
        for operation in ("fill", "bytes"):
            call_id = line.call(operation, MIB)
            await eventually(lambda call_id=call_id: call_id in line.record.answered())
            [told] = [told for told in line.record.of("failed") if told[0] == call_id]
            assert told[1].kind == "payload"
            assert "over the frame limit" in told[1].message
        assert len(await line.run("bytes", MIB - 100)) == MIB - 100


async def test_what_was_lent_by_a_worker_that_died_reaches_whoever_was_to_have_it() -> None:
    async with wire() as line:
        await line.run("bytes", MIB)
        line.call("bytes", 2 * MIB)
        line.call("perhaps", "exit")
        await eventually(lambda: line.record.of("gone"))
        assert len(line.record.results()[2]) == 2 * MIB


async def test_a_worker_that_keeps_up_is_lent_little_memory() -> None:
    async with wire() as line:
        memory = line.transport._lending.shared.memory
        for number in range(20):
            datas = [bytes([number]) * MIB] * 2
            calls = [line.call("echo", data) for data in datas]
            await eventually(lambda calls=calls: set(calls) <= set(line.record.answered()))
        assert memory.touched_bytes < 3 * MIB


async def test_a_large_result_of_bytes_is_copied_once() -> None:
    async with wire() as line:
        await line.run("bytes", 4 * MIB)
        line.record.told.clear()
        tracemalloc.start()
        try:
            assert len(await line.run("bytes", 4 * MIB)) == 4 * MIB
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 6 * MIB


FAULTS = """
import asyncio, resource
from pool_monitor import Pool

async def main():
    async with Pool(TARGET, size=2) as pool:
        async def calls(count):
            for _ in range(count):
                await pool.run("bytes", 1 << 20)
        await asyncio.gather(*(calls(5) for _ in range(4)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        await asyncio.gather(*(calls(25) for _ in range(4)))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 100)

asyncio.run(main())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives the memory of large blocks back at once"
)
def test_memory_for_large_results_is_not_asked_of_the_system_for_each() -> None:
    program = FAULTS.replace("TARGET", repr(WIRE))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 64, "page faults for a result of 256 pages"


# -- memory is given back -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="only Linux takes memory of a file back")
async def test_memory_of_large_messages_is_given_back_when_none_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_TRIM_AFTER", 0.3)  # seconds, more than it takes to look how much there is
    kept: list[int] = []
    new = SharedFile.__init__

    def keeping(self: SharedFile, frame_limit: int) -> None:
        new(self, frame_limit)
        kept.append(os.dup(self.fd))

    monkeypatch.setattr(shared_memory.SharedFile, "__init__", keeping)
    try:
        async with wire() as line:
            assert os.fstat(kept[0]).st_blocks * 512 < 64 * 1024, "nothing is taken before it is needed"
            await line.run("echo", b"x" * (4 * MIB))
            assert os.fstat(kept[0]).st_blocks * 512 >= 8 * MIB
            await eventually(lambda: os.fstat(kept[0]).st_blocks * 512 < 128 * 1024)
            assert not line.transport._reader.oversized
            data = os.urandom(MIB)
            assert await line.run("echo", data) == data
    finally:
        for fd in kept:
            os.close(fd)


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="only Linux takes memory of a file back")
async def test_a_worker_busy_with_small_calls_gives_memory_back_too() -> None:
    async with wire() as line:
        await line.run("bytes", 4 * MIB)
        theirs = line.transport._lending.shared.memory._theirs
        assert theirs[3 * MIB] == 7
        for _ in range(20):
            await line.run("echo", 1)
        assert theirs[3 * MIB] == 7, "it may be needed again"
        for _ in range(100):
            await line.run("echo", 1)
        assert theirs[3 * MIB] == 0


async def test_the_areas_are_bounded_whatever_the_frame_limit() -> None:
    assert area_size(1 << 30) == 8 * MIB
    assert area_size(5000) == 8192


# -- without, or with a bad one -----------------------------------------------------------------------------------


async def test_a_worker_works_without_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(self: SharedFile, frame_limit: int) -> None:
        raise OSError

    monkeypatch.setattr(shared_memory.SharedFile, "__init__", none)
    async with wire() as line:
        assert line.transport.begun is None
        line.transport.recall([1])
        assert await line.run("echo", "x" * (2 * MIB)) == "x" * (2 * MIB)
        line.call("until_exists", str(tmp_path / "go"))
        calls = [line.call("echo", number) for number in range(20)]
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 22)
        assert line.record.answered()[2:] == calls


async def test_where_no_file_can_be_kept_from_being_cut_a_worker_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    async with wire() as line:
        assert await line.run("echo", "x" * (2 * MIB)) == "x" * (2 * MIB)
        assert line.transport.begun is None


async def test_a_file_that_is_too_short_is_not_used(tmp_path: Path) -> None:
    with (tmp_path / "short").open("w+b") as file:
        file.truncate(1000)
        with pytest.raises(ValueError, match="too short"):
            SharedMemory(file.fileno(), MIB, parent=True)


def lender(**env: str) -> Any:
    command = (sys.executable, str(Path(__file__).parent / "workers" / "lender.py"))
    return started(command=command, codecs=["json"], frame_limit=16 * MIB, env=env)


async def test_a_worker_that_knows_one_place_in_the_area_is_lent_one_message_at_a_time() -> None:
    async with lender() as line:
        watch = Watch(line)
        texts = [letter * MIB for letter in "abcdefgh"]
        for text in texts:
            line.call("echo", text)
        assert line.transport._lending.shared.memory.lent_count == watch.to == 1
        await eventually(lambda: len(line.record.answered()) == 8)
        assert list(line.record.results().values()) == texts
        assert 1 <= watch.back < 8
        assert await line.run("echo", texts[0]) == texts[0]
        assert watch.to == 2


async def test_a_worker_that_says_so_is_lent_messages_anywhere_and_may_lend_them_anywhere() -> None:
    async with lender(LENDER_OFFSETS="1") as line:
        watch = Watch(line)
        texts = [letter * MIB for letter in "abcd"]
        for text in texts:
            line.call("echo", text)
        assert line.transport._lending.shared.memory.lent_count == watch.to == 4
        await eventually(lambda: len(line.record.answered()) == 4)
        assert list(line.record.results().values()) == texts
        assert watch.back >= 1
        assert len(set(await line.run("seen"))) == 4


@pytest.mark.parametrize("version", ["3.8", "3.13"])
async def test_any_python_from_3_8_lends(version: str) -> None:
    python = interpreter(version)
    async with wire(python=python, path=[]) as line:
        watch = Watch(line)
        assert await line.run("echo", "x" * MIB) == "x" * MIB
        assert (watch.to, watch.back) == (1, 1)


# -- pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "msgpack", "pickle"])
def test_pieces_joined_say_what_the_whole_says(name: str) -> None:
    codec = CODECS[name]()
    large = b"y" * LARGE if name != "json" else "y" * LARGE
    for args in ([large], [1, large, "a", large], (large,), [[large]], [{"a": large}], []):
        message = ["call", 1, "echo", [args, {"k": large}], False, None]
        joined = b"".join(codec.pieces(message))
        assert codec.decode(joined) == codec.decode(codec.encode(message))


def test_a_large_value_is_not_copied_into_its_pieces() -> None:
    large = b"y" * LARGE
    pieces = CODECS["msgpack"]().pieces(["reply", 1, large, None, [1, 2, 3]])
    assert any(piece is large for piece in pieces)


async def test_a_full_socket_is_filled_up_in_order_when_there_is_room(tmp_path: Path) -> None:
    async with wire() as line:
        line.call("until_exists", str(tmp_path / "go"))
        await eventually(lambda: line.transport.begun == 1)
        datas = [bytes([number]) * (MIB + number) for number in range(15)] + list(range(50))
        for data in datas:
            line.call("echo", data)
        await asyncio.sleep(0)
        assert line.transport._wire._unsent
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 66)
        assert list(line.record.results().values())[1:] == datas
