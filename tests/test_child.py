"""The program in the worker: what it loads, in which Python, what it answers, and what it does not let through."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import OperationError, PayloadError, Pool, StartError, WorkerDied, telemetry
from pool_monitor.pool.transport import child
from tests.support import OPS, TARGETS, eventually, interpreters, ops_pool, running

pytestmark = pytest.mark.usefixtures("no_leaks")

PLAIN = TARGETS / "plain.py"


# -- interpreters -------------------------------------------------------------------------------------------------


def has_msgpack(python: str) -> bool:
    program = "import importlib.util as u, sys; sys.exit(not (u.find_spec('msgspec') or u.find_spec('msgpack')))"
    return subprocess.run([python, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
async def test_a_worker_runs_in_any_python_from_3_8(version: str, tmp_path: Path) -> None:
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
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
        names = ["POOL_TEST_INHERITED", "POOL_TEST_ADDED", "POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE"]
        names.append("POOL_MONITOR_SHARED")
        assert [await pool.run("environment", name) for name in names] == ["yes", "too", None, None, None]


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("no_such_module:Thing", r"no module named 'no_such_module' \(looked for 'no_such_module:Thing' in .*"),
        ("package.none:Thing", r"no module named 'package\.none'"),
        ("package.needs:Thing", r"ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("package:needs", r"ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("package:none", r"package has no attribute 'none'; it has"),
        (f"{TARGETS}/missing.py:Thing", r"no file '.*missing\.py'; in its directory there are .*plain\.py"),
        (f"{TARGETS}/nowhere/missing.py:Thing", r"no file '.*missing\.py'; in its directory there are no \.py files"),
        (f"{PLAIN}:Missing", r"plain\.py has no attribute 'Missing'; it has .*Kept.*double"),
        (f"{PLAIN}:Kept.missing", r"has no attribute 'Kept\.missing'; it has .*value"),
        (f"{PLAIN}:Empty", r"plain\.py:Empty has no public functions or methods"),
        (f"{PLAIN}:double", r"plain\.py:double has no public functions or methods"),
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
        with pytest.raises(PayloadError, match=r"it returned a int, which is no generator: call it with run\("):
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


async def test_hooks_at_exit_run_when_a_worker_is_asked_to_stop(tmp_path: Path) -> None:
    async with ops_pool() as pool:
        await pool.run("tidy_up_at_exit", str(tmp_path / "tidied"), 0.3)
    assert (tmp_path / "tidied").exists()


# -- the handshake, from the other side ---------------------------------------------------------------------------


def fake_worker(folder: Path, *, hello: dict[str, Any] | None = None, body: bytes | None = None) -> str:
    """A program that stands where the interpreter should and answers the handshake in its own way."""
    answer = body if body is not None else json.dumps(hello).encode()
    program = folder / "fake"
    program.write_text(
        f"#!{sys.executable}\nimport os, socket, struct, time\n"
        "channel = socket.socket(fileno=int(os.environ['POOL_MONITOR_FD']))\n"
        "channel.recv(65536)\n"
        f"answer = {answer!r}\n"
        "channel.sendall(struct.pack('>I', len(answer)) + answer)\n"
        "time.sleep(60)\n"
    )
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"hello": {"type": "hello"}}, r"answered the handshake with \{'type': 'hello'\}"),
        ({"hello": {"codec": "yaml", "pid": 1, "python": "3"}}, r"answered the handshake with"),
        ({"hello": {"codec": "json", "pid": "x", "python": "3"}}, r"answered the handshake with"),
        ({"body": b"HTTP/1.1 400 Bad Request"}, r"broke the protocol: a frame that is no json"),
        ({"body": b""}, r"broke the protocol: a frame without a body"),
    ],
)
async def test_a_program_that_is_no_worker_is_a_start_error(
    tmp_path: Path, answer: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(StartError, match=complaint):
        async with Pool(OPS, size=1, python=fake_worker(tmp_path, **answer), start_method="exec"):
            pass


async def test_an_interpreter_that_does_not_run_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot run '/no/such/python'.*No such file"):
        async with Pool(OPS, size=2, python="/no/such/python"):
            pass
    with pytest.raises(StartError, match="cannot run"):
        async with Pool(OPS, size=1, python=str(tmp_path)):
            pass
    with pytest.raises(StartError, match=r"the worker ended before it was ready \(exit code 1\)"):
        async with Pool(OPS, size=1, python="/bin/false", start_method="exec"):
            pass
    with pytest.raises(StartError, match="embedded null byte"):
        async with Pool(OPS, size=1, env={"A": "\0"}):
            pass


async def test_a_worker_that_dies_as_soon_as_it_is_asked_says_how() -> None:
    async with ops_pool() as pool:
        with pytest.raises(WorkerDied, match=r"worker ops-0 ended meanwhile: exit code 3\n.*\nlast words") as failure:
            await pool.run("die")
    assert (failure.value.worker, failure.value.exit_code, failure.value.stderr) == ("ops-0", 3, "last words")
