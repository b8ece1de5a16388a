"""The program in the worker: what it loads, in which Python, what it answers, and what it does not let through."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import OperationError, PayloadError, Pool, StartError, WorkerDied, telemetry
from pool_monitor.pool.transport import child
from pool_monitor.pool.transport.child.codec import CODECS
from tests.helpers import support
from tests.helpers.gates import in_gates
from tests.helpers.support import OPS, TARGETS, eventually, interpreter, interpreters, ops_pool, python_program, running
from tests.helpers.transports import started

pytestmark = pytest.mark.usefixtures("no_leaks")

PLAIN = TARGETS / "plain.py"


# -- interpreters -------------------------------------------------------------------------------------------------


def has_msgpack(python: str) -> bool:
    program = "import importlib.util as u, sys; sys.exit(not (u.find_spec('msgspec') or u.find_spec('msgpack')))"
    return subprocess.run([python, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("version", ["3.8", *map(in_gates, ["3.9", "3.10", "3.11", "3.12"]), "3.13", "3.14"])
async def test_a_worker_runs_in_any_python_from_3_8(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    with telemetry.capture(("pool", "worker")) as events:
        async with ops_pool(python=python) as pool:
            assert await pool.run("python") == version
            assert await pool.run("echo", {"a": [1, None, "ä"]}) == {"a": [1, None, "ä"]}
            assert await pool.run("later", 5) == 5
            assert [item async for item in pool.stream("count", 3)] == [0, 1, 2]
            assert [item async for item in pool.stream("count_later", 3)] == [0, 1, 2]
            session = pool.session("s")
            assert [await session.run("remember", word) for word in "ab"] == [["a"], ["a", "b"]]
            with pytest.raises(OperationError, match="ValueError: as asked") as failure:
                await pool.run("fail")
            assert "in fail" in failure.value.traceback
            with pytest.raises(TimeoutError):
                await pool.options(timeout=0.2).run("spin")  # interrupted
            with pytest.raises(TimeoutError):
                await pool.options(timeout=0.2).run("stuck_in_c")  # killed
            assert await pool.run("python") == version
            closed = tmp_path / "closed"
            async for _ in pool.stream("count_forever_later", str(closed)):
                break
            await eventually(closed.exists)
    codecs = {event.metadata["codec"] for event in events if event.name[-1] == "ready"}
    assert codecs == {"msgpack" if has_msgpack(python) else "json"}


def test_the_program_imports_only_the_standard_library() -> None:
    lines = [line for path in Path(child.__file__).parent.glob("*.py") for line in path.read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    outside = {name.partition(".")[0] for name in imported if not name.startswith(".")}
    assert outside <= sys.stdlib_module_names | {"__future__"}


async def test_a_module_of_the_target_may_have_the_name_of_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "codec.py").write_text("NAME = 'mine'\n")
    (tmp_path / "uses.py").write_text("import codec\nclass Uses:\n    def whose(self): return codec.NAME\n")
    async with Pool(f"{tmp_path}/uses.py:Uses", size=1) as pool:
        assert await pool.run("whose") == "mine"


async def test_the_directory_of_the_program_is_not_importable_from_the_target(tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text("import sys\nclass Looks:\n    def path(self): return sys.path\n")
    async with Pool(f"{tmp_path}/looks.py:Looks", size=1) as pool:
        path = await pool.run("path")
    assert str(Path(child.__file__).parent) not in path
    assert path[0] == str(tmp_path)


# -- what a target may be -----------------------------------------------------------------------------------------


async def operations(target: str, **fields: Any) -> set[str]:
    async with Pool(target, size=1, **fields) as pool:
        return set(pool._calls().operations)


async def test_of_a_class_the_public_methods_are_operations_and_it_gets_its_arguments() -> None:
    async with Pool(f"{PLAIN}:Kept", size=1, init_args=(3,), init_kwargs={"step": 2}) as pool:
        assert set(pool._calls().operations) == {"value", "static", "of_class", "partial", "read"}
        assert await pool.run("value") == [3, 2]
        assert await pool.run("partial") == [3, 2]
        assert (await pool.run("static"), await pool.run("of_class")) == ("static", "Kept")


async def test_properties_of_a_target_are_not_executed() -> None:
    async with Pool(f"{PLAIN}:Kept", size=1) as pool:
        assert await pool.run("read") == []


async def test_an_instance_a_nested_class_and_a_namespace_are_targets_too() -> None:
    assert await operations(f"{PLAIN}:made") == {"value", "static", "of_class", "partial", "read"}
    assert await operations(f"{PLAIN}:Kept.Nested") == {"inside"}
    assert await operations(f"{PLAIN}:space") == {"double", "joined"}


async def test_of_a_module_only_the_functions_written_in_it_are_operations() -> None:
    async with Pool("package:tools", size=1, sys_path=(str(TARGETS),)) as pool:
        assert set(pool._calls().operations) == {"triple", "triple_later"}
        assert await pool.run("triple", 2) == await pool.run("triple_later", 2) == 6


async def test_a_module_or_a_file_as_such_is_a_target() -> None:
    for target, operation, result in ((str(PLAIN), "double", 4), ("package.tools", "triple", 6)):
        async with started(target=target, path=[str(TARGETS)]) as line:
            assert await line.run(operation, 2) == result
        async with Pool(target, size=1, sys_path=(str(TARGETS),)) as pool:
            assert await pool.run(operation, 2) == result


async def test_of_a_module_without_functions_a_class_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("class Tool:\n    def use(self): pass\n")
    for target in (f"{tmp_path}/tool.py", "tool"):
        with pytest.raises(
            StartError, match=f"{target} has no public functions; for its class Tool, use '{target}:Tool'$"
        ):
            async with started(target=target, path=[str(tmp_path)]):
                pass


async def test_a_target_with_all_names_offers_those(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tools.py").write_text(
        "from math import sqrt\n__all__ = ['sqrt', 'own', 'gone']\ndef own(): pass\ndef not_me(): pass\n"
    )
    assert await operations("pack:tools", sys_path=(str(tmp_path),)) == {"sqrt", "own"}


async def test_a_file_is_found_relative_to_the_working_directory_and_finds_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neighbour.py").write_text("WORD = 'hello'\n")
    (tmp_path / "mine.py").write_text("from neighbour import WORD\nclass Mine:\n    def word(self): return WORD\n")
    monkeypatch.chdir(tmp_path)
    async with Pool("mine.py:Mine", size=1) as pool:
        assert await pool.run("word") == "hello"
    async with Pool("mine:Mine", size=1) as pool:  # as a module too: the working directory is on the path
        assert await pool.run("word") == "hello"


async def test_a_worker_has_the_services_directory_and_environment_and_what_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL_TEST_INHERITED", "yes")
    async with ops_pool(env={"POOL_TEST_ADDED": "too"}) as pool:
        assert await pool.run("directory") == str(tmp_path)
        ours = ["POOL_MONITOR_FD", "POOL_MONITOR_OUT", "POOL_MONITOR_LIFELINE", "POOL_MONITOR_SHARED"]
        names = ["POOL_TEST_INHERITED", "POOL_TEST_ADDED", *ours]
        assert [await pool.run("environment", name) for name in names] == ["yes", "too", *[None] * len(ours)]


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("no_such_module:Thing", r"no module named 'no_such_module' \(looked for 'no_such_module:Thing' in .*"),
        ("package.none:Thing", r"no module named 'package\.none'"),
        ("package.needs:Thing", r"ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("package:needs", r"ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("package:none", r"package has no attribute 'none'; it has"),
        (
            "package.tools.triple",
            r"no module named 'package\.tools\.triple' .*; separate a module and a name in it with a colon$",
        ),
        (f"{TARGETS}/missing.py:Thing", r"no file '.*missing\.py'; its directory has .*plain\.py"),
        (f"{TARGETS}/nowhere/missing.py:Thing", r"no file '.*missing\.py'; its directory has no \.py files"),
        (f"{PLAIN}:Missing", r"plain\.py has no attribute 'Missing'; it has .*Kept.*double"),
        (f"{PLAIN}:Kept.missing", r"has no attribute 'Kept\.missing'; it has .*value"),
        (f"{PLAIN}:Empty", r"plain\.py:Empty has no public functions or methods"),
        (f"{PLAIN}:double", r"plain\.py:double is a function, but a target must be .*; for all .* use '.*/plain\.py'$"),
        (f"{PLAIN}:made.value", r"made\.value is a function, but a target must be a class, an object or a module"),
        (f"{PLAIN}:number", r"plain\.py:number is a int, but a target must be a class, an object or a module"),
        (f"{PLAIN}:READ", r"plain\.py:READ is a list, but a target must be"),
    ],
)
async def test_a_target_that_is_not_there_is_named_with_what_is(target: str, complaint: str) -> None:
    with pytest.raises(StartError, match=complaint):
        async with Pool(target, size=1, sys_path=(str(TARGETS),)):
            pass


async def test_a_target_that_raises_on_import_is_reported_once_with_its_traceback() -> None:
    with telemetry.capture(("pool",)) as events, pytest.raises(StartError, match="RuntimeError: no model") as failure:
        async with Pool(f"{TARGETS}/raises.py:Ops", size=1):
            pass
    assert failure.value.traceback is not None
    assert "in _prepare" in failure.value.traceback
    assert "transport/child" not in failure.value.traceback
    assert "in _prepare" in "".join(failure.value.__notes__)
    names = [".".join(event.name) for event in events]
    assert names.count("pool.worker.init") == 1
    assert names.count("pool.error") == 1
    assert [event.metadata["text"] for event in events if event.name[-1] == "output"] == ["imported"]


async def test_a_target_that_leaves_on_import_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import os, sys\nsys.stderr.write('goodbye\\n')\nsys.stderr.flush()\nos._exit(7)\n"
    )
    with pytest.raises(StartError, match=r"exit code 7.*\n.*goodbye"):
        async with Pool(f"{tmp_path}/leaves.py:X", size=1):
            pass
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('as if on a command line')\n")
    with pytest.raises(StartError, match=r"SystemExit: as if on a command line"):
        async with Pool(f"{tmp_path}/leaves.py:X", size=1):
            pass


async def test_init_arguments_that_do_not_fit_or_cannot_be_carried_are_a_start_error() -> None:
    with pytest.raises(StartError, match=r"TypeError: .*unexpected keyword argument 'stride'"):
        async with Pool(f"{PLAIN}:Kept", size=1, init_kwargs={"stride": 2}):
            pass
    with pytest.raises(StartError, match="init_args and init_kwargs cannot be carried as msgpack"):
        async with Pool(f"{PLAIN}:Kept", size=1, init_args=(object(),)):
            pass


# -- output -------------------------------------------------------------------------------------------------------


async def test_whatever_is_written_to_stdout_is_an_event_and_disturbs_no_answer(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with telemetry.capture(("pool", "worker", "output")) as events:
        async with ops_pool() as pool:
            assert await pool.run("noise") == "done"
            assert await pool.run("echo", 5) == 5
    said = sorted((event.metadata["stream"], event.metadata["text"]) for event in events)
    assert said == [
        ("stderr", "complained"),
        ("stdout", "from a child"),
        ("stdout", "printed"),
        ("stdout", "written"),
        ("stdout", "\ufffd\ufffd"),
    ]
    assert {event.metadata["worker"] for event in events} == {"ops-0"}
    assert capfd.readouterr() == ("", "")


async def test_a_line_without_end_is_cut_and_its_size_told() -> None:
    with telemetry.capture(("pool", "worker", "output")) as events:
        async with ops_pool() as pool:
            assert await pool.run("noise_without_end", 300_000) == "done"
    [line] = events
    assert line.metadata["text"] == "y" * 8192
    assert line.measurements["bytes"] == 300_000


async def test_more_output_than_a_pipe_holds_stops_nobody() -> None:
    with telemetry.capture(("pool", "worker", "output")) as events:
        async with ops_pool() as pool:
            assert await pool.run("flood", 20_000) == 20_000
    assert len(events) == 20_000


# -- answers ------------------------------------------------------------------------------------------------------


async def test_a_system_exit_fails_the_operation_and_not_the_worker() -> None:
    async with ops_pool() as pool:
        pid = await pool.run("pid")
        with pytest.raises(OperationError, match="leave: SystemExit: 3"):
            await pool.run("leave")
        assert await pool.run("pid") == pid


async def test_an_error_says_type_message_and_where_without_our_own_frames() -> None:
    async with ops_pool() as pool:
        with pytest.raises(OperationError) as failure:
            await pool.run("fail", "broken")
    error = failure.value
    assert (error.operation, error.type_name, error.message) == ("fail", "ValueError", "broken")
    assert "raise ValueError(text)" in error.traceback
    assert "transport/child" not in error.traceback
    assert error.traceback in error.__notes__[0] + "\n"
    assert (error.category, error.retryable, error.outcome) == ("operation", False, "error")


@pytest.mark.parametrize("codec", ["auto", "json", "pickle"])
async def test_text_that_no_encoding_has_fails_only_its_own_call(codec: str) -> None:
    async with ops_pool(codec=codec) as pool:
        with pytest.raises(OperationError, match=r"half a \\ud83d pair"):
            await pool.run("fail_with_surrogate")
        with pytest.raises(OperationError, match=r"Wordless: \(its __str__ failed\)"):
            await pool.run("fail_without_words")
        if codec == "auto":
            with pytest.raises(PayloadError, match="the result cannot be carried as msgpack"):
                await pool.run("surrogate")
            with pytest.raises(PayloadError, match="the arguments cannot be carried as msgpack"):
                await pool.run("echo", "\ud83d")
        else:
            assert await pool.run("surrogate") == await pool.run("echo", "\ud83d") == "\ud83d"
        assert await pool.run("echo", "fine") == "fine"


@pytest.mark.parametrize("codec", ["json", "msgpack", "pickle"])
async def test_huge_messages_pass_both_ways(codec: str) -> None:
    text = "ä" * 3_000_000
    async with ops_pool(codec=codec) as pool:
        assert await pool.run("echo", text) == text
        assert await pool.run("echo", "small") == "small"


async def test_an_error_longer_than_a_frame_is_cut_and_costs_no_worker() -> None:
    async with ops_pool(frame_limit=4096) as pool:
        pid = await pool.run("pid")
        with pytest.raises(OperationError, match="ValueError") as failure:
            await pool.run("fail_at_length", 100_000)
        assert failure.value.type_name == "ValueError"
        assert await pool.run("pid") == pid


async def test_an_asynchronous_generator_is_closed_whenever_its_reader_leaves(tmp_path: Path) -> None:
    async with ops_pool(cancel_grace=10.0) as pool:
        pid = await pool.run("pid")
        for turn in range(50):  # wherever in the machinery of asyncio it is met
            closed = tmp_path / str(turn)
            async with aclosing(pool.stream("count_forever_later", str(closed))) as items:
                async for _ in items:
                    break
            await eventually(closed.exists)
        assert await pool.run("pid") == pid


async def test_a_coroutine_operation_that_is_cancelled_leaves_its_worker_as_it_was() -> None:
    async with ops_pool(cancel_grace=10.0) as pool:
        pid = await pool.run("pid")
        for _ in range(20):
            task = await running(pool, "later", 5, 60.0)
            task.cancel()
            await eventually(lambda: pool.status().idle == 1)
        assert await pool.run("pid") == pid


async def test_whatever_has_items_can_be_streamed() -> None:
    async with ops_pool() as pool:
        assert [item async for item in pool.stream("list_iterator", 3)] == [0, 1, 2]
        with pytest.raises(PayloadError, match=r"it returned a int, which is not a generator: call it with run\("):
            async for _ in pool.stream("echo", 5):
                pass


async def test_only_an_operation_that_asks_for_the_session_gets_it() -> None:
    async with ops_pool() as pool:
        session = pool.session("ann")
        assert await session.run("whose") == "ann"
        assert await session.run("echo", 1) == 1
        assert await pool.run("whose") is None
        with pytest.raises(OperationError, match=r"TypeError: .*session"):
            await pool.run("remember", "x")


@pytest.mark.parametrize("start_method", ["zygote", "exec"])  # such workers learn of their memory in different ways
async def test_memory_that_short_calls_take_shows_with_the_next_longer_one(start_method: str) -> None:
    async with Pool(f"{TARGETS / 'wire.py'}:Wire", size=1, start_method=start_method) as pool:
        with telemetry.capture(("pool", "operation", "stop")) as events:
            for _ in range(40):
                await pool.run("grow", 1 << 16)
            await pool.run("sleep", 0.001)
    calls = [event.measurements for event in events]
    assert sum(call["rss_growth"] for call in calls) > 1 << 20
    assert {call["rss_growth"] for call in calls if call["execution_duration"] < 100_000} == {0}


async def test_hooks_at_exit_run_when_a_worker_is_asked_to_stop(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        await pool.run("tidy_up_at_exit", str(tmp_path / "tidied"), 0.3)
    assert (tmp_path / "tidied").exists()


# -- codecs -------------------------------------------------------------------------------------------------------


def values_pool(**fields: Any) -> Pool:
    return Pool("targets:values", size=1, sys_path=(str(TARGETS.parent),), **fields)


@pytest.mark.parametrize(
    "value", [{1: "a"}, {"a": [{"b": {2.5: 0}}]}, ({True: 1},), {None: 1}, {-1e99: 1}, {(1, 2): 3}]
)
async def test_json_refuses_keys_that_it_would_make_strings_of(value: Any) -> None:
    refusal = r"cannot be carried as json: .*key.*; convert it, use codec='pickle', or"
    async with values_pool(codec="json") as pool:
        with pytest.raises(PayloadError, match=f"the arguments {refusal}"):
            await pool.run("echo", value)
        with pytest.raises(PayloadError, match=f"the result {refusal}"):
            await pool.run("value", repr(value))
        with pytest.raises(PayloadError, match=f"an item {refusal}"):
            async for _ in pool.stream("values", repr(value)):
                pass
        assert pool.status().restarts == 0


def test_json_takes_every_key_that_is_a_string() -> None:
    codec = CODECS["json"]()
    for key in ("", "1", "-1.5e99", "true", "null", 'a "1":', '"', "\\", '1"', "1\\", "\ud83d"):
        message = ["call", {key: {"2": "3"}}, f'"{key}":']
        assert codec.decode(codec.encode(message)) == message


KEYS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(KEYS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20))
def test_json_gives_back_what_it_takes(value: Any) -> None:
    codec = CODECS["json"]()
    try:
        body = codec.encode(value)
    except (TypeError, ValueError):
        return
    assert codec.decode(body) == value


@pytest.mark.parametrize(
    ("codec", "value"), [("json", b"raw"), ("json", math.nan), ("msgpack", 2**64), ("msgpack", "\ud83d")]
)
async def test_what_cannot_be_carried_comes_back_with_the_remedy(codec: str, value: Any) -> None:
    async with values_pool(codec=codec) as pool:
        for operation, given_ in (("echo", value), ("value", ascii(value))):
            with pytest.raises(PayloadError, match=rf"cannot be carried as {codec}: .*; convert it, .*codec='pickle'"):
                await pool.run(operation, given_)


def test_an_interpreter_behind_a_shim_is_named_as_it_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shim = tmp_path / f"python{version}"
    shim.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert support._pythons.__wrapped__()[version] == sys.executable


async def test_a_worker_without_the_codec_that_was_asked_for_says_what_to_do() -> None:
    python = next((one for one in interpreters().values() if not has_msgpack(one)), None)
    if python is None:
        pytest.skip("every Python of this machine has msgpack")
    for method in ("exec", "zygote"):
        with pytest.raises(
            StartError, match=f"{python} has no msgpack: install it there, or leave .* at 'auto'"
        ) as failure:
            async with ops_pool(codec="msgpack", python=python, start_method=method):
                pass
        assert "Traceback" not in str(failure.value)


def test_the_package_msgpack_gives_what_msgspec_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("msgpack")
    ours = CODECS["msgpack"]()
    monkeypatch.setitem(sys.modules, "msgspec.msgpack", None)
    theirs = CODECS["msgpack"]()
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=1)))
    for value in (None, [1, (2.5, "ä")], {1: b"raw", None: bytearray(b"raw")}, {(1, (2, "b")): 3}, moment):
        assert (
            theirs.decode(theirs.encode(value)) == ours.decode(ours.encode(value)) == ours.decode(theirs.encode(value))
        )


# -- the handshake, from the other side ---------------------------------------------------------------------------


HELLO = {"type": "hello", "protocol": 1, "codec": "json", "python": "3"}


def fake_worker(
    folder: Path, *, hello: dict[str, Any] | None = None, body: bytes | None = None, then: Any = None
) -> str:
    """A program that stands where the interpreter should and answers the handshake in its own way."""
    answers = [body if body is not None else json.dumps(hello).encode(), json.dumps(then).encode()]
    return python_program(
        folder / "fake",
        "import os, struct, time\n"
        "reads = int(os.environ['POOL_MONITOR_FD'])\n"
        "writes = int(os.environ.get('POOL_MONITOR_OUT', reads))\n"
        f"for answer in {answers!r}:\n"
        "    os.read(reads, 65536)\n"
        "    os.write(writes, struct.pack('>I', len(answer)) + answer)\n"
        "time.sleep(60)\n",
    )


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"hello": {"type": "hello"}}, r"protocol None, but 1 was offered"),
        ({"hello": {"codec": "json", "python": "3"}}, r"invalid hello: \{'codec': 'json', 'python': '3'\}"),
        ({"hello": HELLO | {"protocol": True}}, r"protocol True, but 1 was offered"),
        ({"hello": HELLO | {"codec": "yaml"}}, r"codec 'yaml', but msgpack or json was offered"),
        ({"hello": HELLO | {"codec": "pickle"}}, r"codec 'pickle', but msgpack or json was offered"),
        ({"hello": HELLO | {"codec": []}}, r"codec \[\], but msgpack or json was offered"),
        ({"hello": HELLO | {"python": 3}}, r"'python' is not text: 3"),
        ({"body": b"HTTP/1.1 400 Bad Request"}, r"broke the protocol: a frame that is not valid json"),
        ({"body": b""}, r"broke the protocol: a frame without a body"),
    ],
)
async def test_a_program_that_is_no_worker_is_a_start_error(
    tmp_path: Path, answer: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(StartError, match=complaint):
        async with Pool(OPS, size=1, python=fake_worker(tmp_path, **answer), start_method="exec"):
            pass


@pytest.mark.parametrize(
    ("operations", "complaint"),
    [
        ({}, "invalid operations: {}"),
        ([], r"invalid operations: \[\]"),
        ({"echo": "procedure"}, "operation 'echo' has the invalid kind 'procedure'"),
        ({"echo": []}, r"operation 'echo' has the invalid kind \[\]"),
        ({"echo": {"a": 1}}, "operation 'echo' has the invalid kind {'a': 1}"),
        ({"": "function"}, "invalid name of an operation: ''"),
        ({"\ud800": "function"}, "invalid name of an operation"),
        ({"x" * 10_000: "function"}, "invalid name of an operation: 'xxx"),
        ({str(number): "function" for number in range(20_000)}, "invalid operations: {'0': 'function'"),
    ],
)
async def test_a_worker_without_sound_operations_is_a_start_error(
    tmp_path: Path, operations: dict[str, str], complaint: str
) -> None:
    python = fake_worker(tmp_path, hello=HELLO, then=["ready", operations])
    with pytest.raises(StartError, match=complaint):
        async with Pool(OPS, size=1, python=python, start_method="exec"):
            pass


async def test_an_interpreter_that_does_not_run_is_a_start_error(tmp_path: Path) -> None:
    needed = "python= needs a Python interpreter of version 3.8 or later, as a path or as a name on PATH"
    with pytest.raises(StartError, match=rf"cannot run '/no/such/python': No such file or directory; {needed}$"):
        async with Pool(OPS, size=2, python="/no/such/python"):
            pass
    with pytest.raises(
        StartError, match=r"cannot run '/no/program': No such file .*; command= needs a program, as a path"
    ):
        async with Pool(OPS, size=1, command=("/no/program", "--fast")):
            pass
    with pytest.raises(
        StartError, match=r"interpreter '/bin/true' ended before it was ready \(exit code 0\); python= needs"
    ):
        async with Pool(OPS, size=1, python="/bin/true"):
            pass
    with pytest.raises(
        StartError, match=r"worker, '/bin/false', ended before it was ready \(exit code 1\); python= needs"
    ):
        async with Pool(OPS, size=1, python="/bin/false", start_method="exec"):
            pass
    with pytest.raises(
        StartError, match=r"worker, '/bin/true', ended .* \(exit code 0\); command= needs a program that"
    ):
        async with Pool(OPS, size=1, command=("/bin/true",)):
            pass
    with pytest.raises(StartError, match=r"cannot run 'a\\x00b': embedded null byte$"):
        async with Pool(OPS, size=1, python="a\0b"):
            pass


async def test_a_worker_that_dies_as_soon_as_it_is_asked_says_how() -> None:
    async with ops_pool() as pool:
        with pytest.raises(
            WorkerDied, match=r"worker ops-0 ended during the call: exit code 3\n.*\nlast words"
        ) as failure:
            await pool.run("die")
    assert (failure.value.worker, failure.value.exit_code, failure.value.stderr) == ("ops-0", 3, "last words")
