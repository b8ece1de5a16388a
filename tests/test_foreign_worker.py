"""docs/WORKER_PROTOCOL.md is enough: workers/worker.mjs was written from it alone, and is a worker like any other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import (
    OperationError,
    OperationTimeout,
    PayloadError,
    Pool,
    StartError,
    UnknownOperation,
    WorkerDied,
    telemetry,
)
from pool_monitor.pool.stream_buffer import STREAM_HIGH
from tests.helpers.support import TARGETS, alive, eventually, pid_of, read, running
from tests.helpers.transports import started

WORKERS = Path(__file__).parent / "workers"
COMMAND = (shutil.which("node") or "node", str(WORKERS / "worker.mjs"))
OPERATIONS = f"{WORKERS / 'target.mjs'}:Operations"
FRAME_LIMIT = 4096

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine"),
    pytest.mark.usefixtures("no_leaks"),
]


def node_pool(**fields: Any) -> Pool:
    """A pool of one worker, which is patient: whatever is not answered in time fails its test."""
    given = {"target": OPERATIONS, "size": 1, "name": "node", "timeout": 20.0, "cancel_grace": 20.0}
    return Pool(**{**given, "backoff_min": 0.01, "codec": "json", "command": COMMAND, **fields})


def node(**fields: Any) -> Any:
    """A worker without a pool."""
    return started(**{"target": OPERATIONS, "command": COMMAND, "codecs": ["json"], **fields})


def of(events: list[telemetry.CapturedEvent], name: str) -> list[telemetry.CapturedEvent]:
    return [event for event in events if ".".join(event.name) == name]


# -- calls --------------------------------------------------------------------------------------------------------


async def test_results_and_errors_come_back_as_what_they_were() -> None:
    with telemetry.capture(("pool",)) as events:
        async with node_pool(codec="auto", init_kwargs={"greeting": "good day"}) as pool:
            value = {"deep": [1, {"er": None}], "text": "Grüße, \N{GRINNING FACE}\0", "number": -0.25}
            assert await pool.run("echo", value) == value
            assert [await pool.run("add", 2), await pool.run("add", 2, right=5)] == [3, 7]
            assert await pool.run("echo", "Grüße" * 100_000) == "Grüße" * 100_000
            assert await pool.run("later", True) is True
            assert await pool.run("nothing") is None
            assert await pool.run("greet", "world") == "good day, world"

            with pytest.raises(OperationError, match="RangeError: as asked") as caught:
                await pool.run("fail", "as asked")
            assert (type(caught.value), caught.value.type_name) == (OperationError, "RangeError")
            assert "target.mjs:" in caught.value.traceback
            with pytest.raises(OperationError, match="no error at all") as caught:
                await pool.run("fail", "no error at all", what="text")
            assert (caught.value.type_name, caught.value.traceback) == ("string", "")

            with pytest.raises(UnknownOperation, match=r"add, big, busy.*wait$"):
                await pool.run("_private")
            with pytest.raises(UnknownOperation, match="'count' is a generator"):
                await pool.run("count", 3)
    [ready] = of(events, "pool.worker.ready")
    assert ready.metadata["python"].startswith("node ")
    assert ready.metadata["codec"] == "json"
    measured = of(events, "pool.operation.stop")[0].measurements
    assert measured["execution_duration"] > 0
    assert not {"cpu_duration", "rss_growth"} & set(measured), "it said null"


async def test_a_target_may_be_an_object_or_a_module() -> None:
    async with node_pool(target=f"{WORKERS / 'target.mjs'}:answers") as pool:
        assert await pool.run("answer") == 42
    async with node(target=str(WORKERS / "target.mjs")) as line:
        assert await line.run("double", 21) == 42


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"init_kwargs": {"fail": "not today"}}, "cannot load .*: RangeError: not today"),
        ({"target": f"{WORKERS / 'target.mjs'}:Nothing"}, "TypeError: there is no .*:Nothing"),
    ],
)
async def test_a_target_that_cannot_be_loaded_says_why(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StartError, match=complaint) as caught:
        async with node_pool(**fields):
            pass
    assert ".mjs:" in (caught.value.traceback or "")


async def test_what_cannot_be_carried_fails_its_call_alone() -> None:
    async with node_pool(frame_limit=FRAME_LIMIT) as pool:
        pid = await pool.run("pid")
        for strange, complaint in (
            ("number", "BigInt"),
            ("cycle", "circular"),
            ("nan", "JSON cannot hold NaN"),
            ("generator", "it returned a generator"),
        ):
            with pytest.raises(PayloadError, match=complaint):
                await pool.run("strange", strange)
        with pytest.raises(PayloadError, match=r"over the frame limit of 4096"):
            await pool.run("echo", "x" * FRAME_LIMIT)  # in the service
        with pytest.raises(PayloadError, match=r"a message of \d+ bytes is over frame_limit"):
            await pool.run("big", FRAME_LIMIT)  # in the worker
        assert await pool.run("big", FRAME_LIMIT - 128) == "x" * (FRAME_LIMIT - 128)
        with pytest.raises(OperationError, match="RangeError: \0\0\0") as caught:
            await pool.run("fail", "\0" * (FRAME_LIMIT // 8))  # which is longer in JSON
        assert type(caught.value) is OperationError, "a shorter error, not another one"
        await pool.run("tellMuch", 1, FRAME_LIMIT)  # an event that is dropped
        with pytest.raises(PayloadError, match="it returned no generator"):
            await read(pool.stream("add", 1))
        assert await pool.run("pid") == pid


async def test_what_it_prints_arrives_as_lines() -> None:
    async with node() as line:
        await line.run("print", "Grüße")
        await eventually(lambda: len(line.record.of("wrote")) == 2)
        lines = [[stream, text] for stream, text, _size in line.record.of("wrote")]
        assert sorted(lines) == [["stderr", "Grüße, as an error"], ["stdout", "Grüße"]]


async def test_told_to_stop_it_ends_its_calls_and_goes_by_itself_still_listening(tmp_path: Path) -> None:
    async with node(concurrency=2) as line:
        pid = await line.run("pid")
        calls = [
            line.call("wait", str(tmp_path / "go"), None),
            line.call("forever", str(tmp_path / "closed"), stream=True),
        ]
        stop = asyncio.ensure_future(line.transport.stop(20.0, 20.0))
        line.transport.ping(1)
        await eventually(lambda: line.record.of("ponged"))
        assert line.record.of("gone") == []
        line.transport.cancel(calls[1])
        (tmp_path / "go").touch()
        await stop
        assert set(line.record.answered()) >= set(calls)
        assert line.record.of("gone") == [[0, ""]]
        assert not psutil.pid_exists(pid)


# -- streams ------------------------------------------------------------------------------------------------------


async def test_a_generator_streams() -> None:
    async with node_pool(frame_limit=FRAME_LIMIT) as pool:
        assert await read(pool.stream("count", 1000)) == list(range(1000))
        assert await read(pool.stream("count", 0)) == []
        got: list[int] = []
        with pytest.raises(OperationError, match="RangeError: no more"):
            await read(pool.stream("countThenFail", 5), into=got)
        assert got == [0, 1, 2, 3, 4]


async def test_a_generator_is_closed_in_the_worker_when_its_stream_is_left_or_cannot_go_on(tmp_path: Path) -> None:
    async with node_pool(frame_limit=FRAME_LIMIT) as pool:
        pid = await pool.run("pid")
        async with aclosing(pool.stream("forever", str(tmp_path / "between two items"))) as items:
            assert [(await anext(items))[0] for _ in range(100)] == list(range(100))
        await eventually((tmp_path / "between two items").exists)
        async with aclosing(pool.stream("forever", str(tmp_path / "at work"), computing=0.002)) as items:
            assert [(await anext(items))[0] for _ in range(3)] == [0, 1, 2]
        await eventually((tmp_path / "at work").exists)
        async with aclosing(pool.stream("slowly", [0, 60], str(tmp_path / "in a pause"))) as items:
            assert await anext(items) == 0
        await eventually((tmp_path / "in a pause").exists)
        with pytest.raises(PayloadError, match="over frame_limit"):
            await read(pool.stream("forever", str(tmp_path / "too large"), size=FRAME_LIMIT))
        assert (tmp_path / "too large").exists()
        assert await pool.run("pid") == pid


async def test_a_stream_nobody_reads_stands_still_while_its_worker_goes_on(tmp_path: Path) -> None:
    async with node_pool(concurrency=2) as pool:
        async with aclosing(pool.stream("forever", str(tmp_path / "closed"), size=4 * 1024)) as items:
            await anext(items)
            [call] = pool._calls()._open.values()
            assert call.items is not None
            buffer = call.items.buffer
            await eventually(lambda: len(buffer) >= STREAM_HIGH)
            for _ in range(200):
                await pool.run("turns", 10, str(tmp_path / "turned"))
            assert len(buffer) < 500, "as many as the buffers hold, not one more at each turn"
            assert [(await anext(items))[0] for _ in range(1000)] == list(range(1, 1001)), "it goes on when it is read"
        await eventually((tmp_path / "closed").exists)


async def test_a_stream_that_stands_still_can_be_cancelled_though_nobody_reads(tmp_path: Path) -> None:
    async with node(concurrency=2) as line:
        line.transport.flow(paused=True)
        call_id = line.call("forever", str(tmp_path / "closed"), size=64 * 1024, stream=True)
        line.call("turns", 1000, str(tmp_path / "turned"))
        await eventually((tmp_path / "turned").exists)
        line.transport.cancel(call_id)
        await eventually((tmp_path / "closed").exists)
        assert (tmp_path / "closed").stat().st_size < 500, "as many as the buffers hold, not one more at each turn"
        line.transport.flow(paused=False)
        await eventually(lambda: line.record.of("failed"))
        assert [told[1].kind for told in line.record.of("failed")] == ["cancelled"]


# -- cancelling, dying --------------------------------------------------------------------------------------------


async def test_an_asynchronous_operation_is_interrupted_and_its_worker_kept(tmp_path: Path) -> None:
    async with node_pool() as pool:
        pid = await pool.run("pid")
        call = await running(pool, "wait", "/never", str(tmp_path / "cancelled"))
        call.cancel()
        await eventually((tmp_path / "cancelled").exists)
        with pytest.raises(OperationTimeout):
            await pool.options(timeout=0.05).run("wait", "/never", str(tmp_path / "late"))
        await eventually((tmp_path / "late").exists)
        call = await running(pool, "stubborn", str(tmp_path / "go"))
        call.cancel()
        (tmp_path / "go").touch()
        assert await pool.run("pid") == pid
        assert pool.status().restarts == 0


async def test_a_cancelled_call_gets_one_answer_and_one_that_is_not_there_none(tmp_path: Path) -> None:
    async with node() as line:
        call_id = line.call("wait", "/never", None)
        line.transport.cancel(call_id)
        line.transport.cancel(call_id)
        line.transport.cancel(777)
        await eventually(lambda: line.record.of("failed"))
        line.transport.cancel(call_id)
        assert await line.run("echo", 5) == 5
        [[failed, failure, times]] = line.record.of("failed")
        assert (failed, failure.kind, failure.type_name) == (call_id, "cancelled", "AbortError")
        assert times.execution_ns > 0
        assert (times.cpu_ns, times.rss_growth) == (None, None)


async def test_a_busy_loop_past_its_timeout_costs_the_worker_and_the_next_call_works(tmp_path: Path) -> None:
    async with node_pool(cancel_grace=0.05) as pool:
        pid = await pool.run("pid")
        call = asyncio.ensure_future(pool.options(timeout=0.5).run("busy", str(tmp_path / "busy")))
        await eventually((tmp_path / "busy").exists)
        with pytest.raises(OperationTimeout):
            await call
        assert await pool.run("pid") == pid_of(pool) != pid
        assert pool.status().restarts == 1


@pytest.mark.parametrize(("how", "code"), [(["crash", 3], 3), (["kill"], -signal.SIGKILL)])
async def test_a_crash_costs_the_calls_it_had_begun_and_no_others(how: list[Any], code: int) -> None:
    async with node_pool(concurrency=2, breaker_failures=0) as pool:
        begun = await running(pool, "wait", "/never", None)
        calls = [asyncio.ensure_future(pool.run(*call)) for call in (how, ["echo", 1], ["echo", 2])]
        for call in (begun, calls[0]):
            with pytest.raises(WorkerDied) as caught:
                await call
            assert caught.value.exit_code == code
        assert await asyncio.gather(*calls[1:]) == [1, 2]


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_what_a_session_keeps_outlives_its_worker_and_bad_data_does_not_replace_it() -> None:
    async with node_pool(session_data_limit=256) as pool:
        session = pool.session("s")
        assert await session.run("remember", "a") == ["s", ["a"]]
        os.kill(pid := pid_of(pool), signal.SIGKILL)
        await eventually(lambda: pool.workers()[0].pid not in (None, pid))
        assert await session.run("remember", "b") == ["s", ["a", "b"]]
        with pytest.raises(PayloadError, match=r"session.data of \d+ bytes is over session_data_limit"):
            await session.run("remember", "c", fill=300)
        for data in (None, [1], "text"):
            with pytest.raises(PayloadError, match=r"session.data is to be"):
                await session.run("muddle", data)
        with pytest.raises(OperationError, match="after remembering"):
            await session.run("rememberAndFail")
        assert session.data == {"words": ["a", "b"], "fill": ""}
        assert await pool.session("t").run("remember", "d") == ["t", ["d"]]
        assert await pool.run("add", 1) == 2


# -- telling ------------------------------------------------------------------------------------------------------


async def test_events_and_lines_arrive_as_they_were_told() -> None:
    with telemetry.capture() as events:
        async with node_pool() as pool:
            await pool.run("tell", "cache.hit", {"n": 1, "s": 0.5}, {"a": [1, None, {"ä": True}]})
            await pool.run("tell", ["a", "b.c"], {}, {})
            await pool.run("log", "warning", "half full", number=5)
            for name, numbers in (("pool.mine", {}), ("", {}), ("a..b", {}), ([], {}), ("a", {"n": "1"})):
                with pytest.raises(OperationError, match="TypeError"):
                    await pool.run("tell", name, numbers, {})
            with pytest.raises(OperationError, match="a level is one of"):
                await pool.run("log", "loud", "text")
            whose = {"pool": "node", "pool_instance": pool.instance, "worker": "node-0"}
    told = [(event.name, event.measurements, event.metadata) for event in events if event.name[0] != "pool"]
    assert told == [
        (("made", "here"), {"count": 1}, {"greeting": "hello", **whose}),
        (("cache", "hit"), {"n": 1, "s": 0.5}, {"a": [1, None, {"ä": True}], **whose}),
        (("a", "b.c"), {}, whose),
    ]
    [log] = of(events, "pool.worker.log")
    assert log.metadata == {**whose, "level": "warning", "text": "half full", "fields": {"number": 5}}


async def test_telling_never_holds_it_up_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    async with node() as line:
        told = line.record.of

        def dropped() -> int:
            return sum(count for [count] in told("dropped"))

        await line.run("tellMuch", 1, 10_000)
        await eventually(lambda: dropped() == 1)
        line.transport.flow(paused=True)
        line.call("tellMuch", 5000, 1000, done=str(tmp_path / "done"))
        await eventually((tmp_path / "done").exists)
        line.transport.flow(paused=False)
        await eventually(lambda: len(told("emitted")) + dropped() == 1 + 1 + 5000)
        numbers = [numbers["number"] for event, numbers, _ in told("emitted") if event == ("much",)]
        assert numbers == sorted(numbers)
        assert numbers[:100] == list(range(100)), "the first of them fitted"
        assert dropped() > 1000
        assert await line.run("echo", 5) == 5


# -- concurrency, health ------------------------------------------------------------------------------------------


async def test_as_many_calls_as_allowed_run_beside_each_other() -> None:
    async with node_pool(concurrency=5) as pool:
        assert await asyncio.gather(*(pool.run("meet", 5) for _ in range(5))) == [5] * 5
        assert await pool.run("most") == 5
        assert await asyncio.gather(*(pool.run("meet", 0) for _ in range(50))) == [0] * 50
        assert await pool.run("most") == 5


async def test_it_says_how_it_is_while_operations_run(tmp_path: Path) -> None:
    async with node_pool(health_interval=0.05) as pool:
        call = await running(pool, "wait", str(tmp_path / "go"), None)
        with telemetry.capture(("pool", "worker", "health_check")) as events:
            await eventually(lambda: len(events) >= 3)
        assert {event.metadata["verdict"] for event in events} == {"responsive"}
        assert all(event.measurements["rss"] > 10_000_000 for event in events)
        rss = pool.workers()[0].rss
        assert rss is not None
        assert rss > 10_000_000
        (tmp_path / "go").touch()
        await call


async def test_a_pong_names_a_call_that_runs(tmp_path: Path) -> None:
    async with node() as line:
        line.transport.ping(1)
        await eventually(lambda: line.record.of("ponged"))
        call_id = line.call("wait", str(tmp_path / "go"), None)
        line.transport.ping(2)
        await eventually(lambda: len(line.record.of("ponged")) == 2)
        assert [told[:2] for told in line.record.of("ponged")] == [[1, None], [2, call_id]]
        (tmp_path / "go").touch()
        await eventually(lambda: line.record.answered() == [call_id])


# -- its end ------------------------------------------------------------------------------------------------------


async def test_worker_and_company_go_with_a_service_that_was_killed_even_from_a_busy_loop(tmp_path: Path) -> None:
    kinds = ["idle", "busy"]
    calls = [json.dumps(["company", str(tmp_path / kind), kind]) for kind in kinds]
    fields = json.dumps({"command": COMMAND, "codec": "json"})
    process = subprocess.Popen([sys.executable, str(TARGETS / "service.py"), OPERATIONS, fields, *calls])
    try:
        await eventually(lambda: all((tmp_path / kind).exists() for kind in kinds))
        pids = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        assert len(pids) == 4
        process.kill()
        await eventually(lambda: not any(map(alive, pids)), timeout=5.0)
    finally:
        process.kill()
        process.wait()


HELLO = {"type": "hello", "protocols": [1], "codecs": ["json"], "frame_limit": FRAME_LIMIT, "session_data_limit": 0}
INIT = ["init", OPERATIONS, [], [[], {}], {}]
CALL = ["call", 1, "wait", [["/never", None], {}], False, None]


def frames(*messages: Any) -> bytes:
    bodies = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages]
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


@pytest.mark.parametrize(
    ("sent", "code", "complaint"),
    [
        (frames({**HELLO, "protocols": [2]}), 1, "no common protocol or codec"),
        (frames({**HELLO, "codecs": ["msgpack"]}), 1, "no common protocol or codec"),
        (frames(HELLO, b"x" * (FRAME_LIMIT + 1)), 1, "a frame of 4097 bytes"),
        (frames(HELLO, b""), 1, "a frame of 0 bytes"),
        (frames(HELLO, b"{"), 1, "SyntaxError"),
        (frames(HELLO, b'"\xff"'), 1, "not valid"),
        (frames(HELLO, INIT, ["dance"]), 1, "a message of type dance"),
        (b"", -signal.SIGKILL, ""),
        (frames(HELLO)[:10], -signal.SIGKILL, ""),
        (frames(HELLO, INIT, CALL), -signal.SIGKILL, ""),
    ],
)
async def test_it_leaves_a_parent_that_speaks_nonsense_or_closes_the_channel(
    sent: bytes, code: int, complaint: str
) -> None:
    ours, theirs = socket.socketpair()
    kept, lifeline = socket.socketpair()
    with ours, kept:
        with theirs, lifeline:
            fds = {"POOL_MONITOR_FD": theirs.fileno(), "POOL_MONITOR_LIFELINE": lifeline.fileno()}
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                env={**os.environ, **{name: str(fd) for name, fd in fds.items()}},
                pass_fds=list(fds.values()),
                stderr=subprocess.PIPE,
                process_group=0,
            )
        ours.sendall(sent)
        if not complaint:
            ours.shutdown(socket.SHUT_WR)
        _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == code
    assert complaint in said.decode()
