"""Faults: when each condition begins and ends, by a table of figures; the events; the bounds. Without processes."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import ResourcesConfig
from pool_monitor.emit import PoolIdentity
from pool_monitor.events import (
    LOOP_LAG,
    LOOP_RESUME,
    RESOURCE_HOST,
    RESOURCE_LIMIT,
    RESOURCE_LOOP,
    RESOURCE_PROCESS,
    RESOURCE_WORKER,
)
from pool_monitor.findings import CONDITIONS as FINDINGS
from pool_monitor.findings.resources import KINDS
from pool_monitor.resources.block_fault import innermost
from pool_monitor.resources.diagnosis import Diagnosis
from pool_monitor.resources.fault_states import (
    AGAIN_S,
    CALM_S,
    MACHINE,
    MOST,
    UNKNOWN_AFTER,
    Bounds,
    FaultBook,
    FaultChange,
    FaultState,
    Judged,
    Subject,
)
from pool_monitor.resources.faults import CONDITIONS, LAG_S, Condition, FaultWatch, execution_of
from pool_monitor.resources.orphans import Orphan
from pool_monitor.resources.proc import Identity
from pool_monitor.resources.sample import Execution, Moment, Slot
from pool_monitor.run_token import ServiceRun
from pool_monitor.snapshot import WorkerView
from tests.helpers.programs import ROOT

POOL = PoolIdentity("text", "i1")
WORDS = {"leak_reason": "its memory grows by 1 MiB a minute", "fd_leak_reason": "its descriptors grow by 3 a minute"}
GIB = 1024**3


def worker(**fields: Any) -> WorkerView:
    """Return the gauges of a slot that is free."""
    usual: dict[str, Any] = {
        "id": "text-0", "state": "ready", "state_age": 100.0, "pid": 41, "age": 200.0, "restarts": 0, "operation": None
    }  # fmt: skip
    return WorkerView(**{**usual, **fields})


def sample(about: str, figures: dict[str, Any], slot: dict[str, Any]) -> tuple[list[Slot], list[Execution]]:
    """Return the slots and events of a sample with *figures* of one subject."""
    slots = [Slot(POOL, worker(**slot))]
    if about == "worker":
        measured = {key: value for key, value in figures.items() if key not in {"state_letter", *WORDS}}
        metadata = {**POOL.worker("text-0"), "pid": 41, "missing": {}, "state_letter": figures.get("state_letter", "S")}
        metadata |= {key: figures[key] for key in WORDS if key in figures}
        return slots, [Execution(RESOURCE_WORKER, measured, metadata)]
    spec = {"host": RESOURCE_HOST, "process": RESOURCE_PROCESS}.get(about)
    return slots, [] if spec is None else [Execution(spec, figures, {"missing": {}, "pid": 1})]


def told(changes: list[FaultChange]) -> list[tuple[str, str, str]]:
    return [(change.state, change.kind, change.level) for change in changes]


class Samples:
    """A watch that takes a sample every *interval* seconds."""

    def __init__(self, interval: float = 1.0) -> None:
        self.watch, self.now, self.interval = FaultWatch(), 1000.0, interval

    def take(self, about: str, figures: dict[str, Any], slot: dict[str, Any] | None = None) -> list[FaultChange]:
        self.now += self.interval
        slots, executions = sample(about, figures, slot or {})
        return self.watch.judge(Moment(round(self.now * 1e9), slots), executions)


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # kind, about, the slot, figures of a warning or None, figures that are bad or None
    ("memory", "host", {}, {"memory_used": 71, "memory_total": 100}, {"memory_used": 86, "memory_total": 100}),
    ("cpu", "host", {}, {"cpu_ratio": 0.76}, {"cpu_ratio": 0.91}),
    ("throttled", "host", {}, {"throttled_ratio": 0.11}, {"throttled_ratio": 0.6}),
    ("disk", "host", {}, {"disk_free": 9, "disk_total": 100}, {"disk_free": 4, "disk_total": 100}),
    ("shm", "host", {}, {"shm_free": 19, "shm_total": 100}, {"shm_free": 9, "shm_total": 100}),
    ("fds", "host", {}, {"fds": 81, "fds_limit": 100}, {"fds": 91, "fds_limit": 100}),
    ("processes", "host", {}, {"processes": 81, "processes_limit": 100}, {"processes": 91, "processes_limit": 100}),
    ("fds", "process", {}, {"fds": 81, "fds_limit": 100}, {"fds": 91, "fds_limit": 100}),
    ("threads", "process", {}, {"user_threads": 81, "threads_limit": 100}, {"user_threads": 91, "threads_limit": 100}),
    ("zombie", "process", {}, {"zombies": 2, "zombie_duration": 11 * 10**9}, {}),
    ("memory", "worker", {"rss_limit": 100}, {"rss": 71}, {"rss": 86}),
    ("leak", "worker", {}, {**WORDS, "rss": 1, "leak_rate": 1.0, "time_to_limit_duration": 5 * 3600 * 10**9},
     {"rss": 1, "leak_rate": 1.0, "time_to_limit_duration": 60 * 10**9}),
    ("fds", "worker", {}, {"fds": 81, "fds_limit": 100}, {"fds": 91, "fds_limit": 100}),
    ("fd_leak", "worker", {}, {**WORDS, "fds": 1, "fds_to_limit_duration": 5 * 3600 * 10**9},
     {"fds": 1, "fds_to_limit_duration": 60 * 10**9}),
    ("hot_idle", "worker", {}, {"cpu_ratio": 0.9}, {}),
    ("zombie", "worker", {}, {"zombies": 1, "zombie_duration": 11 * 10**9}, {}),
    ("stopped", "worker", {}, {}, {"state_letter": "T"}),
]  # fmt: skip
FINE: dict[str, dict[str, Any]] = {
    "host": {
        "memory_used": 1, "memory_total": 100, "cpu_ratio": 0.1, "throttled_ratio": 0.0, "disk_free": 90,
        "disk_total": 100, "shm_free": 90, "shm_total": 100, "fds": 1, "fds_limit": 100, "processes": 1,
        "processes_limit": 100, "oom_kills": 3,
    },
    "process": {"fds": 1, "fds_limit": 100, "user_threads": 1, "threads_limit": 100, "zombies": 0},
    "worker": {"rss": 1, "fds": 1, "fds_limit": 100, "cpu_ratio": 0.0, "zombies": 0},
}  # fmt: skip


def hold_of(kind: str, about: str) -> float:
    return next(each.bounds.hold_s for each in CONDITIONS if (each.kind, each.about) == (kind, about))


@pytest.mark.parametrize(("kind", "about", "slot", "warn", "bad"), CASES)
@pytest.mark.parametrize("interval", [0.5, 1.0, 2.0])
def test_each_fault_is_reported_in_time_and_its_end_too(
    kind: str, about: str, slot: dict[str, Any], warn: dict[str, Any], bad: dict[str, Any], interval: float
) -> None:
    for level, figures in (("warn", warn), ("bad", bad)):
        if not figures:
            continue
        samples = Samples(interval)
        assert samples.take(about, FINE[about], slot) == []
        began, changes = samples.now, []
        while not changes:
            changes = samples.take(about, {**FINE[about], **figures}, slot)
            assert samples.now - began <= 2 * interval + hold_of(kind, about)
        assert told(changes) == [("reached", kind, level)]
        assert changes[0].reason
        assert samples.now - began >= hold_of(kind, about)
        assert told(samples.take(about, FINE[about], slot)) == [("left", kind, level)]
        assert samples.watch.book.open == 0


@pytest.mark.parametrize(("kind", "about", "slot", "warn", "bad"), CASES)
def test_the_playbook_has_the_reason_of_every_fault(
    kind: str, about: str, slot: dict[str, Any], warn: dict[str, Any], bad: dict[str, Any]
) -> None:
    table = (
        (ROOT / "docs" / "OPERATIONS_PLAYBOOK.md").read_text(encoding="utf-8").partition("| text on the screen |")[2]
    )
    cells = re.findall(r"^\| (.*?) \| .* \|$", table, re.MULTILINE)
    known = [words.strip() for cell in cells for words in re.split(r", | or |…", cell) if words.strip()]
    samples, changes = Samples(20.0), []
    while not changes:
        changes = samples.take(about, {**FINE[about], **(warn or bad)}, slot)
    assert any(words in changes[0].reason for words in known), changes[0].reason


def test_every_condition_is_in_the_cases() -> None:
    others = {("oom", "host"), ("lag", "loop"), ("crash_loop", "slot"), ("orphan", "orphan")}
    assert {(each.kind, each.about) for each in CONDITIONS} == {case[:2] for case in CASES} | others


def test_every_kind_of_fault_is_a_finding_once() -> None:
    kinds = {condition.kind for condition in CONDITIONS} | {"blocked"}
    assert set(KINDS) | {"crash_loop"} == kinds
    assert kinds <= FINDINGS.keys()


def test_processes_killed_for_want_of_memory_are_a_fault_for_a_minute() -> None:
    samples = Samples(10.0)
    samples.take("host", {"oom_kills": 3})
    changes = samples.take("host", {"oom_kills": 5})
    assert told(changes) == [("reached", "oom", "bad")]
    assert "2 processes" in changes[0].reason
    later = [samples.take("host", {"oom_kills": 5}) for _ in range(6)]
    assert [told(each) for each in later] == [[]] * 5 + [[("left", "oom", "bad")]]


def test_a_crash_loop_is_a_fault_of_the_slot_also_without_a_process() -> None:
    samples = Samples()
    slot = {"crash_loop": True, "pid": None, "restarts": 4}
    assert told(samples.take("slot", {}, slot)) == [("reached", "crash_loop", "bad")]
    assert samples.take("slot", {}, slot) == []
    assert told(samples.take("slot", {}, {})) == [("left", "crash_loop", "bad")]


def test_a_worker_on_calls_is_not_hot_while_idle() -> None:
    samples = Samples()
    busy = {"state": "busy", "state_age": 100.0}
    fresh = {"state_age": 0.5}
    for _ in range(15):
        assert samples.take("worker", {**FINE["worker"], "cpu_ratio": 1.0}, busy) == []
    for _ in range(15):
        assert samples.take("worker", {**FINE["worker"], "cpu_ratio": 1.0}, fresh) == []


def test_the_lag_is_judged_by_its_99th_percentile_of_30_seconds() -> None:
    samples = Samples()
    watch = samples.watch
    for nth in range(300):
        watch.add_lag(round((samples.now + nth / 10) * 1e9), 10**6)
    samples.now += 30
    assert samples.take("loop", {}) == []
    for nth in range(5):
        watch.add_lag(round((samples.now + nth / 10) * 1e9), 300 * 10**6)
    changes = samples.take("loop", {})
    assert told(changes) == [("reached", "lag", "warn")]
    assert "300 ms" in changes[0].reason
    for nth in range(300):
        watch.add_lag(round((samples.now + nth / 10) * 1e9), 10**6)
    samples.now += LAG_S
    assert told(samples.take("loop", {})) == [("left", "lag", "warn")]


def test_the_reason_of_a_lag_names_the_line_and_the_busy_machine() -> None:
    def reason(cpu_ratio: float, blocked_ago_s: float | None) -> str:
        samples = Samples()
        for _ in range(60):
            samples.watch.add_lag(round(samples.now * 1e9), 300 * 10**6)
        if blocked_ago_s is not None:
            samples.watch.add_block(round((samples.now - blocked_ago_s) * 1e9), "app.py:7 in work")
        found = samples.take("host", {**FINE["host"], "cpu_ratio": cpu_ratio})
        return next(change.reason for change in found if change.kind == "lag")

    assert reason(0.5, None) == "1 % of callbacks over 300 ms late"
    assert reason(0.5, LAG_S + 5) == reason(0.5, None)
    assert reason(0.5, 5).endswith("late, blocked in app.py:7 in work")
    assert reason(1.0, 5).endswith(", blocked in app.py:7 in work, 100 % of the processors are in use")


def test_a_cause_that_becomes_known_is_told_at_once_and_another_one_after_a_while() -> None:
    samples = Samples()

    def take(where: str = "") -> list[FaultChange]:
        if where:
            samples.watch.add_block(round(samples.now * 1e9), where)
        for _ in range(60):
            samples.watch.add_lag(round(samples.now * 1e9), 300 * 10**6)
        return samples.take("loop", {})

    assert told(take()) == [("reached", "lag", "warn")]
    assert take() == []
    changes = take("a.py:1 in f")
    assert told(changes) == [("changed", "lag", "warn")]
    assert "a.py:1 in f" in changes[0].reason
    assert take("b.py:2 in g") == []
    samples.now += AGAIN_S
    changes = take("b.py:2 in g")
    assert told(changes) == [("changed", "lag", "warn")]
    assert "b.py:2 in g" in changes[0].reason


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("", ""),
        ("no frame", ""),
        (
            '  File "a.py", line 1, in f\n    import b\n  File "<frozen importlib._bootstrap>", line 405, in g',
            "a.py:1 in f: import b",
        ),
        ('  File "/a/b.py", line 9, in main\n    work()\n  File "/c/d.py", line 3, in K.work', "d.py:3 in K.work"),
        ('  File "<string>", line ?, in f\n    x = 1', "<string>:? in f: x = 1"),
        (
            '  File "a.py", line 1, in f\n  ... 70 more frames ...\n  File "b.py", line 2, in g\n    g()',
            "b.py:2 in g: g()",
        ),
    ],
)
def test_the_innermost_frame_is_told_in_a_few_words(stack: str, words: str) -> None:
    assert innermost(stack) == words


def test_the_reason_of_a_full_disk_names_its_folder() -> None:
    slots, [(spec, figures, metadata)] = sample("host", {**FINE["host"], "disk_free": 1}, {})
    executions = [Execution(spec, figures, {**metadata, "disk_path": "/srv/var"})]
    [change] = FaultWatch().judge(Moment(10**9, slots), executions)
    assert change.reason.startswith("disk of /srv/var: 1 B of 100 B free")


def test_few_measurements_of_the_lag_are_not_judged() -> None:
    samples = Samples()
    for nth in range(10):
        samples.watch.add_lag(round((samples.now + nth / 10) * 1e9), 5 * 10**9)
    assert samples.take("loop", {}) == []


def test_the_lags_that_are_kept_are_bounded() -> None:
    watch = FaultWatch()
    for _ in range(10_000):
        watch.add_lag(0, 1)
    assert len(watch._lags) <= 3_100


# -- beginning and ending ---------------------------------------------------------------------------------------------

SUBJECT, SHARE = Subject("host"), Bounds(0.7, 0.9)


def step(book: FaultBook, now: float, value: float | None, bounds: Bounds = SHARE) -> list[tuple[str, str]]:
    return [
        (change.state, change.level) for change in book.step(now, [Judged("memory", SUBJECT, bounds, value, "why")])
    ]


def test_a_figure_near_its_bound_does_not_flap() -> None:
    book = FaultBook()
    assert step(book, 0, 0.71) == [("reached", "warn")]
    assert [step(book, at, value) for at, value in enumerate([0.69, 0.71, 0.66, 0.72], 1)] == [[]] * 4
    assert step(book, 9, 0.62) == [("left", "warn")]


def test_a_low_figure_near_its_bound_does_not_flap() -> None:
    book, bounds = FaultBook(), Bounds(0.10, 0.05, low=True)
    assert step(book, 0, 0.09, bounds) == [("reached", "warn")]
    assert step(book, 1, 0.105, bounds) == []
    assert step(book, 2, 0.049, bounds) == [("changed", "bad")]
    assert step(book, 3, 0.052, bounds) == []
    assert step(book, 4, 0.08, bounds) == [("changed", "warn")]
    assert step(book, 5, 0.2, bounds) == [("left", "warn")]


def test_a_short_peak_is_no_fault() -> None:
    book, bounds = FaultBook(), Bounds(0.7, 0.9, hold_s=5)
    for at in range(100):
        assert step(book, at, 0.8 if at % 5 else 0.1, bounds) == []


def test_a_missing_figure_neither_begins_nor_ends_a_fault_but_ends_it_as_unknown_after_a_while() -> None:
    book = FaultBook()
    assert step(book, 0, None) == []
    assert step(book, 1, 0.8) == [("reached", "warn")]
    assert [step(book, 2 + at, None) for at in range(UNKNOWN_AFTER - 1)] == [[]] * (UNKNOWN_AFTER - 1)
    changes = book.step(9, [Judged("memory", SUBJECT, Bounds(0.7, 0.9), None)])
    assert [(change.state, change.value, change.reason) for change in changes] == [
        ("left", None, "the figure is not known any more, or does not apply")
    ]


def test_a_subject_that_goes_takes_its_faults_with_it() -> None:
    book = FaultBook()
    gone = Subject("worker text-0", "text", "text-0", ("i1", 41))
    book.step(0, [Judged("memory", gone, Bounds(0.7, 0.9), 0.8), Judged("fds", gone, Bounds(0.7, 0.9, 9.0), 0.8)])
    changes = book.step(1, [Judged("memory", gone._replace(process=("i1", 42)), Bounds(0.7, 0.9), 0.1)])
    assert [(change.state, change.kind, change.reason) for change in changes] == [
        ("left", "memory", "the process of worker text-0 is gone")
    ]
    assert book.step(2, []) == []


def test_a_figure_that_moves_is_told_again_but_not_often() -> None:
    book = FaultBook()
    bounds = Bounds(10.0, None)
    step(book, 0, 11.0, bounds)
    changes = [at for at in range(1, 200) if step(book, at, 11.0 + at, bounds)]
    assert changes
    assert min(b - a for a, b in zip([0, *changes], changes, strict=False)) >= AGAIN_S


def test_open_faults_are_bounded_and_those_left_out_are_counted() -> None:
    book = FaultBook()
    many = [Judged("memory", Subject(f"worker {nth}"), Bounds(0.7, 0.9), 0.8) for nth in range(3 * MOST)]
    assert len(book.step(0, many)) == MOST
    book.step(1, many)
    assert book.open == MOST
    assert len(book._faults) <= 2 * MOST
    assert book.unreported > 0
    assert len(book.close("measuring has ended")) == MOST
    assert book._faults == {}


@given(st.lists(st.none() | st.floats(0, 2), max_size=60), st.floats(0, 5))
def test_reached_and_left_alternate_whatever_the_figures(values: list[float | None], hold: float) -> None:
    book, is_open = FaultBook(), False
    for at, value in enumerate(values):
        for state, _ in step(book, float(at), value, Bounds(0.7, 0.9, hold)):
            assert (state == "reached") != is_open
            is_open = state != "left"
        assert (book.open == 1) == is_open


def test_every_state_of_a_fault_can_end() -> None:
    for state in FaultState:
        assert FaultState.FINE in MACHINE.reachable(state)
    assert MACHINE.reachable(FaultState.FINE) == set(FaultState)


# -- events -----------------------------------------------------------------------------------------------------------


def test_the_event_of_a_fault_is_as_the_catalogue_says() -> None:
    subject = Subject("worker text-0", "text", "text-0")
    changes = [
        FaultChange("reached", "memory", subject, "warn", 0.8, 0.7, "why"),
        FaultChange("left", "leak", SUBJECT, "bad", float("inf"), 3600.0, "over"),
        FaultChange("left", "memory", SUBJECT, "bad", None, None, "gone"),
    ]
    for change in changes:
        execution = execution_of(change, 1)
        assert RESOURCE_LIMIT.problems(execution.measurements, {**execution.metadata, "monitor": "m"}) == []
    assert "value" not in execution_of(changes[1], 1).measurements


SWINGS = [
    (condition, bound)
    for condition in CONDITIONS
    for bound in (condition.bounds.warn, condition.bounds.bad)
    if bound is not None and condition.bounds.calm_s
]


@pytest.mark.parametrize(("condition", "bound"), SWINGS, ids=[f"{row.about}-{row.kind}-{at:g}" for row, at in SWINGS])
@pytest.mark.parametrize(("swing", "most"), [(0.05, 3), (0.2, 60), (0.9, 240)])
def test_a_figure_that_swings_around_its_bound_is_told_a_few_times_an_hour(
    condition: Condition, bound: float, swing: float, most: int
) -> None:
    book, random, changes = FaultBook(), Random(7), 0
    for second in range(3600):
        value = bound * (1 + random.uniform(-swing, swing))
        changes += len(book.step(float(second), [Judged(condition.kind, SUBJECT, condition.bounds, value)]))
    assert changes <= most
    fine = float("inf") if condition.bounds.low else 0.0
    for second in range(3600, 3600 + round(CALM_S) + 2):
        book.step(float(second), [Judged(condition.kind, SUBJECT, condition.bounds, fine)])
    assert book.open == 0


def test_a_worker_that_is_stopped_again_and_again_is_told_as_it_is() -> None:
    [stopped] = [condition for condition in CONDITIONS if condition.kind == "stopped"]
    book, states = FaultBook(), []
    for second in range(40):
        value = float(second % 10 < 5)
        states += [
            change.state for change in book.step(float(second), [Judged("stopped", SUBJECT, stopped.bounds, value)])
        ]
    assert states == ["reached", "left"] * 4


@pytest.mark.usefixtures("nobody_stays_attached")
def test_a_blocked_loop_is_a_fault_while_it_is_blocked() -> None:
    diagnosis = Diagnosis(ResourcesConfig(orphans="off"), ManualClock(), 1.0)
    diagnosis.attach()
    with telemetry.capture(RESOURCE_LIMIT.name) as events:
        for state, seconds in (("blocked", 0.6), ("blocked", 0.9), ("over", 2.0), ("over", 2.0), ("blocked", 0.7)):
            stack = '  File "a.py", line 9, in main\n    work()\n  File "b.py", line 3, in work\n    sleep(2)'
            event, metadata = (LOOP_RESUME, {}) if state == "over" else (RESOURCE_LOOP, {"stack": stack})
            event.event.emit({"duration": round(seconds * 1e9)}, metadata)
        LOOP_LAG.event.emit({"duration": 5}, {})
        diagnosis.close()
        RESOURCE_LOOP.event.emit({"duration": 10**9}, {"stack": ""})
    assert [event.metadata["state"] for event in events] == ["reached", "left", "reached", "left"]
    assert "it runs b.py:3 in work: sleep(2)" in events[0].metadata["reason"]
    assert {event.metadata["kind"] for event in events} == {"blocked"}
    for event in events:
        assert RESOURCE_LIMIT.problems(event.measurements, event.metadata) == []


def test_an_orphan_is_a_fault_with_its_pid_and_command() -> None:
    watch = FaultWatch()
    orphan = Orphan(Identity(77, 5), ServiceRun(66, 1, "1-1", "ab"), "python left.py")
    changes = watch.judge(Moment(10**9, []), [], [orphan])
    assert told(changes) == [("reached", "orphan", "warn")]
    assert changes[0].subject.name == "process 77"
    assert "python left.py" in changes[0].reason
    assert "66" in changes[0].reason
    assert told(watch.judge(Moment(2 * 10**9, []), [], [])) == [("left", "orphan", "warn")]
