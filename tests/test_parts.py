"""Parts of the monitor that misbehave: each is reported and tried again or left, and nothing else notices."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from msgspec import Struct

from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, OtlpConfig, ServiceConfig
from pool_monitor.errors import ConfigError
from pool_monitor.events import CATALOGUE
from pool_monitor.part_table import PARTS, PartEntry
from pool_monitor.parts import SLICE_S, Limits, PartUnavailable, in_slices, raise_if_ended
from pool_monitor.snapshot import HistoryView, MonitorView, OtlpView
from pool_monitor.telemetry import CapturedEvent
from tests.helpers.support import eventually, ops_pool
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("no_leaks")
QUIET = MonitorConfig(service=ServiceConfig(socket=False))
SHORT = Limits(enter=0.2, leave=0.2, cancel=0.2, sync=0.02, slow=2, pause=0.01, pause_max=0.04)
VIEW = OtlpView(endpoint="x", exported=1, failed=0, rejected=0, last_error=None)
NEVER = 3600.0


class Fine:
    """A part as it should be, and what was done with it."""

    def __init__(self, made: list[Fine] | None = None) -> None:
        self.done: list[str] = []
        if made is not None:
            made.append(self)

    async def __aenter__(self) -> Self:
        self.done.append("enter")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.done.append("leave")

    def view(self) -> Struct | None:
        return VIEW

    def tick(self) -> None:
        self.done.append("tick")


class Neighbour(Fine):
    def view(self) -> Struct | None:
        return HistoryView(path="x", degraded=None, held=0, dropped=0, file_bytes=1, size_limit=1, flush_seconds=None)


def entry(name: str, *made: Fine | type[Fine], limits: Limits = SHORT, keep: list[Any] | None = None) -> PartEntry:
    """A part that is one of *made* after the other, the last for ever."""
    left = list(made)

    def make(_config: Any, _context: Any) -> Any:
        one = left.pop(0) if len(left) > 1 else left[0]
        part = one() if isinstance(one, type) else one
        if keep is not None:
            keep.append(part)
        return part

    view = {"otlp": OtlpView, "history": HistoryView}.get(name)
    return PartEntry(name, view, lambda _config: True, make, limits=limits)


@contextmanager
def parts(monkeypatch: pytest.MonkeyPatch, *entries: PartEntry) -> Iterator[list[CapturedEvent]]:
    monkeypatch.setattr("pool_monitor.monitor.PARTS", entries)
    with telemetry.capture(("monitor", "degrade")) as events:
        yield events
    for event in events:
        assert CATALOGUE[event.name].problems(event.measurements, event.metadata) == []


def states(events: Sequence[CapturedEvent], part: str = "otlp") -> list[str]:
    return [event.metadata["state"] for event in events if event.metadata["part"] == part]


def fast(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.002)
    return monitor


# -- the table ----------------------------------------------------------------------------------------------------


def test_every_view_of_a_part_is_a_field_of_the_monitor_view_of_its_type():
    from pool_monitor.config.validation import hints

    fields = hints(MonitorView)
    for part in PARTS:
        assert part.view is None or fields[part.name] == part.view | None
    assert len({part.name for part in PARTS}) == len(PARTS)


async def test_parts_are_left_in_the_opposite_order(monkeypatch: pytest.MonkeyPatch):
    order: list[tuple[str, str]] = []

    def noting(name: str) -> type[Fine]:
        class Noting(Fine):
            async def __aenter__(self) -> Self:
                order.append((name, "enter"))
                return self

            async def __aexit__(self, *_: object) -> None:
                order.append((name, "leave"))

        return Noting

    with parts(monkeypatch, entry("a", noting("a")), entry("b", noting("b"))) as events:
        async with Monitor(Gauges(), config=QUIET):
            pass
    assert order == [("a", "enter"), ("b", "enter"), ("b", "leave"), ("a", "leave")]
    assert events == []


async def test_a_part_is_ticked_and_shown_while_the_monitor_is_entered(monkeypatch: pytest.MonkeyPatch):
    part = Fine()
    with parts(monkeypatch, entry("otlp", part)) as events:
        async with fast(Monitor(Gauges(), config=QUIET), monkeypatch) as monitor:
            await eventually(lambda: part.done.count("tick") > 2)
            assert monitor.snapshot().monitor.otlp == VIEW
        assert monitor.snapshot().monitor.otlp is None
    assert (part.done[0], part.done[-1]) == ("enter", "leave")
    assert events == []


# -- hostile parts ------------------------------------------------------------------------------------------------


class RaisesEntering(Fine):
    async def __aenter__(self) -> Self:
        raise RuntimeError("no way in")


class HangsEntering(Fine):
    async def __aenter__(self) -> Self:
        await asyncio.sleep(NEVER)
        return self


class CancelsItself(Fine):
    async def __aenter__(self) -> Self:
        raise asyncio.CancelledError


class EndsEntering(Fine):
    async def __aenter__(self) -> Self:
        raise GeneratorExit


class RaisesTicking(Fine):
    error: type[BaseException] = RuntimeError

    def tick(self) -> None:
        raise self.error("no tick")


class CancelsTicking(RaisesTicking):
    error = asyncio.CancelledError


class TicksSlowly(Fine):
    def tick(self) -> None:
        time.sleep(0.03)


class FailsBehind(Fine):
    """Its background task ends with an error."""

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.work())
        return self

    async def work(self) -> None:
        raise OSError("gone")

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait([self.task])

    def tick(self) -> None:
        raise_if_ended(self.task)


class FailsInAGroup(Fine):
    """The same with a task group around all of its life."""

    async def __aenter__(self) -> Self:
        self.group = await asyncio.TaskGroup().__aenter__()
        self.group.create_task(self.work())
        return self

    async def work(self) -> None:
        raise OSError("gone")

    async def __aexit__(self, *_: object) -> None:
        await self.group.__aexit__(None, None, None)


class RaisesAtTwoEnds(RaisesTicking):
    async def __aexit__(self, *_: object) -> None:
        raise RuntimeError("no way out")


class HangsWhenFailed(RaisesTicking):
    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(NEVER)


FAILING = [
    (RaisesEntering, "RuntimeError: no way in"),
    (HangsEntering, "it could not be started within 0.2 s"),
    (CancelsItself, "its task was ended by CancelledError"),
    (EndsEntering, "its task was ended by GeneratorExit"),
    (RaisesTicking, "RuntimeError: no tick"),
    (CancelsTicking, "CancelledError: no tick"),
    (TicksSlowly, "and blocks the event loop for that long"),
    (FailsBehind, "OSError: gone"),
    (FailsInAGroup, "ExceptionGroup: unhandled errors in a TaskGroup"),
    (RaisesAtTwoEnds, "RuntimeError: no tick"),
    (HangsWhenFailed, "RuntimeError: no tick"),
]


@pytest.mark.parametrize(("kind", "reason"), FAILING, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_part_that_fails_is_reported_once_and_works_again(monkeypatch, kind, reason):
    neighbour, second = Neighbour(), Fine()
    made: list[Any] = []
    with parts(monkeypatch, entry("history", neighbour), entry("otlp", kind, kind, second, keep=made)) as events:
        gauges = Gauges()
        async with fast(Monitor(gauges, config=QUIET), monkeypatch) as monitor:
            await eventually(lambda: "recovered" in states(events), timeout=10.0)
            assert monitor.snapshot().monitor.otlp == VIEW
            assert len(made) == 3
            ticks = neighbour.done.count("tick")
            await eventually(lambda: neighbour.done.count("tick") > ticks)
            assert monitor.snapshot().monitor.history == neighbour.view()
            gauges.call()
            assert monitor.snapshot().pools["other"].total.calls == 1
            assert await monitor.ticked()
    assert states(events)[:2] == ["degraded", "recovered"]
    assert reason in events[0].metadata["reason"]
    assert states(events, "history") == []
    assert neighbour.done[-1] == second.done[-1] == "leave"


async def test_a_part_that_never_works_holds_nothing_up_and_is_reported_once(monkeypatch, caplog):
    made: list[Any] = []
    async with ops_pool() as pool:
        with parts(monkeypatch, entry("otlp", RaisesEntering, keep=made)) as events:
            async with fast(Monitor(pool, config=QUIET), monkeypatch) as monitor:
                await eventually(lambda: len(made) > 5)
                assert await pool.run("echo", 1) == 1
                assert monitor.snapshot().pools["ops"].total.calls == 1
        assert states(events) == ["degraded"]
        assert await pool.run("echo", 2) == 2
    traceback, summary = (record.getMessage() for record in caplog.records)
    assert "a part of the monitor failed part='otlp'" in traceback
    assert "in __aenter__" in traceback
    assert summary == "otlp degraded reason='RuntimeError: no way in'"


async def test_the_pauses_between_tries_grow_to_their_limit(monkeypatch):
    at: list[float] = []

    class Late(RaisesEntering):
        def __init__(self) -> None:
            super().__init__()
            at.append(asyncio.get_running_loop().time())

    limits = SHORT._replace(pause=0.02, pause_max=0.08)
    with parts(monkeypatch, entry("otlp", Late, limits=limits)):
        async with Monitor(Gauges(), config=QUIET):
            await eventually(lambda: len(at) > 4)
    pauses = [later - sooner for sooner, later in itertools.pairwise(at)]
    assert all(pause >= least * 0.9 for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.08), strict=False))


@pytest.mark.parametrize("error", [RuntimeError("no view"), asyncio.CancelledError("no view"), GeneratorExit()])
async def test_a_part_whose_view_fails_goes_on_without_one(monkeypatch, error):
    class Hidden(Fine):
        hidden = True

        def view(self) -> Struct | None:
            if self.hidden:
                raise error
            return VIEW

    part = Hidden()
    with parts(monkeypatch, entry("otlp", part)) as events:
        async with fast(Monitor(Gauges(), config=QUIET), monkeypatch) as monitor:
            for _ in range(3):
                assert monitor.snapshot().monitor.otlp is None
            assert states(events) == ["degraded"]
            await eventually(lambda: part.done.count("tick") > 2)
            part.hidden = False
            await eventually(lambda: monitor.snapshot().monitor.otlp == VIEW)
    assert states(events) == ["degraded", "recovered"]
    assert part.done.count("enter") == 1


@pytest.mark.parametrize("view", ["a text", 5, Neighbour().view(), msgspec.structs.replace(VIEW, failed="many")])
async def test_a_view_of_another_type_costs_no_snapshot(monkeypatch, view):
    class Odd(Fine):
        def view(self) -> Any:
            return view

    with parts(monkeypatch, entry("otlp", Odd)) as events:
        async with Monitor(Gauges(), config=QUIET) as monitor:
            snapshot = monitor.snapshot()
            assert (snapshot.monitor.otlp, list(snapshot.pools)) == (None, ["other"])
    assert states(events) == ["degraded"]


async def test_a_slow_view_is_not_asked_for_at_every_snapshot(monkeypatch):
    class Slow(Fine):
        asked = 0

        def view(self) -> Struct | None:
            self.asked += 1
            time.sleep(0.03)
            return VIEW

    part = Slow()
    with parts(monkeypatch, entry("otlp", part, limits=SHORT._replace(pause=60.0))) as events:
        async with Monitor(Gauges(), config=QUIET) as monitor:
            for _ in range(5):
                monitor.snapshot()
    assert part.asked == 2  # as often as it takes to be sure
    assert states(events) == ["degraded"]


async def test_one_slow_tick_is_no_failure(monkeypatch):
    class Once(Fine):
        def tick(self) -> None:
            super().tick()
            if self.done.count("tick") == 1:
                time.sleep(0.03)

    part = Once()
    limits = SHORT._replace(slow=50)  # a busy machine makes some of its own
    with parts(monkeypatch, entry("otlp", part, limits=limits)) as events:
        async with fast(Monitor(Gauges(), config=QUIET), monkeypatch):
            await eventually(lambda: part.done.count("tick") > 4)
    assert events == []
    assert part.done.count("enter") == 1


class RaisesLeaving(Fine):
    async def __aexit__(self, *_: object) -> None:
        raise RuntimeError("no way out")


class HangsLeaving(Fine):
    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(NEVER)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(RaisesLeaving, "RuntimeError: no way out"), (HangsLeaving, "it could not be stopped within 0.2 s")],
)
async def test_a_part_that_cannot_be_left_does_not_keep_the_monitor(monkeypatch, kind, reason):
    neighbour = Neighbour()
    with parts(monkeypatch, entry("history", neighbour), entry("otlp", kind)) as events:
        async with asyncio.timeout(5):
            async with Monitor(Gauges(), config=QUIET):
                pass
    [event] = events
    assert (event.metadata["part"], event.metadata["reason"]) == ("otlp", reason)
    assert [did for did in neighbour.done if did != "tick"] == ["enter", "leave"]


async def test_a_part_that_ignores_its_cancellation_stays_behind_and_no_second_one_is_made(monkeypatch):
    released = asyncio.Event()
    made: list[Any] = []

    class Stubborn(Fine):
        async def __aenter__(self) -> Self:
            while not released.is_set():
                with suppress(asyncio.CancelledError):
                    await released.wait()
            return await super().__aenter__()

    second = Fine()
    with parts(monkeypatch, entry("otlp", Stubborn, second, keep=made)) as events:
        async with fast(Monitor(Gauges(), config=QUIET), monkeypatch) as monitor:
            await asyncio.sleep(0.1)
            assert len(made) == 1
            assert await monitor.ticked()
            released.set()
            await eventually(lambda: "recovered" in states(events))
    assert made[0].done == ["enter", "leave"]
    assert second.done[-1] == "leave"


async def test_a_wrong_configuration_of_a_part_is_raised_and_leaves_nothing(monkeypatch):
    neighbour = Neighbour()

    class Misconfigured(Fine):
        async def __aenter__(self) -> Self:
            raise ConfigError("no such colour")

    both = entry("history", neighbour), entry("otlp", Misconfigured)
    with parts(monkeypatch, *both) as events, pytest.raises(ConfigError, match="no such colour"):
        async with Monitor(Gauges(), config=QUIET):
            pass
    assert neighbour.done == ["enter", "leave"]
    assert events == []


async def test_a_reason_of_its_own_is_logged_without_a_traceback(monkeypatch, caplog):
    class Closed(Fine):
        async def __aenter__(self) -> Self:
            raise PartUnavailable("closed on Sundays")

    with parts(monkeypatch, entry("otlp", Closed)):
        async with Monitor(Gauges(), config=QUIET):
            pass
    [record] = caplog.records
    assert record.getMessage() == "otlp degraded reason='closed on Sundays'"


async def test_cancelled_while_a_part_hangs_on_leaving_the_monitor_is_left(monkeypatch):
    leaving = asyncio.Event()

    class Hangs(Fine):
        async def __aexit__(self, *_: object) -> None:
            leaving.set()
            await asyncio.sleep(NEVER)

    async def use() -> None:
        async with Monitor(Gauges(), config=QUIET):
            pass

    with parts(monkeypatch, entry("otlp", Hangs, limits=Limits())):
        task = asyncio.create_task(use())
        await leaving.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancelled_while_a_part_is_entered_the_monitor_leaves_nothing(monkeypatch):
    entering = asyncio.Event()

    class Hangs(Fine):
        async def __aenter__(self) -> Self:
            entering.set()
            await asyncio.sleep(NEVER)
            return self

    async def use() -> None:
        async with Monitor(Gauges(), config=QUIET):
            pass

    with parts(monkeypatch, entry("otlp", Hangs, limits=Limits())):
        task = asyncio.create_task(use())
        await entering.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_part_that_hangs_when_it_is_tried_again_does_not_keep_the_monitor(monkeypatch):
    made: list[Any] = []
    limits = SHORT._replace(enter=30.0, leave=30.0)
    with parts(monkeypatch, entry("otlp", RaisesTicking, HangsEntering, limits=limits, keep=made)) as events:
        async with fast(Monitor(Gauges(), config=QUIET), monkeypatch):
            await eventually(lambda: len(made) == 2)
            began = time.monotonic()
        assert time.monotonic() - began < 5.0
    assert states(events) == ["degraded"]


async def test_entered_again_the_monitor_reports_again(monkeypatch):
    with parts(monkeypatch, entry("otlp", RaisesEntering, limits=SHORT._replace(pause=60.0))) as events:
        monitor = Monitor(Gauges(), config=QUIET)
        for _ in range(2):
            async with monitor:
                pass
    assert states(events) == ["degraded", "degraded"]


# -- the parts there are ------------------------------------------------------------------------------------------


async def test_an_otlp_outage_is_reported_when_it_begins_and_when_it_is_over():
    answers = [503, 500, 503, 200, 200]

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        status = answers.pop(0) if answers else 200
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = MonitorConfig(
            service=ServiceConfig(socket=False), otlp=OtlpConfig(endpoint=f"http://127.0.0.1:{port}", interval=0.02)
        )
        with telemetry.capture(("monitor", "degrade")) as events, pytest.MonkeyPatch.context() as patch:
            patch.setattr("pool_monitor.export.otlp._BACKOFF_FIRST", 0.02)
            async with Monitor(Gauges("texts"), config=config) as monitor:
                await eventually(lambda: (view := monitor.snapshot().monitor.otlp) and view.exported >= 2)
    assert states(events) == ["degraded", "recovered"]
    assert f"http://127.0.0.1:{port}" in events[0].metadata["reason"]
    assert "the receiver answered 503" in events[0].metadata["reason"]
    assert "succeed again" in events[1].metadata["reason"]


async def test_a_socket_is_opened_once_it_can_be(tmp_path, monkeypatch):
    place = tmp_path / "run"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(place))
    [socket] = [part for part in PARTS if part.name == "socket"]
    with parts(monkeypatch, socket._replace(limits=SHORT._replace(enter=5.0, leave=5.0, sync=5.0))) as events:
        async with fast(Monitor(Gauges()), monkeypatch) as monitor:
            assert monitor.address is None
            place.chmod(0o700)
            await eventually(lambda: monitor.address is not None)
            await eventually(lambda: states(events, "socket") == ["degraded", "recovered"])
    assert monitor.address is None
    assert list(place.iterdir()) == []


async def test_a_socket_whose_directory_is_cleared_is_opened_anew(tmp_path, monkeypatch):
    place = tmp_path / "run"
    monkeypatch.setenv("POOL_MONITOR_RUNTIME_DIR", str(place))
    [socket] = [part for part in PARTS if part.name == "socket"]
    with parts(monkeypatch, socket._replace(limits=SHORT._replace(enter=5.0, leave=5.0, sync=5.0))) as events:
        async with fast(Monitor(Gauges()), monkeypatch) as monitor:
            assert monitor.address is not None
            shutil.rmtree(place)
            place.touch()  # and something else is in its way
            await eventually(lambda: monitor.address is None)
            assert "dashboards cannot attach" in events[0].metadata["reason"]
            place.unlink()
            await eventually(lambda: monitor.address is not None and monitor.address.is_socket())
            await eventually(lambda: states(events, "socket") == ["degraded", "recovered"])
    assert list(place.iterdir()) == []


async def test_the_modules_of_a_part_are_imported_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports take a tenth of a second, for which the event loop must not stand still."""
    (tmp_path / "slow_part.py").write_text("import threading\nthread = threading.current_thread().name\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pool_monitor.monitor.PARTS", [entry("otlp", Fine)._replace(modules=("slow_part",))])
    try:
        async with Monitor(Gauges(), config=QUIET) as monitor:
            assert monitor.snapshot().monitor.otlp == VIEW
        assert sys.modules["slow_part"].thread != threading.main_thread().name
    finally:
        sys.modules.pop("slow_part", None)


def test_what_a_part_imports_is_named() -> None:
    """Otherwise the import happens in the event loop."""
    assert all(part.modules and all(map(find_spec, part.modules)) for part in PARTS)


async def test_long_work_in_slices_lets_others_work_and_is_told_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    used, told, seen = 0.0, [], []
    monkeypatch.setattr("pool_monitor.parts.time.thread_time", lambda: used)

    async def other() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    async for item in in_slices(range(6), told.append):
        seen.append(item)
        used += 0.6 * SLICE_S
    beside.cancel()
    assert seen == [0, 1, "other", 2, 3, "other", 4, 5]
    assert told == [pytest.approx(1.2 * SLICE_S)] * 3
