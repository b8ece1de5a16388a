"""Telemetry: which handlers receive which events, in which order; no handler can affect the emitter."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import UserDict
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pool_monitor import telemetry
from pool_monitor.telemetry import bus
from tests.helpers.support import words

A, B = ("t", "a"), ("t", "b")


pytestmark = pytest.mark.usefixtures("nobody_stays_attached")


class Recorder(list[tuple[Any, ...]]):
    """A handler that keeps the events it receives."""

    def __call__(self, *args: Any) -> None:
        self.append(args)


def broken(*_args: Any) -> None:
    raise ValueError("broken handler")


# -- attach, execute, detach --------------------------------------------------------------------------------------


def test_a_handler_receives_exactly_the_event_it_is_attached_to() -> None:
    received = Recorder()
    telemetry.attach("id", ("t", "a"), received, {"config": 1})
    for name in [("t",), ("t", "a", "b"), ("t", "b"), ("a",), ("t", "a")]:
        telemetry.execute(name, {"count": 1}, {"who": "me"})
    assert received == [(("t", "a"), {"count": 1}, {"who": "me"}, {"config": 1})]


def test_handlers_run_in_the_caller_before_execute_returns_in_order_of_attachment() -> None:
    order: list[tuple[str, int]] = []
    for name in "xyz":
        telemetry.attach(name, A, lambda *_args, name=name: order.append((name, threading.get_ident())))
    telemetry.execute(A, {})
    assert order == [(name, threading.get_ident()) for name in "xyz"]


def test_metadata_is_an_empty_mapping_when_none_is_given() -> None:
    received = Recorder()
    telemetry.attach("id", A, received)
    telemetry.execute(A, {"count": 1})
    assert received[0][2] == {}


def test_an_id_in_use_is_refused_on_whatever_event() -> None:
    telemetry.attach("id", A, Recorder())
    with pytest.raises(telemetry.HandlerExists, match="'id'"):
        telemetry.attach("id", B, Recorder())


def test_attach_many_attaches_to_all_events_or_to_none() -> None:
    received = Recorder()
    telemetry.attach_many("many", [A, B, A], received)
    telemetry.execute(A, {})
    telemetry.execute(B, {})
    assert [args[0] for args in received] == [A, B]
    with pytest.raises(TypeError):
        telemetry.attach_many("half", [("t", "c"), "t.d"], received)  # type: ignore[list-item]
    assert telemetry.list_handlers(("t", "c")) == []
    with pytest.raises(telemetry.HandlerExists):
        telemetry.attach_many("many", [("t", "c")], received)
    assert telemetry.list_handlers(("t", "c")) == []


def test_detach_takes_a_handler_off_every_event_and_returns_whether_there_was_one() -> None:
    received = Recorder()
    telemetry.attach_many("many", [A, B], received)
    assert telemetry.detach("many") is True
    assert telemetry.detach("many") is False
    telemetry.execute(A, {})
    telemetry.execute(B, {})
    assert received == []
    telemetry.attach("many", A, received)  # the id is free again


@pytest.mark.parametrize("name", ["t.a", ["t", "a"], ("t", 1), ("t", ""), (), None])
def test_what_is_no_event_name_is_refused(name: Any) -> None:
    for use in (
        lambda: telemetry.attach("id", name, Recorder()),
        lambda: telemetry.span(name),
        lambda: telemetry.event(name),
    ):
        with pytest.raises((TypeError, ValueError)):
            use()


def test_a_prefix_given_as_text_is_refused_rather_than_matching_nothing() -> None:
    with pytest.raises(TypeError):
        telemetry.list_handlers("pool")  # type: ignore[arg-type]
    with pytest.raises(TypeError), telemetry.capture("pool"):  # type: ignore[arg-type]
        pass


def test_a_handler_that_is_not_callable_or_has_no_event_is_refused() -> None:
    with pytest.raises(TypeError, match="callable"):
        telemetry.attach("id", A, "print")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        telemetry.attach_many("id", [], Recorder())


def test_list_handlers_gives_those_of_every_event_below_a_prefix() -> None:
    received = Recorder()
    telemetry.attach("one", A, received, 1)
    telemetry.attach("two", A, received, 2)
    telemetry.attach("three", ("t", "a", "deeper"), received)
    telemetry.attach("other", ("tt", "a"), received)
    assert [handler.id for handler in telemetry.list_handlers(("t", "a"))] == ["one", "two", "three"]
    assert telemetry.list_handlers(("t",))[0] == telemetry.Handler("one", A, received, 1)
    assert "other" in [handler.id for handler in telemetry.list_handlers()]


# -- failing handlers ---------------------------------------------------------------------------------------------


def test_a_failing_handler_is_detached_everywhere_and_the_rest_run_and_the_caller_goes_on() -> None:
    first, last, failures = Recorder(), Recorder(), Recorder()
    telemetry.attach("first", A, first)
    telemetry.attach_many("bad", [A, B], broken)
    telemetry.attach("last", A, last)
    telemetry.attach("failures", telemetry.HANDLER_FAILURE, failures)
    telemetry.execute(A, {"count": 1})
    telemetry.execute(A, {"count": 2})
    telemetry.execute(B, {})
    assert [args[1] for args in first] == [args[1] for args in last] == [{"count": 1}, {"count": 2}]
    [(name, measurements, metadata, _config)] = failures
    assert name == ("telemetry", "handler", "failure")
    assert measurements.keys() == {"monotonic_time", "system_time"}
    assert metadata["event_name"] == A
    assert metadata["handler_id"] == "bad"
    assert metadata["kind"] == "ValueError"
    assert metadata["reason"] == "ValueError: broken handler"
    assert "in broken" in metadata["stacktrace"]
    assert "bad" not in [handler.id for handler in telemetry.list_handlers()]


def test_a_failing_failure_handler_ends_with_itself() -> None:
    failures = Recorder()
    telemetry.attach("bad", A, broken)
    telemetry.attach("also bad", telemetry.HANDLER_FAILURE, broken)
    telemetry.attach("failures", telemetry.HANDLER_FAILURE, failures)
    telemetry.execute(A, {})
    assert sorted(args[2]["handler_id"] for args in failures) == ["also bad", "bad"]
    assert [handler.id for handler in telemetry.list_handlers(("telemetry",))] == ["failures"]


def test_an_error_whose_text_cannot_be_made_does_not_reach_the_caller() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def handler(*_args: Any) -> None:
        raise Wordless

    failures = Recorder()
    telemetry.attach("failures", telemetry.HANDLER_FAILURE, failures)
    telemetry.attach("bad", A, handler)
    telemetry.execute(A, {})
    assert failures[0][2]["kind"] == "Wordless"


class Own(BaseException):
    """As test frameworks and libraries use to give up: not an Exception, so that nothing swallows it."""


NO_EXCEPTIONS = [asyncio.CancelledError, GeneratorExit, Own, pytest.fail.Exception, pytest.exit.Exception]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("error", NO_EXCEPTIONS)
def test_any_exception_of_a_handler_is_its_failure(error: type[BaseException], filtered: bool) -> None:
    def handler(*_args: Any) -> None:
        raise error("why")

    event = telemetry.event(A)
    ways = (lambda: telemetry.execute(A, {}), lambda: event.emit({}, {}), lambda: event.emit_all({}, {}))
    if filtered:
        telemetry.configure(sample={"t.a": 2})
    try:
        for others in ([], ["other"]):
            for way in ways:
                telemetry.attach("bad", A, handler)
                for other in others:
                    telemetry.attach(other, A, Recorder())
                with telemetry.capture(telemetry.HANDLER_FAILURE) as failures:
                    while not failures:
                        way()
                assert [failure.metadata["kind"] for failure in failures] == [error.__name__]
                assert [one.id for one in telemetry.list_handlers(A)] == others
                for other in others:
                    telemetry.detach(other)
    finally:
        telemetry.configure()


def test_an_event_that_cannot_be_captured_does_not_reach_the_caller() -> None:
    class Closed(UserDict[str, int]):
        def keys(self) -> Any:
            raise GeneratorExit

    with telemetry.capture(A) as events:
        telemetry.execute(A, Closed(a=1))
    assert events == []


@pytest.mark.parametrize("error", [GeneratorExit, Own])
def test_an_error_whose_text_raises_no_exception_is_described(error: type[BaseException]) -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise error

    assert telemetry.describe(Wordless()) == "Wordless: (its __str__ failed)"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_or_exit_reaches_the_caller(error: type[BaseException]) -> None:
    def handler(*_args: Any) -> None:
        raise error

    telemetry.attach("id", A, handler)
    with pytest.raises(error):
        telemetry.execute(A, {})


def test_a_failure_is_logged_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    telemetry.attach("bad", A, broken)
    with caplog.at_level(logging.INFO):
        telemetry.execute(A, {})
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pool_monitor.telemetry", "ERROR")
    assert "handler detached" in record.getMessage()
    assert "bad" in record.getMessage()
    assert capfd.readouterr() == ("", "")


def test_handlers_may_attach_and_detach_while_they_run() -> None:
    received = Recorder()

    def once(*_args: Any) -> None:
        telemetry.detach("once")
        telemetry.attach("next", A, received)

    telemetry.attach("once", A, once)
    telemetry.execute(A, {"count": 1})
    telemetry.execute(A, {"count": 2})
    assert [args[1] for args in received] == [{"count": 2}]


# -- spans --------------------------------------------------------------------------------------------------------


def test_a_span_that_ends_well_is_a_start_and_a_stop() -> None:
    before_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    with telemetry.capture(("op",)) as events, telemetry.span(("op",), {"tenant": "a"}) as span:
        span.metadata["rows"] = 3
    start, stop = events
    assert (start.name, stop.name) == (("op", "start"), ("op", "stop"))
    assert before_ns <= start.measurements["monotonic_time"] <= time.monotonic_ns()
    assert wall_ns <= start.measurements["system_time"] <= time.time_ns()
    assert stop.measurements["duration"] == stop.measurements["monotonic_time"] - start.measurements["monotonic_time"]
    assert isinstance(stop.measurements["duration"], int)
    assert start.metadata["tenant"] == "a"
    assert "rows" not in start.metadata
    assert stop.metadata == {**start.metadata, "rows": 3}


def test_a_span_whose_block_raises_is_a_start_and_an_exception_and_the_error_goes_on() -> None:
    with (
        telemetry.capture(("op",)) as events,
        pytest.raises(ValueError, match="inside"),
        telemetry.span(("op",), {"tenant": "a"}),
    ):
        raise ValueError("inside")
    assert words(events) == ["op.start", "op.exception"]
    metadata = events[1].metadata
    assert (metadata["kind"], metadata["reason"], metadata["tenant"]) == ("error", "ValueError: inside", "a")
    assert 'raise ValueError("inside")' in metadata["stacktrace"]
    assert events[1].measurements["duration"] >= 0


async def test_a_span_in_a_task_that_is_cancelled_closes_once_as_cancelled() -> None:
    entered = asyncio.Event()

    async def work() -> None:
        with telemetry.span(("op",)):
            entered.set()
            await asyncio.Event().wait()

    with telemetry.capture(("op",)) as events:
        task = asyncio.ensure_future(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert words(events) == ["op.start", "op.exception"]
    assert events[1].metadata["kind"] == "cancelled"


def test_a_span_in_a_generator_that_is_closed_closes_once_as_cancelled() -> None:
    def work() -> Generator[int]:
        with telemetry.span(("op",)):
            yield 1

    with telemetry.capture(("op",)) as events:
        generator = work()
        next(generator)
        generator.close()
    assert words(events) == ["op.start", "op.exception"]
    assert events[1].metadata["kind"] == "cancelled"


def test_a_metadata_key_cannot_overwrite_the_measured_duration() -> None:
    with telemetry.capture(("op",)) as events, telemetry.span(("op",), {"duration": -1, "monotonic_time": -1}):
        pass
    assert events[1].measurements["duration"] >= 0
    assert events[1].metadata["duration"] == -1


def test_spans_of_one_name_differ_by_their_id() -> None:
    with telemetry.capture(("op",)) as events, telemetry.span(("op",)), telemetry.span(("op",)):
        pass
    outer, inner, inner_end, outer_end = (event.metadata["span_id"] for event in events)
    assert (outer, inner) == (outer_end, inner_end)
    assert outer != inner


def test_a_failing_handler_of_the_start_leaves_the_span_whole() -> None:
    telemetry.attach("bad", ("op", "start"), broken)
    with telemetry.capture(("op",)) as events, telemetry.span(("op",)):
        pass
    assert words(events) == ["op.start", "op.stop"]


# -- capture ------------------------------------------------------------------------------------------------------


def test_capture_sees_what_starts_with_its_prefix_while_it_is_open() -> None:
    telemetry.execute(("t", "a"), {})
    with telemetry.capture(("t",)) as events:
        for name in [("t",), ("t", "a"), ("tt", "a"), ("u",)]:
            telemetry.execute(name, {})
    telemetry.execute(("t", "a"), {})
    assert [event.name for event in events] == [("t",), ("t", "a")]


def test_captures_nest_and_leave_nothing_behind() -> None:
    table = bus._table
    with telemetry.capture() as outer:
        with telemetry.capture(("t", "a")) as inner:
            telemetry.execute(("t", "a"), {"count": 1})
        telemetry.execute(("t", "a"), {"count": 2})
    assert [event.measurements["count"] for event in inner] == [1]
    assert [event.measurements["count"] for event in outer] == [1, 2]
    assert bus._table == table
    assert bus._taps == ()


def test_capture_copies_what_it_sees_and_stands_beside_handlers() -> None:
    received = Recorder()
    telemetry.attach("id", A, received)
    measurements = {"count": 1}
    with telemetry.capture(("t",)) as events:
        telemetry.execute(A, measurements)
        measurements["count"] = 2
    assert events[0].measurements == {"count": 1}
    assert len(received) == 1


# -- pre-bound events ---------------------------------------------------------------------------------------------


def test_a_pre_bound_event_follows_attach_detach_and_capture() -> None:
    event = telemetry.event(("t", "bound"))
    assert telemetry.event(("t", "bound")) is event
    assert event.on is False
    event.emit({}, {})  # without handlers it does nothing
    received = Recorder()
    telemetry.attach("id", ("t", "bound"), received)
    assert event.on is True
    event.emit({"count": 1}, {})
    telemetry.detach("id")
    assert event.on is False
    with telemetry.capture(("t",)) as events:
        assert event.on is True
        event.emit({"count": 2}, {})
    assert event.on is False
    assert [args[1]["count"] for args in received] == [1]
    assert [seen.measurements["count"] for seen in events] == [2]


def test_a_pre_bound_event_is_off_again_after_its_handler_failed() -> None:
    event = telemetry.event(("t", "bound"))
    telemetry.attach("bad", ("t", "bound"), broken)
    event.emit({}, {})
    assert event.on is False


def test_an_event_without_handlers_touches_neither_measurements_nor_metadata() -> None:
    class Untouchable(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("looked into")

        __getitem__ = __len__ = __bool__ = keys = items = __iter__  # type: ignore[assignment]

    telemetry.execute(("t", "unused"), Untouchable(), Untouchable())
    telemetry.event(("t", "unused")).emit(Untouchable(), Untouchable())


# -- the lane: numbers without mappings ---------------------------------------------------------------------------

LANE = ("t", "lane")


def emit_by_lane(labels: tuple[str, ...], *numbers: int) -> None:
    """Emit as an emitter does that knows the lane of its event."""
    event = telemetry.event(LANE)
    series = event.series
    if series is not None:
        try:
            series[labels](*numbers)
        except telemetry.FAILURES as error:
            series.failed(error)
    if event.mapped:
        event.emit_mapped(dict(zip(("a", "b"), numbers, strict=True)), {"labels": labels})


class Lane:
    """A handler with a lane: keeps the mappings and the numbers it receives, and the labels it was bound to."""

    def __init__(self, handler_id: str = "lane") -> None:
        self.bound: list[tuple[str, ...]] = []
        self.numbers: list[tuple[Any, ...]] = []
        self.mappings = Recorder()
        telemetry.attach(handler_id, LANE, self.mappings, bind=self.bind)

    def bind(self, *labels: str) -> Any:
        self.bound.append(labels)
        return lambda *numbers: self.numbers.append((labels, numbers))


def test_an_emitter_that_knows_the_lane_calls_each_handler_once() -> None:
    before, lane, after = Recorder(), Lane(), Recorder()
    telemetry.attach("before", LANE, before)
    telemetry.attach("after", LANE, after)
    emit_by_lane(("x",), 1, 2)
    assert lane.numbers == [(("x",), (1, 2))]
    assert lane.mappings == []
    assert before == after == [(LANE, {"a": 1, "b": 2}, {"labels": ("x",)}, None)]


def test_a_handler_with_a_lane_receives_plain_events_like_any_other() -> None:
    lane = Lane()
    telemetry.execute(LANE, {"a": 1}, {"by": "execute"})
    telemetry.event(LANE).emit({"a": 2}, {"by": "emit"})
    assert [args[2]["by"] for args in lane.mappings] == ["execute", "emit"]
    assert lane.numbers == []


def test_no_mappings_are_needed_while_all_handlers_have_a_lane() -> None:
    event = telemetry.event(LANE)
    assert (event.on, event.series, event.mapped) == (False, None, False)
    lane = Lane()
    assert (event.on, event.mapped) == (True, False)
    with telemetry.capture(LANE) as events:
        assert event.mapped
        emit_by_lane(("x",), 1, 2)
    assert (len(lane.numbers), len(events)) == (1, 1)
    telemetry.detach("lane")
    assert (event.on, event.series, event.mapped) == (False, None, False)
    telemetry.attach("plain", LANE, Recorder())
    assert (event.on, event.series, event.mapped) == (True, None, True)


def test_labels_are_bound_once_and_again_when_handlers_come_or_go() -> None:
    lane = Lane()
    for _ in range(3):
        emit_by_lane(("x",), 1, 2)
        emit_by_lane(("y",), 3, 4)
    assert lane.bound == [("x",), ("y",)]
    second = Lane("second")
    emit_by_lane(("x",), 1, 2)
    emit_by_lane(("x",), 1, 2)
    assert lane.bound == [("x",), ("y",), ("x",)]
    assert second.bound == [("x",)]
    assert second.numbers == [(("x",), (1, 2))] * 2
    assert len(lane.numbers) == 8


def test_a_series_forgets_its_labels_rather_than_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "SERIES_LIMIT", 3)
    lane = Lane()
    for label in ["1", "2", "3", "4", "1"]:
        emit_by_lane((label,), 1, 2)
        assert len(telemetry.event(LANE).series or ()) <= 3
    assert lane.bound == [("1",), ("2",), ("3",), ("4",), ("1",)]
    assert len(lane.numbers) == 5


def failing_bind(*_labels: str) -> Any:
    raise ValueError("broken handler")


@pytest.mark.parametrize("others", [[], ["before"], ["after"], ["before", "after"]])
@pytest.mark.parametrize(
    "bind",
    [failing_bind, lambda *_labels: broken, lambda *_labels: None],
    ids=["bind raises", "record raises", "record cannot be called"],
)
def test_a_failing_lane_is_detached_and_the_other_handlers_run_and_the_caller_goes_on(
    bind: Any, others: list[str]
) -> None:
    lanes = [Lane("before")] if "before" in others else []
    telemetry.attach("plain", LANE, plain := Recorder())
    telemetry.attach("bad", LANE, Recorder(), bind=bind)
    lanes += [Lane("after")] if "after" in others else []
    with telemetry.capture(telemetry.HANDLER_FAILURE) as failures:
        emit_by_lane(("x",), 1, 2)
        emit_by_lane(("x",), 3, 4)
    assert [(event.metadata["handler_id"], event.metadata["event_name"]) for event in failures] == [("bad", LANE)]
    assert [handler.id for handler in telemetry.list_handlers(LANE)] == sorted(["plain", *others], key=order)
    for lane in lanes:
        assert lane.numbers == [(("x",), (1, 2)), (("x",), (3, 4))]
    assert [args[1] for args in plain] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def order(handler_id: str) -> int:
    return ["before", "plain", "after"].index(handler_id)


@pytest.mark.parametrize("error", NO_EXCEPTIONS)
@pytest.mark.parametrize("lanes", [1, 2])
def test_any_exception_of_a_lane_is_its_failure_and_an_interrupt_reaches_the_caller(
    lanes: int, error: type[BaseException]
) -> None:
    def raising(error: type[BaseException]) -> Any:
        def record(*_numbers: int) -> None:
            raise error

        return lambda *_labels: record

    for number in range(lanes):
        telemetry.attach(f"fails-{number}", LANE, Recorder(), bind=raising(error))
    emit_by_lane(("x",), 1, 2)
    assert telemetry.list_handlers(LANE) == []
    for number in range(lanes):
        telemetry.attach(f"fails-{number}", LANE, Recorder(), bind=lambda *_labels: raising(error)()())
    emit_by_lane(("x",), 1, 2)
    assert telemetry.list_handlers(LANE) == []
    for number in range(lanes):
        telemetry.attach(f"interrupts-{number}", LANE, Recorder(), bind=raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        emit_by_lane(("x",), 1, 2)
    assert len(telemetry.list_handlers(LANE)) == lanes


def test_each_of_several_failing_lanes_is_detached_for_its_own_failure() -> None:
    telemetry.attach("bad bind", LANE, Recorder(), bind=failing_bind)
    telemetry.attach("bad record", LANE, Recorder(), bind=lambda *_labels: broken)
    with telemetry.capture(telemetry.HANDLER_FAILURE) as failures:
        emit_by_lane(("x",), 1, 2)
    assert [event.metadata["handler_id"] for event in failures] == ["bad bind", "bad record"]
    assert telemetry.list_handlers(LANE) == []


def test_a_bind_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="bind of handler 'id' needs a callable, not 'record'"):
        telemetry.attach("id", LANE, Recorder(), bind="record")  # type: ignore[arg-type]
    assert telemetry.list_handlers(LANE) == []


# -- threads ------------------------------------------------------------------------------------------------------


def test_attaching_and_detaching_from_threads_loses_no_event_of_a_handler_that_stays() -> None:
    received = Recorder()
    telemetry.attach("stays", A, received)
    stop = threading.Event()
    errors: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            while not stop.is_set():
                telemetry.attach(f"churn-{number}", A, lambda *_args: None)
                telemetry.detach(f"churn-{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for count in range(5_000):
        telemetry.execute(A, {"count": count})
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [args[1]["count"] for args in received] == list(range(5_000))
    assert [handler.id for handler in telemetry.list_handlers(A)] == ["stays"]


# -- against a model ----------------------------------------------------------------------------------------------

NAMES = st.sampled_from([("m",), ("m", "a"), ("m", "b"), ("m", "a", "c")])
IDS = st.sampled_from(["one", "two", "three"])


class HandlerTable(RuleBasedStateMachine):
    """The table of handlers behaves like a list of attachments."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[tuple[str, telemetry.EventName]] = []
        self.failing: set[str] = set()
        self.received: list[tuple[str, telemetry.EventName]] = []

    def handler(self, name: telemetry.EventName, _measurements: Any, _metadata: Any, handler_id: str) -> None:
        self.received.append((handler_id, name))
        if handler_id in self.failing:
            raise ValueError(handler_id)

    @rule(handler_id=IDS, names=st.lists(NAMES, min_size=1, max_size=3), fails=st.booleans())
    def attach(self, handler_id: str, names: list[telemetry.EventName], fails: bool) -> None:
        if any(handler_id == known for known, _ in self.model):
            with pytest.raises(telemetry.HandlerExists):
                telemetry.attach_many(handler_id, names, self.handler, handler_id)
            return
        telemetry.attach_many(handler_id, names, self.handler, handler_id)
        self.model += [(handler_id, name) for name in dict.fromkeys(names)]
        (self.failing.add if fails else self.failing.discard)(handler_id)

    @rule(handler_id=IDS)
    def detach(self, handler_id: str) -> None:
        assert telemetry.detach(handler_id) == any(handler_id == known for known, _ in self.model)
        self.model = [entry for entry in self.model if entry[0] != handler_id]

    @rule(name=NAMES)
    def execute(self, name: telemetry.EventName) -> None:
        self.received.clear()
        expected = [entry for entry in self.model if entry[1] == name]
        telemetry.execute(name, {})
        assert self.received == expected
        self.model = [e for e in self.model if not (e[0] in self.failing and (e[0], name) in expected)]

    @rule(name=NAMES, prefix=NAMES)
    def capture(self, name: telemetry.EventName, prefix: telemetry.EventName) -> None:
        with telemetry.capture(prefix) as events:
            self.execute(name)
        assert [event.name for event in events] == ([name] if name[: len(prefix)] == prefix else [])

    @invariant()
    def lists_the_model(self) -> None:
        listed = [(handler.id, handler.event) for handler in telemetry.list_handlers(("m",))]
        assert sorted(listed) == sorted(self.model)

    def teardown(self) -> None:
        for handler_id in ("one", "two", "three"):
            telemetry.detach(handler_id)


TestHandlerTable = HandlerTable.TestCase
TestHandlerTable.settings = settings(max_examples=50, stateful_step_count=25)
