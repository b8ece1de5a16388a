"""Telemetry compared with Elixir's ``:telemetry``: what is refused and when, and what failures and spans carry."""

from __future__ import annotations

import contextlib
import functools
from collections import UserDict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest

from pool_monitor import telemetry
from pool_monitor.events import CATALOGUE
from tests.helpers.support import ops_pool, words

A, B = ("c", "a"), ("c", "b")


pytestmark = pytest.mark.usefixtures("nobody_stays_attached")


def ignore(event: Any, measurements: Any, metadata: Any, config: Any) -> None: ...


def broken(*_args: Any) -> None:
    raise ValueError("broken handler")


async def waits(*_args: Any) -> None: ...


def yields(*_args: Any) -> Iterator[None]:
    yield


async def waits_and_yields(*_args: Any) -> Any:
    yield


class Waits:
    async def __call__(self, *_args: Any) -> None: ...

    async def method(self, *_args: Any) -> None: ...


# -- what can be a handler ----------------------------------------------------------------------------------------


class Callables:
    """Handlers of every form; each takes four arguments."""

    def __call__(self, *args: Any) -> None: ...

    def method(self, event: Any, measurements: Any, metadata: Any, config: Any) -> None: ...

    @classmethod
    def of_class(cls, *args: Any) -> None: ...

    @staticmethod
    def static(a: Any, b: Any, c: Any, d: Any, e: Any = None) -> None: ...


class Made:
    """The class is the handler: each event makes an instance. It does not matter that an instance is async."""

    def __init__(self, *args: Any) -> None: ...

    async def __call__(self) -> None: ...


@functools.wraps(lambda one: None)
def adapted(*args: Any) -> None: ...


class Odd:
    @property
    def __signature__(self) -> Any:
        raise RuntimeError("not telling")

    def __call__(self, *args: Any) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        ignore, Callables(), Callables().method, Callables.of_class, Callables.static, Made, adapted, Odd(), print,
        functools.partial(lambda extra, a, b, c, d: None, "extra"), mock.Mock(), max,
        mock.MagicMock(), mock.Mock(spec=ignore), mock.create_autospec(ignore),
    ],
)  # fmt: skip
def test_whatever_can_be_called_with_four_arguments_can_be_attached(handler: Any) -> None:
    telemetry.attach("id", A, handler)
    assert [found.function for found in telemetry.list_handlers(A)] == [handler]


@pytest.mark.parametrize(
    "handler",
    [
        lambda: None,
        lambda event: None,
        lambda event, measurements, metadata: None,
        lambda a, b, c, d, e: None,
        lambda *_args, needed: None,
        functools.partial(ignore, "one too many"),
        Callables.method,
    ],
)
def test_a_handler_of_other_than_four_arguments_is_refused_as_it_is_attached(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler 'id' is called with four positional arguments"):
        telemetry.attach("id", A, handler)
    with pytest.raises(TypeError, match="four positional arguments"):
        telemetry.attach_many("id", [A, B], handler)
    assert telemetry.list_handlers(("c",)) == []


ONLY_BEGUN = [
    waits, yields, waits_and_yields, Waits(), Waits().method, functools.partial(waits), functools.partial(Waits()),
]  # fmt: skip


@pytest.mark.parametrize("handler", ONLY_BEGUN)
def test_a_handler_that_a_call_does_not_run_is_refused_with_the_remedy(handler: Any) -> None:
    with pytest.raises(
        TypeError, match=r"handler 'id' needs a plain function, not .*, which does not run .*\.put_nowait"
    ):
        telemetry.attach("id", A, handler)
    with pytest.raises(TypeError, match="bind of handler 'id' needs a plain function"):
        telemetry.attach("id", A, ignore, bind=handler)
    assert telemetry.list_handlers(A) == []


# -- what can be a name, a prefix, a measurement ------------------------------------------------------------------

NO_NAMES = ["c.a", "", ["c", "a"], [], ("c", 1), ("c", ""), None, 5, {"c": "a"}]


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_an_invalid_name_is_refused_in_words_by_every_function(name: Any) -> None:
    uses: list[Callable[[], object]] = [
        lambda: telemetry.attach("id", name, ignore),
        lambda: telemetry.attach_many("id", [A, name], ignore),
        lambda: telemetry.list_handlers(name),
        lambda: telemetry.capture(name).__enter__(),
        lambda: telemetry.span(name),
        lambda: telemetry.weight(name),
    ]
    if not isinstance(name, tuple):  # see the next test
        uses.append(lambda: telemetry.execute(name, {}))
    for use in uses:
        with pytest.raises(TypeError, match="an event name is a tuple of non-empty strings such as"):
            use()
    assert telemetry.list_handlers(("c",)) == []


def test_one_event_name_in_place_of_several_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match=r"an event name is a tuple of non-empty strings .* not 'c'"):
        telemetry.attach_many("id", A, ignore)
    with pytest.raises(ValueError, match="handler 'id' needs at least one event name"):
        telemetry.attach_many("id", iter([]), ignore)


@pytest.mark.parametrize("attached", [False, True])
def test_an_invalid_execution_is_refused_with_handlers_and_without(attached: bool) -> None:
    if attached:
        telemetry.attach("id", A, ignore)
    with pytest.raises(ValueError, match="at least one part"):
        telemetry.execute((), {})
    for measurements in (1, None, [("count", 1)], "count"):
        with pytest.raises(TypeError, match="measurements are a mapping such as"):
            telemetry.execute(A, measurements)  # type: ignore[arg-type]
    assert len(telemetry.list_handlers(A)) == attached, "a mistake of the emitter costs no handler"


def test_mappings_of_any_kind_are_carried_as_they_are() -> None:
    seen: list[Any] = []
    telemetry.attach("id", A, lambda *args: seen.append(args))
    measurements, metadata = MappingProxyType({"count": 1}), UserDict({"tenant": "a"})
    telemetry.execute(A, measurements, metadata)
    assert seen[0][1] is measurements
    assert seen[0][2] is metadata


# -- a failure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"limit": 3}, None, True, ["x"]], ids=str)
def test_a_failure_has_all_that_attaching_the_handler_again_needs(config: Any) -> None:
    telemetry.attach_many("bad", [A, B], broken, config)

    def again(_event: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
        assert telemetry.list_handlers(metadata["event_name"]) == []
        telemetry.attach(metadata["handler_id"], metadata["event_name"], ignore, metadata["handler_config"])

    telemetry.attach("again", telemetry.HANDLER_FAILURE, again)
    with telemetry.capture(telemetry.HANDLER_FAILURE) as failures:
        telemetry.execute(B, {})
    assert telemetry.list_handlers(("c",)) == [telemetry.Handler("bad", B, ignore, config)]
    [failure] = failures
    assert CATALOGUE[failure.name].problems(failure.measurements, failure.metadata) == []


def test_what_a_handler_was_attached_with_does_not_get_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    telemetry.attach("bad", A, broken, {"token": "s3cret"})
    telemetry.execute(A, {})
    assert "c.a" in caplog.text
    assert "s3cret" not in caplog.text


# -- spans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_span_is_given_to_measure_is_in_its_closing_event(fails: bool) -> None:
    with telemetry.capture(("op",)) as events, contextlib.suppress(ValueError), telemetry.span(("op",)) as span:
        span.measurements["rows"] = 3
        span.measurements["duration"] = -1
        if fails:
            raise ValueError("inside")
    start, end = events
    assert words(events) == ["op.start", "op.exception" if fails else "op.stop"]
    assert start.measurements.keys() == {"monotonic_time", "system_time"}
    assert end.measurements.keys() == {"rows", "duration", "monotonic_time"}
    assert end.measurements["rows"] == 3
    assert end.measurements["duration"] >= 0, "what the span measures itself has precedence"


# -- the whole of a pool ------------------------------------------------------------------------------------------


async def test_a_handler_of_every_event_that_fails_costs_the_pool_nothing() -> None:
    telemetry.attach_many("bad", list(CATALOGUE), broken)
    async with ops_pool() as pool:
        assert await pool.run("echo", 1) == 1
    assert "bad" not in [handler.id for handler in telemetry.list_handlers()]
