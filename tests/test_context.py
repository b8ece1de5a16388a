"""Context variables that travel with calls: to the operation, and to the handlers of the call's events."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import ConfigError, OperationError, PayloadError, Pool, PoolSaturated, StartError, telemetry
from tests.helpers.support import eventually, read, running
from tests.targets import scoped

pytestmark = pytest.mark.usefixtures("no_leaks")

TARGET = "tests.targets.scoped"
TELLER = Path(__file__).parent / "workers" / "teller.py"
BOTH = (f"{TARGET}:request_id", f"{TARGET}:tenant")


def scoped_pool(**fields: Any) -> Pool:
    return Pool(TARGET, **{"size": 1, "name": "scoped", "context": BOTH, "timeout": 20.0, **fields})


@contextmanager
def caller(request_id: Any, **values: Any) -> Iterator[None]:
    """Run the block with *request_id* as the id of the current request."""
    token = scoped.request_id.set(request_id)
    try:
        yield
    finally:
        scoped.request_id.reset(token)


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_operation_sees_what_its_caller_has_set(codec: str, concurrency: int) -> None:
    async with scoped_pool(codec=codec, concurrency=concurrency) as pool:

        async def ask(request_id: str) -> list[Any]:
            with caller(request_id):
                found = [await pool.run("seen"), await pool.run("seen_later")]
                found += await read(pool.stream("each")) + await read(pool.stream("each_later"))
                async for result in pool.map("change", [f"{request_id}!"]):
                    found.append(result)
                return found

        for request_id, found in zip("ab", await asyncio.gather(ask("a"), ask("b")), strict=True):
            assert found == [[request_id, None]] * 6 + [[f"{request_id}!", None]]
        assert await pool.run("seen") == ["none", None], "the worker's own default, whatever calls before had"


async def test_a_call_has_the_values_of_the_moment_it_was_made(tmp_path: Path) -> None:
    async with scoped_pool() as pool:
        first = await running(pool, "after", str(tmp_path / "go"))
        with caller("earlier"):
            waiting = asyncio.ensure_future(pool.run("seen"))
            await eventually(lambda: pool.status().waiting or sum(view.calls_held for view in pool.workers()) > 1)
        (tmp_path / "go").touch()
        assert await waiting == ["earlier", None]
        assert await first == ["none", None]


async def test_a_call_that_is_sent_again_has_them_too(tmp_path: Path) -> None:
    async with scoped_pool() as pool:
        with caller("again"):
            assert await pool.options(idempotent=True).run("die_once", str(tmp_path / "died")) == ["again", None]


async def test_large_arguments_and_values_travel_together() -> None:
    large = "x" * (1 << 20)
    async with scoped_pool() as pool:
        with caller(large):
            assert await pool.run("size_of", large.encode()) == [1 << 20, 1 << 20]


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_value_that_cannot_travel_is_named_and_costs_that_call(codec: str, concurrency: int) -> None:
    async with scoped_pool(codec=codec, concurrency=concurrency) as pool:
        refused = rf"the context variable 'tests\.targets\.scoped:request_id' cannot be carried as {codec}: "
        with caller(threading.Lock()), pytest.raises(PayloadError, match=refused):
            await pool.run("seen")
        with pytest.raises(PayloadError, match=f"the arguments cannot be carried as {codec}: "):
            await pool.run("seen", lambda: None)
        assert await pool.run("seen") == ["none", None]
        assert pool.status().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_value_that_cannot_be_rebuilt_costs_that_call(concurrency: int) -> None:
    async with scoped_pool(concurrency=concurrency) as pool:
        with caller({frozenset([(1,)]): 1, UnpackableKey(): 2}):
            with pytest.raises(PayloadError, match="the context cannot be rebuilt: "):
                await pool.run("seen")
            with pytest.raises(PayloadError, match="the context cannot be rebuilt: "):
                await read(pool.stream("each"))
        assert await pool.run("seen") == ["none", None]
        assert pool.status().restarts == 0


async def test_handlers_of_every_event_of_a_call_see_them(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def note(event: tuple[str, ...], _measurements: Any, metadata: Any, _config: Any) -> None:
        if "operation" in metadata or event[1] == "session":
            seen.append((".".join(event[1:]), scoped.request_id.get()))

    about = ["operation.start", "operation.stop", "operation.exception", "queue.reject", "retry", "session.start"]
    about += ["session.affinity", "worker.checkout", "worker.checkin"]
    telemetry.attach_many("note", [("pool", *name.split(".")) for name in about], note)
    try:
        async with scoped_pool(queue_limit=1, prefetch=1) as pool:
            first = await running(pool, "after", str(tmp_path / "go"))
            with caller("ok"):
                waiting = asyncio.ensure_future(pool.session("s").run("remember"))
                await eventually(lambda: pool.status().waiting == 1)
            with caller("refused"), pytest.raises(PoolSaturated):
                await pool.run("seen")
            (tmp_path / "go").touch()
            await asyncio.gather(first, waiting)
            with caller("failed"), pytest.raises(OperationError):
                await pool.run("fail")
            with caller("again"):
                await pool.options(idempotent=True).run("die_once", str(tmp_path / "died"))
    finally:
        telemetry.detach("note")
    by_request: dict[str, list[str]] = {}
    for event, request_id in seen:
        by_request.setdefault(request_id, []).append(event)
    through = ["operation.start", "worker.checkout"]
    assert sorted(by_request) == ["again", "failed", "none", "ok", "refused"]
    assert by_request["ok"] == [
        "operation.start", "session.start", "worker.checkout", "session.affinity", "operation.stop", "worker.checkin"
    ]  # fmt: skip
    assert by_request["refused"] == ["operation.start", "queue.reject", "operation.exception"]
    assert by_request["failed"] == [*through, "operation.exception", "worker.checkin"]
    assert by_request["again"] == [*through, "retry", "worker.checkout", "operation.stop", "worker.checkin"]


async def test_a_handler_that_sets_one_changes_nothing_for_others() -> None:
    def spoil(*_: Any) -> None:
        scoped.request_id.set("spoiled")

    telemetry.attach("spoil", ("pool", "worker", "checkout"), spoil)
    try:
        async with scoped_pool() as pool:
            with caller("mine"):
                assert await pool.run("seen") == ["mine", None]
                assert scoped.request_id.get() == "mine"
    finally:
        telemetry.detach("spoil")


async def test_nothing_travels_unless_the_configuration_names_it() -> None:
    async with scoped_pool(context=BOTH[1:]) as pool:
        token = scoped.tenant.set("t")
        try:
            with caller("mine"):
                assert await pool.run("seen") == ["none", "t"]
        finally:
            scoped.tenant.reset(token)
    async with scoped_pool(context=()) as pool:
        with caller("mine"):
            assert await pool.run("seen") == ["none", None]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no.such.module:variable", "No module named 'no'"),
        (f"{TARGET}:nothing", "has no attribute 'nothing'"),
        (f"{TARGET}:number", "is a int, not a contextvars.ContextVar"),
    ],
)
async def test_a_variable_that_is_none_here_is_refused_by_name_when_the_pool_opens(name: str, complaint: str) -> None:
    pool = scoped_pool(context=(name,))
    for _ in range(2):  # every time: nothing was started
        with pytest.raises(ConfigError, match=rf"Pool\(context='{name}'\): .*{complaint}.*; needs 'module:variable'"):
            await pool.__aenter__()
    for bad in ("request_id", "", "a:b:c", 5):
        with pytest.raises(ConfigError, match=r"PoolConfig: context"):
            scoped_pool(context=(bad,))


async def test_a_worker_that_has_no_such_variable_does_not_start_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("import contextvars\nname = contextvars.ContextVar('name')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = scoped_pool(context=("only_here:name",), start_method="exec")
    monkeypatch.setitem(sys.modules, "only_here", __import__("only_here"))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(
        StartError, match=r"context variable 'only_here:name' was not found: .*; make it importable for the"
    ):
        await pool.__aenter__()


@pytest.mark.parametrize("takes", [True, False])
async def test_a_worker_in_another_language_gets_them_if_it_says_so(takes: bool) -> None:
    command = (sys.executable, str(TELLER), json.dumps({"context": True} if takes else {}))
    async with Pool("any", size=1, command=command, context=BOTH) as pool:
        with caller("mine"):
            options, *call = await pool.run("echo", 1)
            assert options == {"concurrency": 1, "stack": 47, "context": list(BOTH)}
            more = [{"context": {BOTH[0]: "mine"}}] if takes else []
            assert call == ["call", "echo", [[1], {}], False, None, *more]
    async with Pool("any", size=1, command=command) as pool:
        with caller("mine"):
            assert await pool.run("echo", 1) == [
                {"concurrency": 1, "stack": 47},
                "call",
                "echo",
                [[1], {}],
                False,
                None,
            ]


class UnpackableKey:
    """Travels as a dict, which cannot be a key."""

    def model_dump(self, mode: str) -> dict[str, int]:
        return {"a": 1}
