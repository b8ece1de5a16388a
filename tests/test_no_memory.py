"""When there is no memory left nothing spins, and no end of a worker is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import pytest

from pool_monitor.pool.transport import output_lines, spawn
from pool_monitor.pool.transport.channel import ChannelEnds
from pool_monitor.pool.transport.child.framing import FrameReader
from pool_monitor.pool.transport.output_lines import OutputReader
from pool_monitor.pool.transport.wire import Wire
from tests.helpers.support import eventually

pytestmark = pytest.mark.usefixtures("no_leaks")


class Poor(FrameReader):
    """Has no memory for what comes."""

    asked = 0

    def space(self) -> memoryview:
        type(self).asked += 1
        raise MemoryError


async def test_a_worker_that_sends_more_than_there_is_memory_for_is_heard_no_more() -> None:
    ours, theirs = socket.socketpair()
    lost: list[bool] = []
    with ours, theirs:
        theirs.send(b"x")
        ends = ChannelEnds(ours.fileno(), ours.fileno())
        nothing = lambda *_values: None  # noqa: E731
        Wire(ends, Poor(1 << 20), received=nothing, send_closed=nothing, lost=lambda: lost.append(True))
        await eventually(lambda: lost)
        assert Poor.asked == 1


async def test_output_that_there_is_no_memory_for_is_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, lines = 0, []
    read_end, write_end = os.pipe()

    def poor_at_first(fd: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads <= 2:
            raise MemoryError
        return original(fd, size)

    original = os.read
    monkeypatch.setattr(output_lines.os, "read", poor_at_first)
    monkeypatch.setattr(output_lines, "_AGAIN", 0.01)
    reader = OutputReader(asyncio.get_running_loop(), read_end, lambda text, _size: lines.append(text))
    os.write(write_end, b"line\n")
    await eventually(lambda: lines)
    assert (reads, lines) == (3, ["line"])
    reader.close()
    os.close(write_end)


async def test_the_end_of_a_process_is_noticed_though_there_was_no_memory_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    def poor_at_first(self: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise MemoryError
        original(self)

    original = spawn.SpawnedProcess._reap
    monkeypatch.setattr(spawn.SpawnedProcess, "_reap", poor_at_first)
    monkeypatch.setattr(spawn, "_AGAIN", 0.01)
    ends: list[int | None] = []
    process = spawn.spawn(["sleep", "60"], {}, {})
    process.on_end = lambda: ends.append(process.returncode)
    process.signal(signal.SIGKILL, group=True)
    await eventually(lambda: ends)
    assert (ends, tries) == ([-signal.SIGKILL], 3)
    for fd in (process.stdout, process.stderr):
        os.close(fd)
