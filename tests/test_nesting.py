"""Pools within pools: an operation may open one; what would open pools without end is refused at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor import ConfigError, Pool, StartError
from tests.helpers.programs import Done, Program
from tests.helpers.support import ops_pool

Service = Callable[..., Done]

# Every run is noted in a file; the fourth ends itself, so that a chain has an end also where nothing stops it.
BEGIN = """
import asyncio, os, sys, threading
with open({log!r}, "a+") as runs:
    runs.write("x")
    runs.seek(0)
    if len(runs.read()) > 3:
        os._exit(99)
from pool_monitor import Pool
class W:
    def hi(self): return "hi"
async def main(target={target!r}, **fields):
    async with Pool(target, size=1, start_timeout=10, **fields) as pool: print(await pool.run("hi"), flush=True)
"""


@pytest.fixture
def service(tmp_path: Path, program: Callable[..., Program]) -> Service:
    """Runs a script that has a target in it, and ends as said."""

    def run(end: str, *, target: str = "") -> Done:
        script = tmp_path / "service.py"
        begin = BEGIN.format(log=str(tmp_path / "runs"), target=target or f"{script}:W")
        script.write_text(begin + end)
        return program(str(script)).ended()

    return run


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text())


METHODS = pytest.mark.parametrize("method", ["exec", "auto"])


# -- a script that is its own target ------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("fields", ["", ", concurrency=2"], ids=["one call", "several calls"])
def test_a_script_that_opens_a_pool_when_it_is_imported_is_refused_by_naming_the_guard(
    fields: str, method: str, service: Service, tmp_path: Path
) -> None:
    done = service(f"asyncio.run(main(start_method={method!r}{fields}))\n")
    assert done.code == 1
    assert (
        f"cannot load '{tmp_path}/service.py:W': StartError: pool 'default' is opened while a worker imports"
        in done.err
    )
    assert 'under `if __name__ == "__main__":`' in done.err
    assert runs(tmp_path) == 2


def test_so_is_one_that_does_it_in_a_thread(service: Service, tmp_path: Path) -> None:
    done = service("t = threading.Thread(target=lambda: asyncio.run(main()))\nt.start()\nt.join()\n")
    assert "hi" in done.out  # the thread fails in the worker, which goes on
    assert runs(tmp_path) == 2


def test_a_thread_that_outlives_the_import_opens_no_pool_of_the_same_target_either(
    service: Service, tmp_path: Path
) -> None:
    done = service(
        "called, done, refusals = threading.Event(), threading.Event(), []\n"
        "class W:\n"
        "    def hi(self): called.set(); done.wait(5); return refusals\n"
        "def later():\n"
        "    if __name__ != '__main__': called.wait(5)\n"
        "    try: asyncio.run(main())\n"
        "    except Exception as error: refusals.append(str(error))\n"
        "    done.set()\n"
        "threading.Thread(target=later).start()\n"
    )
    assert "is opened by its own target" in done.out
    assert runs(tmp_path) == 2


def test_a_module_that_is_preloaded_may_not_open_a_pool_either(service: Service, tmp_path: Path) -> None:
    done = service("asyncio.run(main(preload=['service'], start_method='zygote'))\n")
    if sys.platform == "linux":
        assert (
            "cannot preload 'service': StartError: pool 'default' is opened while a worker imports 'service'"
            in done.err
        )
    assert runs(tmp_path) == 2


def test_a_target_that_opens_its_own_pool_in_its_constructor_is_refused(service: Service, tmp_path: Path) -> None:
    done = service(
        "class W(W):\n    def __init__(self): asyncio.run(main())\nif __name__ == '__main__': asyncio.run(main())\n"
    )
    assert "StartError: pool 'default' is opened by its own target" in done.err
    assert runs(tmp_path) == 2


def test_a_guarded_script_is_its_own_target(service: Service, tmp_path: Path) -> None:
    done = service("if __name__ == '__main__': asyncio.run(main())\n")
    assert (done.out, done.err, done.code) == ("hi\n", "", 0)
    assert runs(tmp_path) == 2


async def test_an_operation_may_open_a_pool_of_its_own_target(tmp_path: Path, no_leaks: None) -> None:
    (tmp_path / "tree.py").write_text(
        "from pool_monitor import Pool\n"
        "async def depth(levels):\n"
        "    if not levels: return 0\n"
        "    async with Pool(__file__, size=1) as pool: return 1 + await pool.run('depth', levels - 1)\n"
    )
    async with Pool(f"{tmp_path}/tree.py", size=1) as pool:
        assert await pool.run("depth", 2) == 2


@pytest.mark.parametrize("target", ["__main__:W", "__main__", "__main__.Inner:W"])
def test_the_main_program_as_a_target_is_refused_with_the_file_to_name(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/srv/service.py", raising=False)
    with pytest.raises(ConfigError, match=r"runs another main program, .* name the file, '/srv/service\.py"):
        Pool(target)
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with pytest.raises(ConfigError, match=r"name the file, 'path/to/file\.py"):
        Pool(target)
    Pool(target, command=("worker",))  # what its target is, it says itself
    Pool("__main__helper:W")


# -- a program that runs in place of a worker ---------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("how", ["exec", "as a child"])
def test_a_program_that_starts_itself_in_place_of_a_worker_does_so_once(
    how: str, method: str, service: Service, tmp_path: Path
) -> None:
    application = tmp_path / "application"
    prefix = "exec " if how == "exec" else ""
    application.write_text(f"#!/bin/sh\n{prefix}'{sys.executable}' '{tmp_path}/service.py'\n")
    application.chmod(0o755)
    done = service(f"asyncio.run(main(python={str(application)!r}, start_method={method!r}))\n")
    assert done.code == 1
    assert "ended before it was ready (exit code 1)" in done.err
    assert "is opened in a process that a pool started as a worker" in done.err
    assert "set python= of the pool that started it to a Python interpreter" in done.err
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("name", ["POOL_MONITOR_ZYGOTE", "POOL_MONITOR_FD"])
async def test_no_pool_opens_where_a_worker_was_to_be(
    name: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setenv(name, "7")
    pool = ops_pool()
    with pytest.raises(StartError, match=name):
        await pool.__aenter__()
    assert pool.status().state == "new"
    monkeypatch.delenv(name)
    async with pool:
        assert await pool.run("environment", name) is None
        assert os.environ.get(name) is None
