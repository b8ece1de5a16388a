"""Filters: which events are emitted, how many of them, and how handlers count nevertheless."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pool_monitor import telemetry
from pool_monitor.events import CATALOGUE, OPERATION_STOP
from pool_monitor.telemetry import HANDLER_FAILURE, EventName, bus, filtering
from tests.helpers.support import ops_pool, words

A, B = ("f", "a"), ("f", "a", "b")


@pytest.fixture(autouse=True)
def drawn_alike_and_nothing_left_behind() -> Iterator[None]:
    filtering.generator().seed(20_240_229)
    yield
    telemetry.configure()
    for handler in telemetry.list_handlers(("f",)):
        telemetry.detach(handler.id)


class Counted:
    """A handler that counts the events it receives, by mappings or by its lane."""

    def __init__(self, name: EventName = A, *, lane: bool = False, handler_id: str = "counted") -> None:
        self.count = 0
        telemetry.attach(handler_id, name, self.receive, bind=(lambda *_labels: self.receive) if lane else None)

    def receive(self, *_args: Any) -> None:
        self.count += 1


def by_execute(name: EventName = A) -> None:
    telemetry.execute(name, {"n": 1})


def by_emit(name: EventName = A) -> None:
    telemetry.event(name).emit({"n": 1}, {})


def in_steps(name: EventName = A) -> None:
    event = telemetry.event(name)
    if event.skip is None or not event.skip():
        event.emit_all({"n": 1}, {})


def by_lane(name: EventName = A) -> None:
    event = telemetry.event(name)
    if event.skip is None or not event.skip():
        if event.series is not None:
            event.series["label",](1)
        if event.mapped:
            event.emit_mapped({"n": 1}, {})


WAYS = [by_execute, by_emit, in_steps, by_lane]


def few(times: int, rate: int) -> range:
    """How many of *times* executions may be emitted if one in *rate* is: within five standard deviations."""
    deviation = (times * (1 / rate) * (1 - 1 / rate)) ** 0.5
    return range(round(times / rate - 5 * deviation), round(times / rate + 5 * deviation) + 1)


# -- allow and deny -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "deny", "emitted"),
    [
        (None, None, [A, B]),
        (None, ["f.a"], [B]),
        (None, ["f.*"], []),
        (None, ["f"], [A, B]),
        (None, ["?.a", "F.A.B"], [B]),
        (["f.a"], None, [A]),
        (["f.*"], ["f.a.*"], [A]),
        (["*"], ["*.b"], [A]),
        (["pool.*"], None, []),
        ([], None, []),
        (("f.[ab]", "f.a.b"), {"pool.*"}, [A, B]),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_an_event_is_emitted_if_it_is_allowed_and_not_denied(
    allow: Any, deny: Any, emitted: list[EventName], way: Callable[[EventName], None]
) -> None:
    received = {name: Counted(name, handler_id=".".join(name)) for name in (A, B)}
    telemetry.configure(allow=allow, deny=deny)
    with telemetry.capture(("f",)) as events:
        for name in received:
            way(name)
    for name in received:
        way(name)
    assert [event.name for event in events] == emitted
    assert {name: handler.count for name, handler in received.items()} == {A: 2 * (A in emitted), B: 2 * (B in emitted)}
    assert [name for name in received if telemetry.weight(name)] == emitted
    assert [name for name in received if telemetry.event(name).on] == emitted


@pytest.mark.parametrize("lane", [False, True])
def test_a_denied_event_is_like_one_without_handlers(lane: bool) -> None:
    Counted(lane=lane)
    event = telemetry.event(A)
    telemetry.configure(deny=["f.*"])
    assert (event.on, event.skip, event.series, event.mapped) == (False, None, None, False)
    assert event.emit is event.emit_all is event.emit_mapped is telemetry.event(("f", "without handlers")).emit
    assert A not in bus._table
    assert [handler.id for handler in telemetry.list_handlers(A)] == ["counted"]


def test_filters_can_be_changed_at_any_time_and_apply_to_handlers_that_come_later() -> None:
    telemetry.configure(deny=["f.a"])
    received = Counted()
    by_execute()
    telemetry.configure()
    by_execute()
    telemetry.configure(allow=["f.a.b"])
    by_execute()
    telemetry.configure(allow=["f.a"])
    by_execute()
    assert received.count == 2


def test_filters_can_be_read_and_changed_only_by_configure() -> None:
    assert telemetry.filters() == telemetry.Filters(("*",), (), {}) == telemetry.Filters()
    deny, sample = ["f.a"], {"f.b": 2}
    telemetry.configure(["f.*"], deny, sample)
    deny.append("f.*")
    sample["f.c"] = 3
    assert telemetry.filters() == (("f.*",), ("f.a",), {"f.b": 2})
    with pytest.raises(TypeError):
        telemetry.filters().sample["f.b"] = 3  # type: ignore[index]
    telemetry.configure()
    assert telemetry.filters() == telemetry.Filters()


def test_failures_and_filter_changes_are_always_emitted() -> None:
    own = [HANDLER_FAILURE, telemetry.FILTER]
    telemetry.configure(allow=[], deny=["*", "telemetry.*"], sample={"*": 1000})
    assert [telemetry.weight(name) for name in own] == [1, 1]
    with telemetry.capture() as events:
        for name in own:
            telemetry.execute(name, {})
        telemetry.configure(sample={"*": 1000, "telemetry.*": 1000})
        for name in own * 10:
            telemetry.execute(name, {})
    assert [event.name for event in events] == [*own, telemetry.FILTER, *own * 10]


# -- sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 2, 10, 300])
@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_one_execution_in_n_is_emitted_to_all_handlers_alike(way: Callable[[], None], lane: bool, rate: int) -> None:
    first, second = Counted(lane=lane), Counted(handler_id="second")
    telemetry.configure(sample={"f.a": rate})
    times = 100 * rate
    for _ in range(times):
        way()
    assert first.count in few(times, rate)
    assert second.count == first.count
    assert telemetry.weight(A) == rate


@pytest.mark.parametrize("way", WAYS)
def test_capture_receives_what_handlers_receive(way: Callable[[], None]) -> None:
    received = Counted(lane=True)
    telemetry.configure(sample={"f.*": 4})
    with telemetry.capture(A) as events:
        for _ in range(2000):
            way()
    assert received.count == len(events)
    assert len(events) in few(2000, 4)


def test_each_of_a_series_has_the_same_chance_whatever_the_rhythm_of_the_load() -> None:
    received: list[int] = []
    telemetry.attach("phases", A, lambda _name, measurements, *_: received.append(int(measurements["n"]) % 10))
    telemetry.configure(sample={"f.a": 10})
    for n in range(20_000):
        telemetry.execute(A, {"n": n})
    assert all(received.count(phase) in few(2000, 10) for phase in range(10))


@pytest.mark.slow
@pytest.mark.gate
def test_sampling_goes_on_as_it_should_while_handlers_come_and_go() -> None:
    received = Counted()
    telemetry.configure(sample={"f.a": 5})
    for number in range(5000):
        by_emit()
        if not number % 2:
            telemetry.attach("passing", B, print)
            telemetry.detach("passing")
    assert received.count in few(5000, 5)


@pytest.mark.parametrize(
    ("sample", "weight"),
    [({"f.*": 3, "f.a": 7}, 3), ({"f.a": 7, "f.*": 3}, 7), ({"f.a": 1, "*": 3}, 1), ({"f": 3, "f.b": 3}, 1)],
)
def test_the_first_pattern_that_matches_counts(sample: dict[str, int], weight: int) -> None:
    telemetry.configure(sample=sample)
    assert telemetry.weight(A) == weight
    telemetry.configure(deny=["f.a"], sample=sample)
    assert telemetry.weight(A) == 0


def test_weight_takes_the_name_of_an_event() -> None:
    with pytest.raises(TypeError, match="a tuple of non-empty strings"):
        telemetry.weight("pool.ready")  # type: ignore[arg-type]


async def test_the_events_of_a_pool_can_be_sampled_each_by_itself() -> None:
    names = ["pool.operation.start", "pool.worker.checkout", "pool.worker.checkin", "pool.operation.stop"]
    lane = Counted(OPERATION_STOP.name, lane=True)
    telemetry.configure(sample=dict.fromkeys(names, 3), deny=["pool.worker.transition"])
    with telemetry.capture(("pool",)) as events:
        async with ops_pool() as pool:
            for _ in range(300):
                await pool.run("echo", 1)
    telemetry.detach("counted")
    emitted = words(events)
    assert all(emitted.count(name) in few(300, 3) for name in names)
    assert lane.count == emitted.count("pool.operation.stop")
    assert "pool.worker.transition" not in emitted
    assert emitted.count("pool.init") == emitted.count("pool.terminate") == 1


# -- counting all the same ----------------------------------------------------------------------------------------


class Reader:
    """Counts executions of A as the docstring of `configure` describes."""

    def __init__(self) -> None:
        self.total = self._received = 0
        self._weight: int | None = None
        telemetry.attach("reader", A, self._receive)
        telemetry.attach("reader.filter", telemetry.FILTER, self._close)

    def _receive(self, *_args: Any) -> None:
        self._received += 1

    def _close(self, *_args: Any) -> None:
        self.count()
        self._weight = None

    def count(self) -> None:
        if self._weight is None:
            self._weight = telemetry.weight(A)
        self.total += self._received * self._weight
        self._received = 0


def test_a_handler_that_uses_weights_counts_right_across_changes() -> None:
    reader, received, expected = Reader(), Counted(), 0
    for rate in [1, 10, 4, 0, 1, 25, 0, 3]:
        telemetry.configure(deny=[] if rate else ["f.a"], sample={"f.a": rate} if rate else None)
        before = received.count
        for number in range(1000):
            by_execute()
            if number == 500:
                reader.count()
        expected += (received.count - before) * rate
    telemetry.configure()
    telemetry.detach("reader.filter")
    assert reader.total == expected
    assert expected == pytest.approx(6000, rel=0.1)


def test_a_change_is_emitted_just_before_it_takes_effect() -> None:
    weights: list[int] = []
    telemetry.attach("f.filter", telemetry.FILTER, lambda *_args: weights.append(telemetry.weight(A)))
    try:
        with telemetry.capture(telemetry.FILTER) as events:
            for rate in (2, 3):
                telemetry.configure(["f.a", "pool.*"], ["f.b"], {"f.a": rate, "f.*": 5})
                assert telemetry.weight(A) == rate
            telemetry.configure()
    finally:
        telemetry.detach("f.filter")
    assert weights == [1, 2, 3]
    assert [event.metadata for event in events] == [
        {"allow": "f.a, pool.*", "deny": "f.b", "sample": "f.a=2, f.*=5"},
        {"allow": "f.a, pool.*", "deny": "f.b", "sample": "f.a=3, f.*=5"},
        {"allow": "*", "deny": "", "sample": ""},
    ]
    for event in events:
        assert CATALOGUE[telemetry.FILTER].problems(event.measurements, event.metadata) == []


def test_changes_from_other_threads_lose_no_event_that_is_never_filtered() -> None:
    received, stop, errors = Counted(), threading.Event(), []

    def churn(number: int) -> None:
        try:
            while not stop.is_set():
                telemetry.configure(deny=[f"g.{number}"], sample={"f.a.b": 2})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        by_execute()
        by_emit()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert received.count == 6000


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"allow": "pool.*"}, TypeError, "allow='pool.*': needs a list of patterns, such as ['pool.worker.*']"),
        ({"deny": b"pool"}, TypeError, "deny=b'pool': needs a list"),
        ({"deny": {"pool.*": 1}}, TypeError, "deny={'pool.*': 1}: needs a list"),
        ({"deny": 3}, TypeError, "deny=3: needs a list"),
        ({"allow": ["f.*", ("f", "a")]}, TypeError, "allow[1]=('f', 'a'): needs a dotted name as text"),
        ({"deny": [""]}, ValueError, "deny[0]='': needs a dotted name"),
        ({"sample": ["f.a"]}, TypeError, "sample=['f.a']: needs a mapping from pattern to rate"),
        ({"sample": {A: 2}}, TypeError, "a key of sample=('f', 'a'): needs a dotted name as text"),
        ({"sample": {"": 2}}, ValueError, "a key of sample='': needs a dotted name"),
        (
            {"sample": {"f.a": 0}},
            ValueError,
            "sample['f.a']=0: needs 1 (all are emitted) to 1000000; to emit none, put",
        ),
        ({"sample": {"f.a": -1}}, ValueError, "sample['f.a']=-1: needs 1"),
        ({"sample": {"f.a": 10**400}}, ValueError, "to 1000000"),
        (
            {"sample": {"f.a": 0.1}},
            TypeError,
            "sample['f.a']=0.1: needs a whole number n: one execution in n is emitted",
        ),
        ({"sample": {"f.a": True}}, TypeError, "sample['f.a']=True: needs a whole number"),
        ({"sample": {"f.a": "10"}}, TypeError, "sample['f.a']='10': needs a whole number"),
    ],
)
def test_an_invalid_filter_is_refused_in_words_and_changes_nothing(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    telemetry.configure(deny=["f.a"])
    with telemetry.capture() as events, pytest.raises(error) as raised:
        telemetry.configure(**{"allow": ["f.*"], "sample": {"f.a": 2}, **arguments})
    assert text in str(raised.value)
    assert events == []
    assert telemetry.filters() == (("*",), ("f.a",), {})


def test_a_pattern_may_match_no_event() -> None:
    telemetry.configure(deny=["my.own.event"], sample={"no.such.event": 10})
    assert telemetry.weight(("my", "own", "event")) == 0
    assert telemetry.weight(("no", "such", "event")) == 10
