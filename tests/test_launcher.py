"""What workers are started with: settled when the pool is entered, refused in words where it cannot be."""

from __future__ import annotations

import ast
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import ConfigError, Pool, StartError, telemetry
from pool_monitor.pool.transport import child
from tests.helpers.support import OPS, TARGETS, alive, eventually, old_interpreters, ops_pool

pytestmark = pytest.mark.usefixtures("no_leaks")

PROGRAM = str(Path(child.__file__).with_name("__main__.py"))
NOT_UTF_8 = os.fsdecode(b"caf\xe9")
METHODS = pytest.mark.parametrize("method", ["exec", pytest.param("zygote", marks=pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere there are no zygotes"))])  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a target, a directory of modules and an interpreter in it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "borrowed.py").write_text("WORD = 'hello'\n")
    (tmp_path / "ops.py").write_text(
        "import os\nfrom borrowed import WORD\n"
        "def word(): return WORD\ndef pid(): return os.getpid()\ndef directory(): return os.getcwd()\n"
    )
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_directory(path: Path) -> Path:
    """*path*, made; skips the test where file names have to be UTF-8."""
    try:
        path.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    return path


async def again(pool: Pool) -> None:
    """Have the worker, and the zygote if there is one, replaced."""
    pid, before = await pool.run("pid"), pool.status().restarts
    zygote = None if pool._launcher is None else pool._launcher.zygote_pid
    for number in filter(None, (zygote, pid)):
        os.kill(number, signal.SIGKILL)
        await eventually(lambda number=number: not alive(number))
    await eventually(lambda: pool.status().restarts > before and pool.status().idle == 1)
    assert await pool.run("pid") != pid


# -- settled ------------------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("target", ["lib/../ops.py", "ops"])
async def test_a_restart_finds_what_the_first_start_found_wherever_the_service_has_gone(
    target: str, method: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fields: dict[str, Any] = {"size": 1, "sys_path": ("lib",), "python": "./python", "start_method": method}
    async with Pool(target, backoff_min=0.01, **fields) as pool:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        await again(pool)
        assert await pool.run("word") == "hello"
        assert await pool.run("directory") == str(place)
        await pool.restart()
        assert await pool.run("word") == "hello"
    assert pool.target == target


async def test_a_command_by_its_path_is_found_again_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Path("program.py").symlink_to(PROGRAM)
    command = ("./python", "-c", f"import runpy; runpy.run_path({PROGRAM!r}, run_name='__main__')")
    async with Pool("ops.py", size=1, sys_path=("lib",), command=command, backoff_min=0.01) as pool:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        await again(pool)
        assert await pool.run("directory") == str(place)


@METHODS
async def test_a_program_by_its_name_is_looked_for_on_path(
    method: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    async with ops_pool(python="python", start_method=method) as pool:
        assert psutil.Process(await pool.run("pid")).cmdline()[0] == "python"


@METHODS
async def test_workers_start_where_the_service_is_once_their_directory_is_gone(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    async with ops_pool(start_method=method, backoff_min=0.01) as pool:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "release").rmdir()
        await again(pool)
        assert await pool.run("directory") == str(tmp_path)


# -- a working directory that is gone -----------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()


@METHODS
async def test_a_pool_opens_without_a_working_directory(method: str, nowhere: None) -> None:
    async with ops_pool(start_method=method) as pool:
        assert await pool.run("echo", 1) == 1
    async with Pool("plain", size=1, sys_path=(str(TARGETS),), start_method=method) as pool:
        assert await pool.run("double", 2) == 4


@pytest.mark.parametrize("fields", [
    {"target": "ops.py:Ops"}, {"sys_path": ("lib",)}, {"python": "venv/bin/python"}, {"command": ("./worker",)},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
async def test_what_is_relative_to_a_working_directory_that_is_gone_is_refused(
    fields: dict[str, Any], nowhere: None
) -> None:
    [name] = fields
    with pytest.raises(
        ConfigError, match=rf"{name}=.*is relative, and the working directory is gone: give an absolute"
    ):
        await Pool(**{"target": OPS, "size": 1, **fields}).__aenter__()


# -- no interpreter -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executable", [None, ""])
async def test_a_python_that_does_not_know_its_interpreter_asks_for_one(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(ConfigError, match=r"python=None.*sys\.executable is.*python= needs a Python interpreter"):
        await ops_pool().__aenter__()
    async with ops_pool(python=python) as pool:
        assert await pool.run("echo", 1) == 1
    async with ops_pool(command=(python, PROGRAM)) as pool:
        assert await pool.run("echo", 1) == 1


async def test_a_frozen_application_asks_for_an_interpreter_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python, started = sys.executable, tmp_path / "started"
    application = tmp_path / "application"
    application.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    application.chmod(0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(application))
    for given in (None, str(application)):
        with pytest.raises(ConfigError, match=r"frozen application.*python= needs a Python interpreter"):
            await ops_pool(python=given).__aenter__()
    assert not started.exists()
    async with ops_pool(python=python) as pool:
        assert await pool.run("echo", 1) == 1


# -- odd paths ----------------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("codec", ["auto", "json"])
async def test_an_import_path_with_odd_entries_holds_up_no_pool(
    codec: str, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = a_directory(tmp_path / NOT_UTF_8)
    (odd / "borrowed.py").write_text("def word(): return 'hello'\n")
    monkeypatch.setattr(sys, "path", [tmp_path, bytes(tmp_path), str(odd), *sys.path])
    with telemetry.capture(("pool", "error")) as errors:
        async with ops_pool(codec=codec, start_method=method) as pool:
            assert await pool.run("echo", 1) == 1
        if codec != "auto":
            async with Pool("borrowed", size=1, codec=codec, start_method=method) as pool:
                assert await pool.run("word") == "hello"
    assert ["not UTF-8" in error.metadata["reason"] for error in errors] == ([True] if codec == "auto" else [])


@METHODS
async def test_a_directory_that_is_no_utf_8_is_refused_by_its_field_or_carried(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = a_directory(tmp_path / NOT_UTF_8)
    (odd / "borrowed.py").write_text("def word(): return 'hello'\n")
    monkeypatch.chdir(odd)
    for target, fields in (("borrowed.py", {}), ("borrowed", {"sys_path": (str(odd),)})):
        field = "sys_path" if fields else "target"
        with pytest.raises(ConfigError, match=rf"{field}='.*caf\\udce9.*not UTF-8.*use codec='json'") as refusal:
            await Pool(target, size=1, start_method=method, **fields).__aenter__()
        str(refusal.value).encode()  # can be printed anywhere
        async with Pool(target, size=1, codec="json", start_method=method, **fields) as pool:
            assert await pool.run("word") == "hello"


@pytest.mark.parametrize("fields", [{"target": "a\0.py"}, {"sys_path": ("a\0",)}, {"python": "/a\0"}], ids=str)
async def test_a_path_with_a_nul_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    [name] = fields
    with pytest.raises(ConfigError, match=rf"{name}=.*has a NUL in it"):
        await Pool(**{"target": OPS, "size": 1, **fields}).__aenter__()


async def test_a_file_that_imports_relative_to_its_package_is_asked_for_as_its_module(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "there.py").write_text("VALUE = 5\n")
    (package / "ops.py").write_text("from . import there\n\ndef value():\n    return there.VALUE\n")
    with pytest.raises(StartError, match=r"name it as a module of its package, such as 'package.ops:Name'"):
        async with Pool(str(package / "ops.py"), size=1):
            pass
    async with Pool("package.ops", size=1, sys_path=[str(tmp_path)]) as pool:
        assert await pool.run("value") == 5


# -- interpreters -------------------------------------------------------------------------------------------------


@METHODS
async def test_a_directory_in_place_of_an_interpreter_is_called_one(tmp_path: Path, method: str) -> None:
    needed = "python= needs a Python interpreter of version 3.8 or later, as a path or as a name on PATH"
    with pytest.raises(StartError) as refusal:
        async with Pool(OPS, size=1, python=str(tmp_path), start_method=method):
            pass
    assert str(refusal.value) == f"cannot run '{tmp_path}': it is a directory; {needed}"


@METHODS
async def test_the_directory_of_a_virtual_environment_is_answered_with_its_interpreter(
    tmp_path: Path, method: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(StartError, match=f"it is a directory, whose interpreter is '{tmp_path}/bin/python'; python= "):
        async with Pool(OPS, size=1, python=str(tmp_path), start_method=method):
            pass


def old_interpreter(version: str, tmp_path: Path) -> str:
    """Python of that version, or where there is none, this one with the version that it would have."""
    real = old_interpreters().get(version)
    if real is not None:
        return real
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {(*map(int, version.split('.')), 0)}\n")
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))} exec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    return str(script)


@METHODS
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
async def test_an_interpreter_that_is_too_old_says_so(version: str, method: str, tmp_path: Path) -> None:
    python = old_interpreter(version, tmp_path)
    with pytest.raises(StartError, match=rf"need Python 3\.8 or later, and .* is Python {version}\.\d+$"):
        async with Pool(OPS, size=1, python=python, start_method=method):
            pass


def test_every_python_can_read_the_program_of_a_worker() -> None:
    source = Path(PROGRAM).read_text()
    assert source.isascii()  # Python 2 takes nothing else without being told
    tree = ast.parse(source)
    annotated = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.FunctionDef | ast.JoinedStr)]
    assert annotated == []
    assert not any(isinstance(node, ast.ImportFrom) for node in tree.body)  # such as one from __future__
