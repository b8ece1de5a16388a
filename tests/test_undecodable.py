"""Values that one side can encode and the other cannot decode cost their call alone, at whatever depth and in whatever
place they stand; and how a message is taken apart to see that.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import PayloadError, StartError
from pool_monitor.pool.transport.child import array_elements
from pool_monitor.pool.transport.child.array_elements import json_elements, msgpack_elements
from pool_monitor.pool.transport.child.codec import CODECS, Undecodable
from tests.helpers.support import odd_pool, read, running
from tests.targets.odd import Point, nested

pytestmark = pytest.mark.usefixtures("no_leaks")


class Frozen(msgspec.Struct, frozen=True):
    x: int = 1


class Pair(NamedTuple):
    left: Any = Point()
    right: int = 2


ARGUMENTS = [
    {Point(): 1},
    {Frozen(): 1},
    {Pair(): 1},
    {(1, Point()): 1},
    {frozenset([Point()]): 1},
    [[{"deep": {Point(): 1}}]],
    msgspec.msgpack.Ext(-1, b"x"),
    msgspec.Raw(b"\xc1"),
]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_an_argument_that_cannot_be_decoded_costs_its_call_and_no_worker(concurrency: int) -> None:
    async with odd_pool(concurrency=concurrency) as pool:
        pid = await pool.run("pid")
        beside = [asyncio.ensure_future(pool.run("later", 0.1, number)) for number in range(concurrency - 1)]
        for argument in ARGUMENTS:
            with pytest.raises(PayloadError, match="the arguments cannot be rebuilt"):
                await pool.options(idempotent=True).run("echo", argument)
            with pytest.raises(PayloadError, match="the arguments cannot be rebuilt"):
                await pool.run("echo", more=argument)
        mapped = [got async for got in pool.map("echo", [1, {Point(): 1}, 3], return_exceptions=True)]
        assert (mapped[0], type(mapped[1]), mapped[2]) == (1, PayloadError, 3)
        assert await asyncio.gather(*beside) == list(range(concurrency - 1))
        assert await pool.run("pid") == pid
        assert pool.status().restarts == 0


async def test_an_argument_that_cannot_be_decoded_is_told_apart_among_calls_handed_ahead() -> None:
    async with odd_pool() as pool:
        await asyncio.gather(*(pool.run("echo", number) for number in range(100)))
        values = [{Point(): 1} if number % 7 == 3 else number for number in range(100)]
        results = await asyncio.gather(*(pool.run("echo", value) for value in values), return_exceptions=True)
        assert [got if type(got) is int else type(got) for got in results] == [
            PayloadError if number % 7 == 3 else number for number in range(100)
        ]
        assert pool.status().restarts == 0


class Rude:
    """Raises what nobody expects where it is encoded."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


class Unforeseen(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error", [GeneratorExit("boom"), SystemExit("boom"), asyncio.CancelledError("boom"), Unforeseen()]
)
async def test_whatever_an_argument_raises_when_it_is_encoded_costs_its_call_alone(error: BaseException) -> None:
    async with odd_pool(codec="pickle") as pool:
        with pytest.raises(
            PayloadError, match=r"the arguments cannot be carried as pickle: (boom|\(its __str__ failed)"
        ):
            await pool.run("echo", Rude(error))
        results = await asyncio.gather(*(pool.run("echo", one) for one in (1, Rude(error), 3)), return_exceptions=True)
        assert (results[0], type(results[1]), results[2]) == (1, PayloadError, 3)
        assert pool.status().waiting == pool.status().busy == 0


async def test_arguments_of_the_target_that_cannot_be_decoded_are_named() -> None:
    with pytest.raises(StartError, match=r"init_args and init_kwargs of .*: they cannot be rebuilt") as caught:
        async with odd_pool(init_args=({Point(): 1},)):
            pass
    assert not caught.value.traceback


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_result_that_cannot_be_decoded_costs_its_call_and_no_other_on_its_worker(concurrency: int) -> None:
    async with odd_pool(concurrency=concurrency) as pool:
        pid = await pool.run("pid")
        beside = [await running(pool, "later", 0.2, number) for number in range(concurrency - 1)]
        with pytest.raises(PayloadError, match="the result cannot be rebuilt"):
            await pool.run("by_point")
        async with pool.session("s") as session:
            with pytest.raises(PayloadError, match=r"session\.data cannot be rebuilt"):
                await session.run("keep_point")
            assert await session.run("kept") == {}
        got: list[Any] = []
        with pytest.raises(PayloadError, match="an item cannot be rebuilt"):
            await read(pool.stream("points", 3), got)
        assert got == [0, 1, 2]
        result = await pool.try_run("points", 3)
        assert isinstance(result.error, PayloadError)
        assert await asyncio.gather(*beside) == list(range(concurrency - 1))
        assert await pool.run("pid") == pid


@pytest.mark.parametrize("codec", ["msgpack", "json", "pickle"])
async def test_however_deep_a_result_is_its_worker_lives(codec: str) -> None:
    async with odd_pool(codec=codec) as pool:
        pid = await pool.run("pid")
        for depth in (900, *range(940, 1010, 1), 3000):
            try:
                assert await pool.run("nest", depth) == nested(depth)
            except (PayloadError, RecursionError):  # the latter where the two are compared here
                assert depth > 900 or codec == "pickle"
        assert await pool.run("pid") == pid


# -- taking a message apart ---------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=8), st.binary(max_size=3))
def test_the_elements_of_a_msgpack_array_are_found_without_decoding_them(message: list[Any], more: bytes) -> None:
    codec = CODECS["msgpack"]()
    body = codec.encode(message)
    assert [codec.decode(part) for part in msgpack_elements(memoryview(body))] == message
    if more:
        with pytest.raises(ValueError, match=r"the message (is truncated|has trailing bytes)"):
            list(msgpack_elements(memoryview(body + more)))
    with pytest.raises((ValueError, IndexError)):
        list(msgpack_elements(memoryview(body[:-1])))


@given(st.lists(st.text() | st.integers() | st.lists(st.text()), min_size=1, max_size=8))
def test_the_elements_of_a_json_array_are_found_without_decoding_them(message: list[Any]) -> None:
    for body in (json.dumps(message), json.dumps(message, indent=1, ensure_ascii=False)):
        parts = list(json_elements(memoryview(body.encode("utf-8", "surrogatepass"))))
        assert [json.loads(bytes(part).decode("utf-8", "surrogatepass")) for part in parts] == message


@given(st.binary())
def test_whatever_is_taken_apart_gives_parts_or_an_error(body: bytes) -> None:
    for elements in (msgpack_elements, json_elements):
        try:
            parts = list(elements(memoryview(body)))
        except (ValueError, IndexError):
            continue
        assert sum(map(len, parts)) <= len(body)


def test_a_message_of_too_many_values_is_not_taken_apart_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_elements, "_STEPS", 1000)
    many = 1001
    with pytest.raises(ValueError, match="too many values"):
        list(msgpack_elements(memoryview(b"\x91\xdd" + many.to_bytes(4, "big") + b"\x90" * many)))
    with pytest.raises(ValueError, match="too many values"):
        list(json_elements(memoryview(b"[[" + b"0," * many + b"0]]")))


def test_of_a_message_only_what_cannot_be_decoded_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"\x95\xa5reply\x01\x81\x81\x01\x02\x03\xc0\x93\x01\x02\xc0"  # a dict as a key
    ours = CODECS["msgpack"]()
    monkeypatch.setitem(sys.modules, "msgspec.msgpack", None)
    for codec in (ours, CODECS["msgpack"]()):
        kind, call_id, result, data, times = codec.parts(memoryview(body))
        assert (kind, call_id, data, times) == ("reply", 1, None, [1, 2, None])
        assert isinstance(result, Undecodable)
        assert isinstance(result.error, Exception)
    deep = b'["reply",1,' + b"[" * 100_000 + b"]" * 100_000 + b",null,[1,2,null]]"
    kind, call_id, result, *_ = CODECS["json"]().parts(memoryview(deep))
    assert (kind, call_id) == ("reply", 1)
    assert isinstance(result.error, RecursionError)
