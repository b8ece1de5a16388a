"""What goes through a channel when it is full, and what becomes of the worker when its target closes it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Pool
from pool_monitor.pool.transport import channel, launcher, lending, process
from pool_monitor.pool.transport.child.codec import LARGE
from pool_monitor.pool.transport.child.framing import FrameReader, frame
from pool_monitor.pool.transport.exiting import is_exiting
from pool_monitor.pool.transport.wire import Wire
from tests.helpers.support import TARGETS, eventually
from tests.helpers.transports import started

ODD = str(TARGETS / "odd.py")
CHUNK = 100 * 1024  # what is not lent in shared memory, and does not fit into a pipe

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers have a socket"),
]


@pytest.fixture(params=["pipes", "pipes of one page", "one socket"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What workers of our own are given in this test."""

    def of_one_page(*stacks: ExitStack) -> Any:
        ends, fds = channel.pipes(*stacks)
        for fd in ends:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
        return ends, fds

    made: dict[str, Callable[..., Any]] = {"pipes of one page": of_one_page, "one socket": channel.one_socket}
    if request.param in made:
        monkeypatch.setattr(launcher, "pipes", made[request.param])
        monkeypatch.setattr(channel, "_LARGE_MAX", 0)
    return str(request.param)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_messages_larger_than_what_the_channel_holds_go_both_ways(kind: str, concurrency: int) -> None:
    async with started(target=ODD, concurrency=concurrency) as line:
        sent = {line.call("echo", chr(65 + n % 26) * (n * 4099)): n for n in range(30)}
        await eventually(lambda: len(line.record.answered()) == len(sent))
        results = line.record.results()
        assert all(results[call_id] == chr(65 + n % 26) * (n * 4099) for call_id, n in sent.items())
        assert (await line.run("kinds_of_descriptors"))[0] == ["socket" if kind == "one socket" else "pipe"] * 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_10_mib_for_a_worker_that_does_not_read_wait_and_hold_nobody_up(
    kind: str, concurrency: int, tmp_path: Path
) -> None:
    gate, loop = tmp_path / "gate", asyncio.get_running_loop()
    async with started(target=ODD, concurrency=concurrency) as line:
        began = loop.time()
        calls = [line.call("until_exists", str(gate), "x" * CHUNK) for _ in range(100)]
        assert loop.time() - began < 5.0
        await eventually(lambda: line.transport._wire.waiting)
        gate.touch()
        await eventually(lambda: len(line.record.answered()) == len(calls))
        assert line.record.answered() == calls
        assert set(line.record.results().values()) == {CHUNK}


async def test_a_worker_may_lend_while_many_calls_wait_for_room(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lending, "_UNREAD_LIMIT", 3)
    gate = tmp_path / "gate"
    async with started(target=ODD) as line:
        line.call("until_exists", str(gate))
        line.call("make", 3, 2 * LARGE, stream=True)
        for _ in range(30):
            line.call("echo", "x" * CHUNK)
            await asyncio.sleep(0)  # or they wait as one
        assert line.transport._wire.waiting > 3
        gate.touch()
        await eventually(lambda: len(line.record.answered()) == 32)
        assert len(line.record.of("item")) == 3
        assert not line.record.of("broke")


async def test_a_frame_of_more_pieces_than_the_system_takes_at_once_is_sent() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    closed: list[bool] = []
    ends, broke = channel.ChannelEnds(reads, writes), lambda: closed.append(True)
    wire = Wire(ends, FrameReader(1 << 20), received=lambda _count: None, send_closed=broke, lost=broke)
    wire.pause()  # what was sent is read here
    pieces = [b"x"] * (os.sysconf("SC_IOV_MAX") + 1)
    wire.send_pieces(pieces, len(pieces))
    got = b""
    while len(got) < 4 + len(pieces):
        await eventually(lambda: select.select([reads], [], [], 0)[0])
        got += os.read(reads, 65536)
    assert got == frame(b"".join(pieces))
    assert not closed
    wire.abort()
    await eventually(lambda: closed)
    os.close(reads)
    os.close(writes)


async def test_10_mib_from_a_worker_wait_there_while_they_are_not_read(kind: str) -> None:
    async with started(target=ODD) as line:
        line.transport.flow(paused=True)
        line.call("make", 100, CHUNK, stream=True)
        line.transport.ping(1)
        await eventually(lambda: line.transport.begun == 1)
        assert not line.record.of("item")
        line.transport.flow(paused=False)
        await eventually(lambda: line.record.of("replied"))
        assert [size > CHUNK for _call, _value, size in line.record.of("item")] == [True] * 100


@pytest.mark.parametrize("start_method", ["exec", "zygote"])
async def test_a_worker_of_our_own_has_a_pipe_each_way(start_method: str) -> None:
    async with Pool(ODD, size=1, start_method=start_method) as pool:
        assert await pool.run("kinds_of_descriptors") == [["pipe", "pipe"], False]


async def test_only_so_many_pipes_are_made_larger_and_room_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_LARGE_MAX", len(channel._large) + 1)

    def sizes(ends: channel.ChannelEnds) -> list[int]:
        for fd in ends:
            channel.enlarge(fd)
        return [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in ends]

    with ExitStack() as ours, ExitStack() as theirs:
        assert sizes(channel.pipes(ours, theirs)[0]) == [channel._LARGE, channel.FULL]
        assert sizes(channel.pipes(ours, theirs)[0]) == [channel.FULL, channel.FULL]
    with ExitStack() as ours, ExitStack() as theirs:
        channel.enlarge(channel.one_socket(ours, theirs)[0].reads)
        assert sizes(channel.pipes(ours, theirs)[0]) == [channel._LARGE, channel.FULL]


async def test_a_pipe_that_was_too_small_is_made_larger_either_way() -> None:
    async with started(target=ODD) as line:
        size = [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in line.transport._channel]
        await line.run("echo", "small")
        assert [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in line.transport._channel] == size
        await line.run("echo", "x" * CHUNK)
        assert [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in line.transport._channel] == [channel._LARGE] * 2


@pytest.mark.parametrize("fds", [("reads",), ("writes",), ("reads", "writes")])
async def test_a_worker_whose_target_closes_the_channel_ends_and_says_so(
    fds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CLOSING", 10.0)  # it has all the time it takes to end by itself
    async with started(target=ODD) as line:
        line.call("close_channel", *fds)
        await eventually(lambda: line.record.of("gone"))
        [[code, words]] = line.record.of("gone")
        assert (code, "the target has closed the pool's channel" in words) == (1, True)


@pytest.mark.parametrize("fds", [("reads",), ("writes",), ("reads", "writes")])
async def test_a_worker_that_closes_the_channel_one_way_or_both_and_goes_on_is_killed(
    fds: tuple[str, ...], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    async with started(target=ODD) as line:
        line.call("close_channel_and_stay", str(closed), *fds)
        await eventually(closed.exists)
        line.call("echo", "never begun")
        await eventually(lambda: line.record.of("gone"))
        assert line.record.of("broke") == [["it closed the channel but did not end"]]
        assert line.record.of("gone")[0][0] == -signal.SIGKILL


async def test_a_worker_that_the_kernel_ends_slowly_has_not_broken_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "is_exiting", lambda _pid: True)
    async with started(target=ODD) as line:
        line.call("close_channel_and_stay", str(tmp_path / "closed"), "reads", "writes")
        await eventually(lambda: line.record.of("gone"))
        assert line.record.of("broke") == []
        assert line.record.of("gone")[0][0] == -signal.SIGKILL


def test_a_process_is_exiting_from_its_end_on_and_not_before() -> None:
    assert not is_exiting(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not is_exiting(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert is_exiting(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert is_exiting(process.pid)


@pytest.mark.parametrize("fds", [("writes",), ("reads", "writes")])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_nothing_is_written_to_a_file_of_the_targets_that_has_the_channels_number(
    concurrency: int, fds: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "database"
    file.write_bytes(b"precious" * 1000)
    async with started(target=ODD, concurrency=concurrency) as line:
        line.call("replace_channel", str(file), *fds)
        await eventually(lambda: line.record.of("gone"))
        assert line.record.answered() == []
    assert file.read_bytes() == b"precious" * 1000


def test_a_process_that_the_service_forks_has_no_end_of_a_channel() -> None:
    program = (
        "import asyncio, os\n"
        "from pool_monitor import Pool\n"
        "async def main():\n"
        f"    async with Pool({ODD!r}, size=2) as pool:\n"
        "        ends = [fd for worker in pool._roster.workers.values() for fd in worker.transport._channel]\n"
        "        pid = os.fork()\n"
        "        if not pid:\n"
        "            os._exit(sum(os.path.exists(f'/proc/self/fd/{fd}') for fd in ends))\n"
        "        print(len(ends), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), await pool.run('echo', 1))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["4", "0", "1"]
