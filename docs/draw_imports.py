"""Draw the package from its import graph. docs/generate.py writes the drawings into docs/ARCHITECTURE.md."""

from __future__ import annotations

import re
import textwrap
import tomllib
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGE = "pool_monitor"
WIDTH = 100  # characters of a line of modules


def floors() -> str:
    """Return the rooms of the package on their floors, with their imports, as a Mermaid diagram.

    A floor is a layer of the import contract in pyproject.toml. An arrow that follows from other arrows is left out.
    Raises ValueError if a room is in no layer.
    """
    found = _imports(PACKAGE)
    found.pop(f"{PACKAGE}.__main__", None)
    layers = _layers()
    if homeless := sorted(found.keys() - set().union(*layers)):
        raise ValueError(f"no floor for {', '.join(homeless)}: add it to the layers in pyproject.toml")
    lines = ["flowchart TD"]
    for number, layer in zip(range(len(layers) - 1, -1, -1), layers, strict=True):
        lines += [f'    subgraph floor{number} ["floor {number}"]']
        lines += [f"        {_node(room)}" for room in sorted(layer & found.keys())]
        lines += ["    end"]
    reached = _reached(found)
    for room in sorted(found):
        implied = set().union(*(reached[other] for other in found[room]))
        lines += [f"    {_id(room)} --> {_id(other)}" for other in sorted(found[room] - implied)]
    return "\n".join(["```mermaid", *lines, "```"])


def inside(package: str) -> str:
    """Return the modules and folders directly in *package*, one line per level.

    A module imports from lower levels only. Modules that import each other in a circle share a level.
    """
    found = _imports(package)
    reached = _reached(found)

    @cache
    def level(module: str) -> int:
        below = [level(other) for other in reached[module] if module not in reached[other]]
        return 1 + max(below, default=-1)

    lines = []
    for number in range(max(map(level, found)), -1, -1):
        names = " ".join(_label(module) for module in sorted(found) if level(module) == number)
        indent = f"{number:>3}  "
        lines += textwrap.wrap(names, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent))
    return "\n".join(["```text", *lines, "```"])


@cache
def _graph() -> grimp.ImportGraph:
    """Return the import graph, including imports inside functions and under ``TYPE_CHECKING``."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def _imports(package: str) -> dict[str, set[str]]:
    """Return, for each module or folder directly in *package*, which of the others it imports."""
    graph = _graph()
    children = graph.find_children(package)
    home = {module: child for child in children for module in {child, *graph.find_descendants(child)}}
    found: dict[str, set[str]] = {child: set() for child in children}
    for module, child in home.items():
        others = {home[other] for other in graph.find_modules_directly_imported_by(module) if other in home}
        found[child] |= others - {child}
    return found


def _reached(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return everything that each module imports, directly or through others."""
    reached = {module: set(others) for module, others in found.items()}
    for middle, further in reached.items():
        for others in reached.values():
            if middle in others:
                others.update(further)
    return reached


def _layers() -> list[set[str]]:
    """Return the layers of the package from the top down, as the first layers contract in pyproject.toml lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [set(re.findall(r"[\w.]+", layer)) for layer in layers]


def _id(room: str) -> str:
    return f"room_{room.rpartition('.')[2]}"


def _node(room: str) -> str:
    return f'{_id(room)}["{_label(room)}"]'


def _label(module: str) -> str:
    """Return the name of a module, or of a folder with a slash at its end."""
    name = module.rpartition(".")[2]
    return f"{name}/" if (ROOT / module.replace(".", "/")).is_dir() else name
