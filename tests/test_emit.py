"""The functions that emit the events of the catalogue, and the timing of calls of a pool of another package."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

import pytest

from pool_monitor import Monitor, PoolSaturated, emit, telemetry
from pool_monitor.emit import PoolIdentity
from pool_monitor.events import CATALOGUE
from pool_monitor.snapshot import PoolView, WorkerView

OURS = PoolIdentity.new("renders")
VALUES = {"int": 3, "str": "text", "int | None": 4, "str | None": "more", "Mapping[str, Any]": {}}
VALUES |= {"Category": "resource", "Severity": "warning"}
EMITTERS = [
    function
    for name, function in inspect.getmembers(emit, inspect.isfunction)
    if function.__module__ == emit.__name__
    and "pool: PoolIdentity" in str(inspect.signature(function)).replace("'", "")
]
EVENTS = [function for function in EMITTERS if (function.__doc__ or "").startswith("Emit ``")]


def arguments(function, *, all_of_them: bool) -> dict[str, object]:
    given = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if all_of_them or parameter.default is inspect.Parameter.empty:
            given[name] = VALUES[str(parameter.annotation)]
    return given


@pytest.mark.parametrize("all_of_them", [True, False])
@pytest.mark.parametrize("function", EVENTS, ids=lambda function: function.__name__)
def test_each_function_emits_its_event_as_the_catalogue_has_it(function, all_of_them: bool) -> None:
    with telemetry.capture() as events:
        function(OURS, **arguments(function, all_of_them=all_of_them))
    [event] = events
    assert f"``{'.'.join(event.name)}``" in function.__doc__
    assert CATALOGUE[event.name].problems(event.measurements, event.metadata) == []
    assert (event.metadata["pool"], event.metadata["pool_instance"]) == OURS


def test_every_event_of_a_pool_has_a_function_except_those_of_its_calls() -> None:
    emitted = {function.__doc__.split("``")[1] for function in EVENTS}
    of_pools = {spec.dotted for spec in CATALOGUE.values() if spec.name[0] == "pool" and "pool" in spec.metadata}
    of_calls = {"pool.retry", "pool.queue.reject", "pool.worker.checkout", "pool.worker.checkin"}
    of_calls |= {f"pool.operation.{end}" for end in ("start", "stop", "exception")}
    assert emitted == of_pools - of_calls


def test_identities_of_one_name_differ() -> None:
    made = {PoolIdentity.new("p") for _ in range(1000)}
    assert len(made) == 1000
    assert {identity.name for identity in made} == {"p"}


class Renders:
    """A pool of another package: it has gauges, and emits its calls with the functions of `emit`."""

    name, instance = OURS

    def status(self) -> PoolView:
        counts = dict.fromkeys(("busy", "idle", "starting", "draining", "dead", "waiting", "queue_limit"), 0)
        return PoolView(name=self.name, state="running", size=1, sessions=0, restarts=0, completed=0, **counts)

    def workers(self) -> list[WorkerView]:
        return []


async def test_a_pool_of_another_package_is_watched_with_a_few_lines() -> None:
    async with Monitor(Renders()) as monitor:
        with emit.operation(OURS, "draw", worker="renders-0"):
            await asyncio.sleep(0)
        with emit.operation(OURS, "draw") as timing:
            timing.begin("renders-1")
        with pytest.raises(ZeroDivisionError), emit.operation(OURS, "draw", worker="renders-1"):
            1 / 0  # noqa: B018
        with pytest.raises(asyncio.CancelledError), emit.operation(OURS, "draw", worker="renders-1"):
            raise asyncio.CancelledError
        with pytest.raises(PoolSaturated), emit.operation(OURS, "draw"):
            raise PoolSaturated("full", pool="renders", waited_s=0.0, waiting=1, size=1)
        found = monitor.snapshot("1m").pools["renders"]
    total = found.total
    assert (total.ok, total.errors, total.cancelled, total.rejected) == (2, 1, 1, 1)
    assert found.workers == {}  # the pool has no gauges of workers
    assert [(failure.error, failure.message, failure.worker) for failure in found.failures] == [
        ("ZeroDivisionError", "division by zero", "renders-1")
    ]


def test_the_events_of_a_timed_call_are_as_the_catalogue_has_them() -> None:
    with telemetry.capture(("pool",)) as events:
        for begins in (True, False):
            with emit.operation(OURS, "draw") as timing:
                if begins:
                    timing.begin("renders-7")
            with contextlib.suppress(KeyError), emit.operation(OURS, "draw") as timing:
                if begins:
                    timing.begin("renders-7")
                raise KeyError("no such page")
    ends = [event for event in events if event.name[-1] != "start"]
    assert [event.name[-1] for event in events] == ["start", "stop", "start", "exception"] * 2
    for event in events:
        assert CATALOGUE[event.name].problems(event.measurements, event.metadata) == []
    assert [event.metadata.get("worker") for event in ends] == ["renders-7", "renders-7", "renders-0", None]
    for event in ends:
        times = event.measurements
        parts = times["queue_duration"] + times.get("execution_duration", 0) + times.get("transport_duration", 0)
        assert 0 <= parts <= times["duration"]
    assert len({event.metadata["call_id"] for event in events}) == 4


class Nothing(Exception):
    def __len__(self) -> int:
        return 0


def test_an_error_that_is_not_true_is_an_error_all_the_same() -> None:
    with telemetry.capture(("pool",)) as events, pytest.raises(Nothing), emit.operation(OURS, "draw"):
        raise Nothing("why")
    assert [event.name[-1] for event in events] == ["start", "exception"]
    end = events[1]
    assert (end.measurements["queue_duration"], end.measurements["attempts"]) == (end.measurements["duration"], 0)
    assert "worker" not in end.metadata
