"""What values are sent as that a codec has no form for: the same by every codec, or refused with the right advice."""

from __future__ import annotations

import dataclasses
import enum
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.pool.transport.child import conversions
from pool_monitor.pool.transport.child.codec import CODECS, Codec


def package() -> Codec:
    """The codec msgpack of a Python that has the package msgpack and not msgspec."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "msgspec.msgpack", None)
        return CODECS["msgpack"]()


MSGPACK, PACKAGE, JSON = CODECS["msgpack"](), package(), CODECS["json"]()


@dataclasses.dataclass
class Record:
    value: Any
    _hidden: int = 1
    unset: int = dataclasses.field(init=False, repr=False)
    of_class: int = dataclasses.field(init=False, repr=False, default=5)  # which the object itself has not


class Colour(enum.Enum):
    RED = date(2026, 1, 2)


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Moment(datetime):
    """As of pandas or pendulum."""


OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
VALUES = (
    st.none()
    | st.dates()
    | st.datetimes()
    | st.times(timezones=st.none() | OFFSETS)
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.floats(allow_nan=False, allow_infinity=False).map(numpy.float64)
    | st.floats(width=32, allow_nan=False, allow_infinity=False).map(numpy.float32)
    | st.integers(0, 2**64 - 1).map(numpy.uint64)
    | st.booleans().map(numpy.bool_)
    | st.text(alphabet="ab").map(Word)
    | st.just(Colour.RED)
    | st.frozensets(st.integers(0, 2), max_size=1)
    | st.lists(st.integers(-9, 9)).map(numpy.array)
)


def through(codec: Codec, value: Any) -> str:
    return repr(codec.decode(codec.encode(value)))


@settings(max_examples=50)
@given(st.recursive(VALUES, lambda inner: st.lists(inner) | inner.map(Record) | st.dictionaries(st.text("ab"), inner)))
def test_every_codec_gives_the_same(value: Any) -> None:
    assert through(MSGPACK, value) == through(PACKAGE, value) == through(JSON, value)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.dates() | st.uuids() | st.decimals(allow_nan=False) | st.integers(0, 9).map(numpy.int64), st.none()
    )
)
def test_both_forms_of_msgpack_give_the_same_keys(value: Any) -> None:
    assert through(MSGPACK, value) == through(PACKAGE, value)


@pytest.mark.parametrize("kind", [str, bytes, bytearray, int, float, list, dict, set, frozenset])
def test_a_class_of_its_own_arrives_as_what_it_derives_from(kind: type) -> None:
    value = type("Own", (kind,), {})()
    arrives = {bytearray: b"", set: [], frozenset: []}.get(kind, kind())
    for codec in (MSGPACK, PACKAGE, JSON):
        if codec is not JSON or kind not in (bytes, bytearray):
            assert codec.decode(codec.encode([value])) == [arrives]


@pytest.mark.parametrize("codec", [MSGPACK, PACKAGE])
def test_a_moment_of_a_class_of_its_own_arrives_as_a_datetime(codec: Codec) -> None:
    moment = Moment(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
    assert codec.decode(codec.encode([moment, {moment: 1}])) == [moment, {moment: 1}]
    assert codec.decode(codec.encode(Moment(2026, 1, 2))) == "2026-01-02T00:00:00"


@pytest.mark.parametrize("value", [Record({1: "a"}), [Record([Record({None: 2})])], {Record: 1}, {(1, 2): Record(1)}])
def test_json_refuses_a_key_that_is_no_string_inside_an_object_too(value: Any) -> None:
    with pytest.raises(TypeError, match=r"keys in JSON must be strings; convert it"):
        JSON.encode([value])


def test_the_search_for_a_wrong_key_ends_where_a_value_contains_itself() -> None:
    circle: list[Any] = [{(1, 2): 3}]
    circle.insert(0, circle)
    with pytest.raises((TypeError, ValueError)):
        JSON.encode(circle)
    record = Record({1: 2})
    record.value["record"] = record
    with pytest.raises((TypeError, ValueError, RecursionError)):
        JSON.encode(record)


@pytest.mark.parametrize("codec", [MSGPACK, PACKAGE, JSON])
def test_an_array_too_large_for_a_list_is_refused_before_there_is_one(codec: Codec) -> None:
    array = numpy.broadcast_to(numpy.uint8(1), (conversions.ELEMENTS + 1,))  # takes no memory
    with pytest.raises(TypeError, match=r"16777217 elements is too large for a list .* value.tobytes\(\)"):
        codec.encode([array])


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (numpy.array(3), 3),
        (numpy.ma.array([1, 2], mask=[False, True]), [1, None]),
        (numpy.array([("a", 1.5)], dtype="U1,f8"), [["a", 1.5]]),
        (numpy.array([Decimal(1), None]), ["1", None]),
        (numpy.datetime64("2026-01-02"), "2026-01-02"),
        (numpy.datetime64("NaT"), None),
        (numpy.str_("a"), "a"),
        ({"score": numpy.float16(0.5)}, {"score": 0.5}),
    ],
    ids=repr,
)
def test_what_numpy_gives_arrives_as_what_it_means(value: Any, arrives: Any) -> None:
    for codec in (MSGPACK, PACKAGE, JSON):
        assert codec.decode(codec.encode(value)) == arrives


@pytest.mark.parametrize(
    "value",
    [
        numpy.timedelta64(1, "ns"),
        numpy.timedelta64(1, "Y"),
        numpy.longdouble(1),
        numpy.complex128(1j),
        numpy.array([("2026-01-02",)], dtype=[("when", "M8[ns]")]),
        numpy.array([((1, "2026-01-02"),)], dtype=[("at", [("x", "i4"), ("when", "M8[ns]")])])[0],
    ],
    ids=repr,
)
def test_what_numpy_gives_is_refused_where_it_would_mean_something_else(value: Any) -> None:
    for codec in (MSGPACK, PACKAGE, JSON):
        with pytest.raises(TypeError, match=r"; convert it, or use codec='pickle'$"):
            codec.encode(value)


def test_a_model_of_pydantic_arrives_as_its_own_json() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", when=(datetime, ...), ids=(set[UUID], ...), raw=(bytes, b"raw"))
    value = model(when="2026-01-02T03:04:05Z", ids=[UUID(int=5)])
    for codec in (MSGPACK, PACKAGE, JSON):
        arrived = codec.decode(codec.encode([value]))[0]
        assert arrived == {"when": "2026-01-02T03:04:05Z", "ids": [str(UUID(int=5))], "raw": "raw"}
        assert model.model_validate(arrived) == value


def test_a_model_of_pydantic_that_has_no_json_is_refused_with_a_remedy() -> None:
    pydantic = pytest.importorskip("pydantic")
    for value in (pydantic.create_model("Model", raw=bytes)(raw=b"\xff"), pydantic.RootModel[Any](object())):
        for codec in (MSGPACK, PACKAGE, JSON):
            with pytest.raises(TypeError, match=r"\S+ cannot be written as JSON: .*; convert it"):
                codec.encode([value])


@pytest.mark.parametrize("slots", [True, False])
def test_a_class_of_attrs_arrives_as_its_public_fields(slots: bool) -> None:
    attrs = pytest.importorskip("attrs")
    value = attrs.make_class("Own", {"x": attrs.field(), "_y": attrs.field(default=2)}, slots=slots)(1)
    for codec in (MSGPACK, PACKAGE, JSON):
        assert codec.decode(codec.encode([value])) == [{"x": 1}]


class Leaf(msgspec.Struct, tag="leaf", omit_defaults=True, rename="camel"):
    """A Struct whose form is not that of its fields."""

    first_word: str
    when: date = date(2026, 1, 2)
    score: Any = None


@pytest.mark.parametrize("codec", [MSGPACK, PACKAGE, JSON])
def test_a_struct_of_msgspec_arrives_as_msgspec_writes_it(codec: Codec) -> None:
    value = [Leaf("a", score=numpy.float64(1.5)), {"leaf": Leaf("b", date(2027, 1, 1))}]
    assert codec.decode(codec.encode(value)) == [
        {"type": "leaf", "firstWord": "a", "score": 1.5},
        {"leaf": {"type": "leaf", "firstWord": "b", "when": "2027-01-01"}},
    ]


def test_json_refuses_in_a_struct_what_it_refuses_elsewhere() -> None:
    with pytest.raises(TypeError, match=r"JSON has no bytes; convert it, use codec='pickle', or use codec='auto'"):
        JSON.encode(Leaf("a", score=b"raw"))


def test_json_is_not_advised_for_a_moment_that_msgpack_has_no_form_for() -> None:
    with pytest.raises(OverflowError, match=r"date value out of range; convert it, or use codec='pickle'$"):
        MSGPACK.encode(datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))))


def test_pickle_is_not_advised_for_what_it_refuses_too() -> None:
    lock = __import__("threading").Lock()
    for codec in (MSGPACK, PACKAGE, JSON):
        with pytest.raises(TypeError, match=r"there is no conversion for _thread\.lock objects; convert it$"):
            codec.encode(lock)
        with pytest.raises(
            TypeError, match=r"there is no conversion for generator objects; convert it to a list, or use stream\(\)"
        ):
            codec.encode(x for x in "ab")
    with pytest.raises(TypeError, match=r"JSON has no bytes; convert it, or use codec='auto' with msgpack installed"):
        JSON.encode(memoryview(b"raw"))
