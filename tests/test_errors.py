"""Errors that are copied, pickled or raised in another process keep their type, text and attributes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Pool, errors, telemetry
from pool_monitor.errors import (
    OperationError,
    OperationTimeout,
    PayloadError,
    PoolError,
    QueueTimeout,
    Rejected,
    StartError,
    WorkerDied,
)
from pool_monitor.pool import pool as _pool  # noqa: F401 - defines errors too
from tests.helpers.programs import Program
from tests.helpers.support import ops_pool

Travel = Callable[[Any], Any]
TRAVELS: list[Travel] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in (0, 2, 5)),
]
every_way = pytest.mark.parametrize("travel", TRAVELS, ids=["copy", "deepcopy", "pickle 0", "pickle 2", "pickle 5"])


def kinds(root: type[PoolError] = PoolError) -> Iterator[type[PoolError]]:
    """All errors of the package; tests derive more."""
    yield root
    for kind in root.__subclasses__():
        if kind.__module__.startswith("pool_monitor."):
            yield from kinds(kind)


def made(kind: type[PoolError]) -> PoolError:
    """An error of this kind as the package makes it."""
    if issubclass(kind, Rejected):
        return kind("no", pool="p", waited_s=0.5, waiting=3, size=2, reason="deadline", retry_after_s=1.5)
    if issubclass(kind, OperationError):
        return kind("op", "ValueError", "bad", "Traceback:\nValueError: bad")
    if issubclass(kind, WorkerDied):
        return kind("gone", worker="p-1", exit_code=-9, stderr="help", reason="health")
    return kind("something is wrong")


def facts(error: BaseException) -> tuple[Any, ...]:
    return type(error), str(error), error.args, error.__dict__


class Unpicklable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)


class OfAUser(PoolError):
    """An error as users derive it: its constructor has arguments that the text lacks."""

    __slots__ = ("attempt",)

    def __init__(self, *, request: str, attempt: int) -> None:
        super().__init__(f"request {request} failed")
        self.request, self.attempt = request, attempt


@every_way
@pytest.mark.parametrize("kind", sorted(set(kinds()), key=lambda kind: kind.__name__))
def test_an_error_arrives_with_its_text_attributes_and_notes(kind: type[PoolError], travel: Travel) -> None:
    error = made(kind)
    error.worker, error.call_id = "p-1", 17
    error.add_note("while testing")
    assert facts(travel(error)) == facts(error)
    assert facts(travel(travel(error))) == facts(error)


@every_way
def test_a_users_own_kind_of_error_arrives_whatever_its_constructor_takes(travel: Travel) -> None:
    error = OfAUser(request="r-1", attempt=3)
    arrived = travel(error)
    assert facts(arrived) == facts(error)
    assert arrived.attempt == 3


@every_way
def test_an_error_arrives_with_its_cause(travel: Travel) -> None:
    error = StartError("no worker")
    error.__cause__ = made(WorkerDied)
    error.__cause__.__cause__ = KeyError("at the bottom")
    arrived = travel(error)
    assert facts(arrived.__cause__) == facts(error.__cause__)
    assert facts(arrived.__cause__.__cause__) == facts(KeyError("at the bottom"))


@pytest.mark.parametrize("cause", [Unpicklable(1, 2), ValueError(lambda: None)], ids=["not rebuilt", "not pickled"])
def test_a_cause_that_cannot_travel_does_not_hold_up_the_error(cause: BaseException) -> None:
    error = made(StartError)
    error.__cause__ = cause
    for travel in TRAVELS[1:]:
        assert facts(travel(error)) == facts(error)
        assert travel(error).__cause__ is None
    assert copy.copy(error).__cause__ is cause


def test_causes_that_form_a_circle_or_a_long_chain_can_be_pickled() -> None:
    error = made(StartError)
    error.__cause__ = error
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)
    for _ in range(3000):
        error, cause = made(StartError), error
        error.__cause__ = cause
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)


def test_a_note_on_a_copy_is_not_on_the_original() -> None:
    error = made(OperationError)
    copy.copy(error).add_note("only there")
    assert len(error.__notes__) == 1


def test_an_error_of_no_call_names_neither_worker_nor_call() -> None:
    others = [kind for kind in kinds() if not issubclass(kind, WorkerDied)]
    assert all((made(kind).worker, made(kind).call_id) == (None, None) for kind in others)


async def test_errors_raised_by_a_pool_can_be_copied_and_pickled() -> None:
    raised: list[PoolError] = []
    async with ops_pool() as pool:
        for operation, arguments in (("fail", ()), ("echo", (object(),)), ("no_such", ()), ("die", ())):
            raised.append((await pool.try_run(operation, *arguments)).error or PoolError("it did not fail"))
    raised.append((await pool.try_run("echo")).error or PoolError("it did not fail"))
    names = [type(error).__name__ for error in raised]
    assert names == ["OperationError", "PayloadError", "UnknownOperation", "WorkerDied", "PoolClosed"]
    for error in raised:
        assert all(facts(travel(error)) == facts(error) for travel in TRAVELS)


def test_errors_come_out_of_the_standard_librarys_process_pools(
    tmp_path: Path, program: Callable[..., Program]
) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import multiprocessing, concurrent.futures\n"
        "from pool_monitor import PoolSaturated, WorkerDied\n"
        "def work(kind):\n"
        "    if kind == 'died': raise WorkerDied('gone', worker='p-1', exit_code=-9, stderr='help')\n"
        "    raise PoolSaturated('full', pool='p', waited_s=0.5, waiting=3, size=2)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor, context.Pool(1) as pool:\n"
        "        submitted = lambda kind: executor.submit(work, kind).result()\n"
        "        for run in (submitted, lambda kind: pool.apply(work, (kind,))):\n"
        "            try: run('died')\n"
        "            except WorkerDied as error: print(error.worker, error.exit_code, error.stderr)\n"
        "            try: run('full')\n"
        "            except PoolSaturated as error: print(error.pool, error.waiting, error)\n"
    )
    done = program(str(script)).ended()
    full = "p 3 full (pool 'p': waited 0.500 s, 3 calls waiting for 2 workers)"
    assert done.out.splitlines() == ["p-1 -9 help", full] * 2, done.err


def test_every_kind_has_a_category_a_severity_and_an_outcome() -> None:
    for kind in kinds():
        assert kind.category in errors.Category.__args__  # type: ignore[attr-defined]
        assert kind.severity in errors.Severity.__args__  # type: ignore[attr-defined]
        assert kind.outcome in errors.Outcome.__args__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("fail", OperationError), ("nothing_json", PayloadError), ("exit_now", WorkerDied), ("sleep", OperationTimeout)],
)
async def test_an_error_of_a_call_names_its_worker_and_the_call_as_the_events_do(
    operation: str, kind: type[PoolError], tmp_path: Path
) -> None:
    target = tmp_path / "ops.py"
    target.write_text(
        "import os, time\ndef fail(): raise ValueError\ndef nothing_json(): return object()\n"
        "def exit_now(): os._exit(3)\ndef sleep(): time.sleep(60)\n"
    )
    async with Pool(str(target), size=2, name="ops", timeout=0.3, cancel_grace=0.1) as pool:
        with telemetry.capture(("pool", "operation", "exception")) as events, pytest.raises(kind) as caught:
            await pool.options(worker="ops-1", timeout=0.3 if operation == "sleep" else 10.0).run(operation)
        assert (caught.value.worker, caught.value.call_id) == ("ops-1", events[0].metadata["call_id"])
        await pool.pause()
        with telemetry.capture(("pool", "operation", "exception")) as events, pytest.raises(QueueTimeout) as refused:
            await pool.run("fail")
        assert (refused.value.worker, refused.value.call_id) == (None, events[0].metadata["call_id"])
