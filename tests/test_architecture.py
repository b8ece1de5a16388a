"""The house as it is meant to be: which way imports go, what an import costs, how large a file or a class may get, and
that a name means one thing.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pool_monitor
from tests.helpers.programs import ROOT

PACKAGE = ROOT / "pool_monitor"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
LINES_MAX = 500
METHODS_MAX = 30  # of one class; an overloaded one counts once
BOTH_SIDES = "the parent's side and the worker's side of one thing; the worker's may not import the parent's"
EXCEPTIONS: dict[str, tuple[int, str]] = {
    # what may have another bound: the bound, and why
    "lines of pool/dispatcher.py": (450, "every feature of the pool passes here, so it keeps room for the next one"),
    "lines of pool/supervisor.py": (450, "every feature of the pool passes here, so it keeps room for the next one"),
    "classes named OperationCancelled": (2, BOTH_SIDES),
    "classes named PayloadError": (2, BOTH_SIDES),
    "classes named Session": (2, BOTH_SIDES),
    "classes named Worker": (2, BOTH_SIDES),
    "classes named Zygote": (2, BOTH_SIDES),
}
"""All exceptions from the rules on size and names. There are no others, and each is needed."""
METHOD = ast.FunctionDef | ast.AsyncFunctionDef
READ_SIDE = {
    "metrics",
    "findings",
    "parts",
    "storage",
    "export",
    "service",
    "view",
    "dashboard",
    "monitor",
    "cli",
    "demo",
}
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
    assert not floors & READ_SIDE
    assert not modules & (HEAVY - {"anyio", "msgspec"})


@pytest.mark.parametrize("module", ["file", "log", "formats", "table", "precautions"])
def test_a_receiver_of_this_machine_needs_no_client_for_http(module: str):
    modules, _ = loaded(f"pool_monitor.alerts.channels.{module}")
    assert not modules & {"httpx", "httpcore", "aiosmtplib", "apprise"}


@pytest.mark.parametrize("module", ["pool_monitor.alerts.manager", "pool_monitor.alerts.part"])
def test_alerts_load_what_sends_messages_only_when_somebody_is_told_by_it(module: str):
    modules, _ = loaded(module)
    assert not modules & {"httpx", "httpcore", "aiosmtplib", "apprise", "email.message", "yaml"}


def test_the_patterns_of_the_advisor_are_loaded_with_its_first_pass():
    modules, _ = loaded("pool_monitor.advisor.core")
    assert not [name for name in modules if name.startswith(("pool_monitor.advisor.patterns", "pool_monitor.tuner"))]


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
    name = path.relative_to(PACKAGE).as_posix()
    lines = len(path.read_text().splitlines())
    assert lines <= bound(f"lines of {name}", LINES_MAX)


def bound(what: str, usual: int) -> int:
    return EXCEPTIONS.get(what, (usual, ""))[0]


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """The classes of the package that are not within another class or a function."""
    for path in MODULES:
        yield from ((path, node) for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))


def methods_of(path: Path, node: ast.ClassDef) -> str:
    return f"methods of {node.name} in {path.relative_to(PACKAGE).as_posix()}"


def test_no_class_has_more_methods_than_a_reader_can_keep_in_mind():
    methods = {
        methods_of(path, node): len({item.name for item in node.body if isinstance(item, METHOD)})
        for path, node in classes()
    }
    too_many = {what: count for what, count in methods.items() if count > bound(what, METHODS_MAX)}
    assert not too_many, too_many


def test_no_public_class_name_stands_for_two_things():
    counts = Counter(node.name for _, node in classes() if not node.name.startswith("_"))
    doubled = {name: count for name, count in counts.items() if count > bound(f"classes named {name}", 1)}
    assert not doubled, doubled


@pytest.mark.slow
@pytest.mark.gate
def test_every_exception_is_needed():
    names = Counter(node.name for _, node in classes())
    there = {f"lines of {path.relative_to(PACKAGE).as_posix()}" for path in MODULES}
    there |= {f"classes named {name}" for name in names} | {methods_of(path, node) for path, node in classes()}
    assert not EXCEPTIONS.keys() - there
    unused = [name for name, count in names.items() if count < bound(f"classes named {name}", 1)]
    assert not unused, unused


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


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checking and inside functions count too: a reader has to follow them as well."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("pool_monitor", cache_dir=None)
    circles: dict[frozenset[str], str] = {}
    for importer in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(importer):
            back = graph.find_shortest_chain(importer=imported, imported=importer)
            if back is not None:
                circles.setdefault(frozenset(back), " -> ".join((importer, *back)))
    assert not circles, "\n".join(sorted(circles.values()))
