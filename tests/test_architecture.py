"""The house as it is meant to be: who may import whom, what an import costs, how long a file may get."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pool_monitor
from tests.helpers.programs import ROOT

PACKAGE = ROOT / "pool_monitor"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
LINES_MAX = 600
HEAVY = {
    "aiosqlite",
    "google",
    "hdrh",
    "opentelemetry",
    "numpy",
    "textual",
    "rich",
    "httpx",
    "uvicorn",
    "starlette",
    "structlog",
    "click",
    "anyio",
    "psutil",
    "msgspec",
}

LOADED = """
import json, sys
opened = []
sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == "open" else None)
import {module}
print(json.dumps([sorted(sys.modules), opened]))
"""


def loaded(module: str) -> tuple[set[str], list[str]]:
    """What is in ``sys.modules`` after importing *module* alone, and the files that were opened for it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules, opened = json.loads(done.stdout)
    return set(modules), opened


def test_importing_the_package_loads_nothing_of_weight_and_touches_no_file_but_code():
    modules, opened = loaded("pool_monitor")
    assert not HEAVY & modules
    assert {name for name in modules if name.startswith("pool_monitor")} == {"pool_monitor", "pool_monitor.version"}
    assert [path for path in opened if not path.endswith((".py", ".pyc")) and not Path(path).is_dir()] == []


def test_telemetry_alone_is_as_light():
    modules, _ = loaded("pool_monitor.telemetry")
    assert not HEAVY & modules


@pytest.mark.parametrize("module", ["pool_monitor.pool.pool", "pool_monitor.events"])
def test_the_emit_side_never_loads_the_read_side(module: str):
    modules, _ = loaded(module)
    floors = {name.split(".")[1] for name in modules if name.startswith("pool_monitor.")}
    assert not floors & {"metrics", "storage", "export", "service", "view", "dashboard", "monitor", "cli", "demo"}
    assert not modules & (HEAVY - {"anyio", "msgspec"})


READERS = ["metrics", "storage", "export.prometheus", "service.app", "service.client", "view", "dashboard.app"]


@pytest.mark.parametrize("module", READERS)
def test_the_read_side_never_loads_pools(module: str):
    modules, _ = loaded(f"pool_monitor.{module}")
    assert not [name for name in modules if name.startswith("pool_monitor.pool")]


def test_every_public_name_is_there_and_listed():
    assert pool_monitor.__all__ == sorted(pool_monitor.__all__)
    for name in pool_monitor.__all__:
        assert getattr(pool_monitor, name) is not None
        assert name in dir(pool_monitor)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = pool_monitor.nope
    space: dict[str, object] = {}
    exec("from pool_monitor import *", space)
    assert space.keys() >= set(pool_monitor.__all__)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outgrows_a_reader(path: Path):
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_names_a_place_of_one_machine(path: Path):
    text = path.read_text()
    assert not [word for word in ("/root/", "/home/", "/work/") if word in text]


def test_imports_point_down():
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if linter is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
