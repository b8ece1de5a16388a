"""A worker that lies costs itself, or the call it lies about, and nothing else: the service, the pool and the calls on
other workers go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import (
    OperationError,
    PayloadError,
    PoisonedCall,
    Pool,
    ProtocolError,
    UnknownOperation,
    telemetry,
)
from pool_monitor.pool.policy.operation_offers import merge_offers
from tests.helpers.support import eventually, read, words

pytestmark = pytest.mark.usefixtures("no_leaks")

LIAR = Path(__file__).parent / "workers" / "liar.py"
POISON = Path(__file__).parent / "targets" / "poison.py"
REPLY = ["reply", "$id", "right", None, [1, 1, None]]
TIMES = [1, 1, None]


def liars(**fields: Any) -> Pool:
    return Pool(
        "anything:Liar",
        **{"command": (sys.executable, str(LIAR)), "name": "liars", "size": 1, "timeout": 10.0, "cancel_grace": 0.1}
        | {"backoff_min": 0.001, "backoff_max": 0.01, "breaker_failures": 0, "restart_limit": 1000}
        | fields,
    )


FORBIDDEN: dict[str, list[tuple[list[Any], str]]] = {
    "answers": [
        ([["reply", 10**6, "wrong", None, TIMES]], "an answer to call 1000000, which is not open"),
        ([["reply", True, "wrong", None, TIMES]], "an answer to call True, which is not open"),
        ([["reply", {}, 1, None, TIMES]], "an answer to call {}, which is not open"),
        ([["error", 0, "operation", "E", "", "", TIMES]], "an answer to call 0, which is not open"),
        ([["recalled", 10**6]], "an answer to call 1000000, which is not open"),
        ([["recalled", "$id"]], "was returned without a recall"),
        ([["item", "$id", 1], REPLY], "is not a stream, so this kind of answer is invalid"),
        ([["end", "$id", None, None, TIMES]], "is not a stream, so this kind of answer is invalid"),
    ],
    "fields": [
        ([["reply", "$id", "right", None, None]], "invalid times: None"),
        ([["reply", "$id", "right", None, [1]]], r"invalid times: \[1\]"),
        ([["reply", "$id", "right", None, [-5, 1, None]]], "invalid times"),
        ([["reply", "$id", "right", None, [True, 1, None]]], "invalid times"),
        ([["reply", "$id", "right", None, [2**63, 1, None]]], "invalid times"),
        ([["reply", "$id", "right", None, [1, 1, 2**60]]], "invalid times"),
        ([["reply", "$id", "right", [1], TIMES]], "session data that is not a dict"),
        ([["reply", "$id", "right"]], "unknown message"),
        ([["error", "$id", "joke", "E", "", "", TIMES]], "invalid error"),
        ([["error", "$id", ["operation"], "E", "", "", TIMES]], "invalid error"),
        ([["error", "$id", "operation", None, "", "", TIMES]], "invalid error"),
        ([["pong", 1, None, -5]], "unknown message"),
        ([["pong", 10**6, None, 5]], "an answer to ping 1000000, which was not sent"),
        ([["pong", 1, None, 10**30]], "unknown message"),
        ([["pong", 1, [], 5]], "unknown message"),
        ([["pong", {}, None, 5]], "unknown message"),
        ([["dropped", 0]], "unknown message"),
        ([["dropped", 10**30]], "unknown message"),
        ([["event", "name", {}, {}]], "invalid event"),
        ([["event", [], {}, {}]], "invalid event"),
        ([["event", ["pool", "ready"], {}, {}]], "invalid event"),
        ([["event", [{}], {}, {}]], "invalid event"),
        ([["event", ["mine"], {"n": "1"}, {}]], "invalid event"),
        ([["event", ["mine"], {"n": 10**30}, {}]], "invalid event"),
        ([["event", ["mine"], {"n": 1}, []]], "invalid fields"),
        ([["log", "loud", "text", {}]], "invalid log line"),
        ([["log", ["info"], "text", {}]], "invalid log line"),
        ([["log", "info", 5, {}]], "invalid log line"),
        ([["log", "info", "text", None]], "invalid fields"),
    ],
    "messages": [
        ([["ready", {"say": "function"}]], "unknown message"),
        ([["call", 1, "say", [[], {}], False, None]], "unknown message"),
        ([["lent", 10]], "a message was lent without shared memory"),
        ([["returned"]], "a message was returned that had not been lent"),
        ([{"type": "hello"}], "unknown message"),
        ([5], "unknown message 5"),
        ([[[]]], "unknown message"),
        (["not JSON"], "a frame that is not valid json"),
        (["[1,2"], "a frame that is not valid json"),
        (["\ud800".encode("utf-8", "surrogatepass").decode("latin-1")], "a frame that is not valid json"),
    ],
}
"""What a call of the worker is to send, by what is wrong with it, and what is said of it."""


@pytest.mark.parametrize("wrong", FORBIDDEN)
async def test_what_the_protocol_does_not_allow_costs_that_worker_and_is_reported(wrong: str) -> None:
    async with liars() as pool:
        for messages, complaint in FORBIDDEN[wrong]:
            with telemetry.capture(("pool",)) as events, pytest.raises(ProtocolError, match=complaint):
                await pool.run("say", *messages)
            assert words(events, of="pool.error") == ["pool.error"]
            assert [event.metadata["reason"] for event in events if event.name[-1] == "terminate"] == ["protocol"]
            assert await pool.run("say", REPLY) == "right"


async def test_a_second_answer_to_a_call_costs_the_worker_and_no_result() -> None:
    async with liars() as pool:
        assert await pool.run("say", REPLY, ["reply", "$id", "wrong", None, TIMES]) == "right"
        await eventually(lambda: pool.status().restarts == 1)
        assert await pool.run("say", REPLY) == "right"


async def test_a_stream_has_to_be_answered_as_one() -> None:
    async with liars() as pool:
        assert await read(pool.stream("hum", ["item", "$id", 1], ["end", "$id", None, None, TIMES])) == [1]
        with pytest.raises(ProtocolError, match="is a stream, so this kind of answer is invalid"):
            await read(pool.stream("hum", ["item", "$id", 1], REPLY))
        assert await read(pool.stream("hum", ["item", "$id", 2], ["end", "$id", None, None, TIMES])) == [2]


@pytest.mark.parametrize(
    "answer",
    [
        '["reply",$id,NaN,null,[1,1,null]]',
        '["reply",$id,[[1,Infinity]],null,[1,1,null]]',
        '["reply",$id,' + "[" * 5000 + "]" * 5000 + ",null,[1,1,null]]",
        '["reply",$id,"right",{"a":NaN},[1,1,null]]',
        '["reply",$id,' + "1" * 5000 + ",null,[1,1,null]]",
    ],
)
async def test_a_value_that_cannot_be_decoded_costs_its_call_and_not_the_worker(answer: str) -> None:
    async with liars(concurrency=3) as pool:
        others = [asyncio.ensure_future(pool.run("say")) for _ in range(2)]
        await eventually(lambda: pool.workers()[0].calls_held == 2)
        [last] = [max(pool._calls()._open)]
        with pytest.raises(PayloadError, match=r"(the result|session\.data) cannot be rebuilt"):
            await pool.run("say", answer.replace("$id", str(last + 1)))
        assert pool.status().restarts == 0
        assert pool.workers()[0].calls_held == 2
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def test_an_item_that_cannot_be_decoded_ends_its_stream_after_the_items_before_it() -> None:
    async with liars(cancel_grace=0.05) as pool:
        got: list[Any] = []
        with pytest.raises(PayloadError, match="an item cannot be rebuilt"):
            await read(pool.stream("hum", ["item", "$id", 1], await _bad_item(pool)), got)
        assert got == [1]
        assert await pool.run("say", REPLY) == "right"


async def _bad_item(pool: Pool) -> str:
    """An item that cannot be decoded, of the call that is made next."""
    with telemetry.capture(("pool", "operation", "start")) as events:
        await pool.run("say", REPLY)
    return f'["item",{events[0].metadata["call_id"] + 1},NaN]'


async def test_times_that_cannot_be_true_are_cut_to_what_the_service_saw() -> None:
    async with liars() as pool:
        with telemetry.capture(("pool", "operation", "stop")) as events:
            assert await pool.run("say", ["reply", "$id", "right", None, [2**62, 2**62, 5]]) == "right"
        measured = events[0].measurements
        assert measured["execution_duration"] <= measured["duration"]
        assert measured["cpu_duration"] <= measured["duration"] * (os.cpu_count() or 1)
        assert measured["rss_growth"] == 5


async def test_long_and_odd_texts_of_a_worker_are_cut_and_have_a_form_in_utf_8() -> None:
    async with liars() as pool:
        long = ["E" * 9999, "\ud800" + "x" * 200_000, "t" * 200_000]
        with pytest.raises(OperationError) as caught:
            await pool.run("say", ["error", "$id", "operation", *long, TIMES])
        error = caught.value
        assert len(error.type_name) == 256
        assert error.message.startswith("\\ud800xxx")
        assert len(error.message) < 70_000
        assert len(error.traceback) < 70_000
        with telemetry.capture(("pool", "worker", "log")) as events:
            await pool.run("say", ["log", "info", "\udfff" + "y" * 200_000, {"a": 1}], REPLY)
        assert len(events[0].metadata["text"]) < 70_000
        events[0].metadata["text"].encode()


async def test_session_data_over_the_limit_fails_its_call_and_is_not_kept() -> None:
    async with liars(session_data_limit=100) as pool, pool.session("s") as session:
        assert await session.run("say", ["reply", "$id", 1, {"kept": "x" * 50}, TIMES]) == 1
        with pytest.raises(PayloadError, match=r"session.data takes \d+ bytes, over the limit of 100"):
            await session.run("say", ["reply", "$id", 1, {"more": "x" * 200}, TIMES])
        assert session.data == {"kept": "x" * 50}
        # A large result does not count.
        assert await session.run("say", ["reply", "$id", "r" * 1000, {"kept": 2}, TIMES]) == "r" * 1000
        assert session.data == {"kept": 2}


async def test_a_stream_that_goes_on_when_nobody_reads_is_ended_before_it_fills_the_memory() -> None:
    async with liars(concurrency=2) as pool, aclosing(pool.stream("more")) as stream:
        assert len(await anext(stream)) == 100_000
        [call] = pool._calls()._open.values()
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, len(call.items.buffer) if call.items is not None else 0)
            return call.done

        await eventually(ended)
        assert most < 500  # of 100 kB each
        with pytest.raises(ProtocolError, match="the stream of 'more' does not pause when asked to"):
            await read(stream)
        assert await pool.run("say", REPLY) == "right"


async def test_items_that_are_collected_take_no_more_together_than_a_result_may() -> None:
    async with liars(frame_limit=1 << 20) as pool:
        result = await pool.try_run("more")
        assert isinstance(result.error, PayloadError)
        assert "its items take more than the frame limit of 1048576 bytes together; use stream()" in str(result.error)
        assert await pool.run("say", REPLY) == "right"


# -- the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [["ready", {"say": []}], ["ready"], 5, ["error", 0, 1, 2, 3, 4, 5]])
async def test_a_worker_that_starts_with_a_lie_costs_a_start_and_the_pool_goes_on(tmp_path: Path, ready: Any) -> None:
    env = {"LIAR_HONEST": str(tmp_path / "starts"), "LIAR_AFTER": "3", "LIAR_READY": json.dumps(ready)}
    async with liars(size=3, warmup="sequential", env=env, backoff_min=0.05, backoff_max=0.05) as pool:
        with telemetry.capture(("pool", "error")) as errors:
            with pytest.raises(ProtocolError, match="a frame without a body"):
                await pool.run("say", "")
            await eventually(lambda: any("the worker broke the protocol" in e.metadata["reason"] for e in errors))
        results = await asyncio.gather(*(pool.run("say", REPLY) for _ in range(10)))
        assert results == ["right"] * 10
        assert pool.status().state == "running"


def test_a_worker_that_offers_other_operations_takes_none_from_the_others() -> None:
    honest, liar = {"a": "function", "b": "generator"}, {"a": "generator", "c": "function"}
    everything = {"a": "function", "b": "generator", "c": "function"}
    assert merge_offers({}, [honest]) == honest
    assert merge_offers(honest, [honest, honest]) is honest
    assert merge_offers(honest, [liar]) == merge_offers(honest, [honest, liar]) == everything
    assert merge_offers({}, [liar, honest, honest]) == everything
    assert merge_offers({}, [honest, liar, liar])["a"] == "generator"
    assert merge_offers(honest, [liar, liar, liar]) == everything
    flood = {f"x{number}": "function" for number in range(20_000)}
    assert len(merge_offers(honest, [flood])) == 10_000
    assert merge_offers(honest, [flood]).items() >= honest.items()


async def test_a_worker_that_denies_an_operation_does_not_make_it_unknown(tmp_path: Path) -> None:
    ready = json.dumps(["ready", {"whatever": "function"}])
    env = {"LIAR_HONEST": str(tmp_path / "starts"), "LIAR_AFTER": "1", "LIAR_READY": ready}
    async with liars(size=2, warmup="sequential", env=env) as pool:
        assert await pool.run("say", REPLY) == "right"
        with pytest.raises(UnknownOperation, match="its target has hum, more, say, whatever"):
            await pool.run("another")


# -- calls that no worker survives --------------------------------------------------------------------------------


async def test_a_call_that_ends_every_worker_it_comes_next_on_is_given_up_and_the_others_go_on() -> None:
    patient = {"backoff_min": 0.001, "backoff_max": 0.01, "breaker_failures": 0, "timeout": 20.0}
    async with Pool(str(POISON), size=2, name="poison", **patient) as pool:
        await asyncio.gather(*(pool.run("echo", number) for number in range(200)))
        with telemetry.capture(("pool", "worker", "crash")) as crashes:
            others = [asyncio.ensure_future(pool.run("echo", number)) for number in range(100)]
            with pytest.raises(PoisonedCall, match="3 workers ended while they read it and none began it") as caught:
                await pool.options(idempotent=True).run("echo", "POISON")
            assert await asyncio.gather(*others) == list(range(100))
        assert (caught.value.retryable, caught.value.exit_code) == (False, 7)
        assert caught.value.worker in {"poison-0", "poison-1"}
        assert len(crashes) == 3
        assert await pool.run("echo", 1) == 1
