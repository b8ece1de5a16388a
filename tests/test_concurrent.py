"""A worker that runs several calls at once: they go on beside each other, and nothing of one disturbs another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.support import TARGETS, eventually, interpreter
from tests.helpers.transports import Line, started

pytestmark = pytest.mark.usefixtures("no_leaks")

WIRE = f"{TARGETS / 'wire.py'}:Wire"


def beside(**fields: object) -> object:
    return started(**{"target": WIRE, "concurrency": 100, **fields})


async def waits(line: Line, path: Path) -> int:
    """A coroutine that has begun and waits for a file at *path*."""
    before = line.transport.begun or 0
    call_id = line.call("wait_for", str(path))
    await eventually(lambda: line.transport.begun == before + 1)
    return call_id


async def test_coroutines_wait_beside_each_other(tmp_path: Path) -> None:
    async with beside() as line:
        calls = [line.call("wait_for", str(tmp_path / str(number))) for number in range(50)]
        await eventually(lambda: line.transport.begun == 50)
        for number in reversed(range(50)):
            (tmp_path / str(number)).touch()
            await eventually(lambda number=number: calls[number] in line.record.answered())
        assert line.record.answered() == calls[::-1]


async def test_calls_begin_in_the_order_they_were_handed_over() -> None:
    async with beside() as line:
        for number in range(40):
            line.call("order" if number % 3 else "order_now", number)
        await eventually(lambda: len(line.record.answered()) == 40)
        assert max(line.record.results().values(), key=len) == list(range(40))


async def test_no_more_run_at_once_than_the_worker_was_told(tmp_path: Path) -> None:
    async with beside(concurrency=2) as line:
        calls = [line.call("wait_for", str(tmp_path / str(number))) for number in range(4)]
        await eventually(lambda: line.transport.begun == 2)
        line.transport.recall(calls)
        await eventually(lambda: len(line.record.of("recalled")) == 2)
        assert line.record.of("recalled") == [[calls[2]], [calls[3]]]
        last = line.call("echo", "then")
        (tmp_path / "1").touch()
        await eventually(lambda: last in line.record.answered())
        assert line.record.answered() == [calls[1], last]
        assert line.transport.begun == 5
        (tmp_path / "0").touch()


async def test_processor_time_and_memory_are_nobodys_while_several_run() -> None:
    async with beside() as line:
        await line.run("later", 1, 0.01)
        times = line.record.of("replied")[0][3]
        assert times.execution_ns >= 10_000_000
        assert (times.cpu_ns, times.rss_growth) == (None, None)


async def test_a_cancel_ends_its_own_coroutine_only(tmp_path: Path) -> None:
    async with beside() as line:
        calls = [await waits(line, tmp_path / "go") for _ in range(3)]
        line.transport.cancel(calls[1])
        await eventually(lambda: line.record.of("failed"))
        assert [call_id for call_id, *_ in line.record.of("failed")] == [calls[1]]
        assert line.record.of("failed")[0][1].kind == "cancelled"
        (tmp_path / "go").touch()
        await eventually(lambda: len(line.record.answered()) == 3)


async def test_a_cancel_before_the_first_step_is_answered_too(tmp_path: Path) -> None:
    async with beside() as line:
        for _ in range(30):
            line.transport.cancel(line.call("later", 1, 60.0))
        await eventually(lambda: len(line.record.of("failed")) == 30)
        assert {failure.kind for _call, failure, _times in line.record.of("failed")} == {"cancelled"}
        assert await line.run("echo", 2) == 2


async def test_a_coroutine_that_does_not_hear_of_its_cancel_still_answers() -> None:
    async with beside() as line:
        deaf = line.call("deaf", 0.2)
        await eventually(lambda: line.transport.begun == 1)
        line.transport.cancel(deaf)
        await eventually(lambda: line.record.answered() == [deaf])


async def test_a_function_that_holds_all_up_can_be_interrupted(tmp_path: Path) -> None:
    async with beside() as line:
        waiting = await waits(line, tmp_path / "go")
        stuck = line.call("sleep", 60)
        after = line.call("echo", "after")
        await eventually(lambda: line.transport.begun >= 2)
        line.transport.ping(1)
        await eventually(lambda: line.record.of("ponged"))
        assert line.record.of("ponged")[0][:2] == [1, stuck]
        line.transport.cancel(stuck)
        await eventually(lambda: after in line.record.answered())
        assert line.record.answered() == [stuck, after]
        (tmp_path / "go").touch()
        await eventually(lambda: waiting in line.record.answered())


async def test_what_comes_behind_a_cancel_is_read_too(tmp_path: Path) -> None:
    async with beside() as line:
        for _ in range(20):
            stuck = line.call("sleep", 60)
            await eventually(lambda: line.transport.begun == line.last)
            line.transport.cancel(stuck)
            following = line.call("echo", 1)
            await eventually(lambda following=following: following in line.record.answered())


async def test_pings_are_answered_idle_waiting_and_busy(tmp_path: Path) -> None:
    async with beside() as line:
        line.transport.ping(1)
        await eventually(lambda: len(line.record.of("ponged")) == 1)
        waiting = await waits(line, tmp_path / "go")
        line.transport.ping(2)
        await eventually(lambda: len(line.record.of("ponged")) == 2)
        assert [told[:2] for told in line.record.of("ponged")] == [[1, None], [2, waiting]]
        (tmp_path / "go").touch()


async def test_streams_pass_beside_each_other_and_are_closed_by_a_cancel(tmp_path: Path) -> None:
    async with beside() as line:
        endless = line.call("produce_later", 10**9, str(tmp_path / "closed"), stream=True)
        finite = [line.call("produce_later", 30, stream=True), line.call("produce", 30, stream=True)]
        await eventually(lambda: set(finite) <= set(line.record.answered()))
        for call_id in finite:
            assert sum(told[0] == call_id for told in line.record.of("item")) == 30
        line.transport.cancel(endless)
        await eventually((tmp_path / "closed").exists)
        await eventually(lambda: endless in line.record.answered())


async def test_a_stream_that_never_waits_is_closed_by_a_cancel_too(tmp_path: Path) -> None:
    async with beside() as line:
        call_id = line.call("produce_at_once", str(tmp_path / "closed"), stream=True)
        await eventually(lambda: line.record.of("item"))
        line.transport.cancel(call_id)
        await eventually(lambda: call_id in line.record.answered())
        assert (tmp_path / "closed").exists(), "before the answer"


async def test_a_parent_that_does_not_read_holds_up_streams_and_nobody_else(tmp_path: Path) -> None:
    async with beside() as line:
        line.transport.flow(paused=True)
        stream = line.call("produce_and_count", 3000, 10_000, stream=True)
        counts = [-1, 0]
        while counts[-1] != counts[-2] or not counts[-1]:
            note = tmp_path / str(len(counts))
            line.call("note_produced", str(note))
            await eventually(lambda note=note: note.exists() and note.read_text())
            counts.append(int(note.read_text()))
        assert counts[-1] < 1000, "what is produced waits in the worker's memory"
        line.transport.flow(paused=False)
        await eventually(lambda: len(line.record.answered()) == line.last)
        assert sum(told[0] == stream for told in line.record.of("item")) == 3000


@pytest.mark.parametrize("operation", ["produce_later", "produce"])
async def test_a_stream_that_is_held_stands_still_and_nothing_else_does(operation: str) -> None:
    async with beside() as line:

        def items() -> int:
            return sum(told[0] == stream for told in line.record.of("item"))

        stream = line.call(operation, 10**6, stream=True)
        await eventually(items)
        line.transport.hold(stream, held=True)
        other = line.call("produce_later", 30, stream=True)
        await line.run("echo")  # by now it has heard of it
        before = items()
        for number in range(20):  # each time, everything that may go on does
            assert await line.run("later", number) == number
        assert items() == before
        await eventually(lambda: other in line.record.answered())
        line.transport.hold(stream, held=False)
        await eventually(lambda: items() > before + 10)
        line.transport.hold(stream, held=True)
        line.transport.cancel(stream)
        await eventually(lambda: stream in line.record.answered())
        assert line.record.of("failed")[0][1].kind == "cancelled"


async def test_a_stream_that_is_held_is_closed_by_a_cancel(tmp_path: Path) -> None:
    async with beside() as line:
        stream = line.call("produce_later", 10**6, str(tmp_path / "closed"), stream=True)
        await eventually(lambda: line.record.of("item"))
        line.transport.hold(stream, held=True)
        await line.run("echo")
        line.transport.cancel(stream)
        line.transport.hold(stream, held=False)
        await eventually(lambda: stream in line.record.answered())
        assert (tmp_path / "closed").exists(), "before the answer"


async def test_holding_what_has_ended_or_never_was_disturbs_nobody() -> None:
    async with beside() as line:
        stream = line.call("produce_later", 3, stream=True)
        await eventually(lambda: stream in line.record.answered())
        for held in (True, False):
            line.transport.hold(stream, held=held)
            line.transport.hold(10**6, held=held)
        assert await line.run("echo", 1) == 1
    assert line.record.of("wrote") == [], "no complaint either"


async def test_answers_that_find_no_room_in_the_socket_follow_in_pieces() -> None:
    async with beside() as line:
        line.transport.flow(paused=True)
        calls = [line.call("fill", 900_000 + number) for number in range(10)]
        await eventually(lambda: line.transport.begun == 10)
        line.transport.ping(1)
        line.transport.flow(paused=False)
        await eventually(lambda: len(line.record.answered()) == 10)
        assert sorted(map(len, line.record.results().values())) == list(range(900_000, 900_010))
        assert line.record.answered() == calls


async def test_large_answers_pass_beside_each_other() -> None:
    async with beside(frame_limit=8 << 20) as line:
        for number in range(20):
            line.call("fill", 1_000_000 + number, "äx"[number % 2])
        await eventually(lambda: len(line.record.answered()) == 20)
        assert {len(result) for result in line.record.results().values()} == set(range(1_000_000, 1_000_020))


async def test_failures_of_every_kind_are_their_own_calls(tmp_path: Path) -> None:
    async with beside() as line:
        waiting = await waits(line, tmp_path / "go")
        for operation in ("fail", "nothing_there", "later"):
            line.call(operation)
        line.call("echo", stream=True)
        line.call("fill", 2 << 20)
        await eventually(lambda: len(line.record.answered()) == 5)
        kinds = [failure.kind for _call, failure, _times in line.record.of("failed")]
        assert sorted(kinds) == ["operation", "operation", "payload", "payload"]
        (tmp_path / "go").touch()
        await eventually(lambda: waiting in line.record.answered())


async def test_sessions_are_kept_apart() -> None:
    async with beside() as line:
        for name in "abc":
            line.call("whose", 0.01, session=(name, {"seen": ord(name)}))
        await eventually(lambda: len(line.record.answered()) == 3)
        told = {result: data for _call, result, data, _times in line.record.of("replied")}
        assert told == {name: {"seen": ord(name) + 1} for name in "abc"}


async def test_a_stop_waits_for_the_calls_before_it() -> None:
    async with beside() as line:
        calls = [line.call("later", number, 0.05) for number in range(10)]
        await line.transport.stop(5.0, 1.0)
        assert line.record.answered() == calls
        assert line.record.of("gone")[0][0] == 0


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.12", "3.13"])
async def test_it_runs_in_any_python_from_3_8(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    async with beside(python=python, path=[]) as line:
        waiting = await waits(line, tmp_path / "go")
        assert await line.run("echo", 5) == 5
        stuck = line.call("sleep", 60)
        await eventually(lambda: line.transport.begun == line.last)
        line.transport.cancel(stuck)
        await eventually(lambda: stuck in line.record.answered())
        (tmp_path / "go").touch()
        await eventually(lambda: waiting in line.record.answered())
