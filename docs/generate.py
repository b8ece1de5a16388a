"""Draw the tables of the docs that describe code from the code: ``python docs/generate.py``, or ``--check`` them.

A block between ``<!-- generated: name -->`` and ``<!-- end -->`` is replaced by what the function of that name
returns; ``<!-- golden: name -->`` by the golden frame of that name.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from pool_monitor import config
from pool_monitor.config import MonitorConfig, PoolConfig
from pool_monitor.events import CATALOGUE
from pool_monitor.pool.policy.breaker import BREAKER
from pool_monitor.pool.policy.lifecycle import LIFECYCLE
from pool_monitor.pool.policy.retry import RETRIES
from pool_monitor.state_machine import StateMachine

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- (generated|golden): (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def lifecycle() -> str:
    """The table of a worker's transitions as a Mermaid diagram."""
    return _diagram(LIFECYCLE)


def breaker() -> str:
    """The table of the circuit breaker as a Mermaid diagram."""
    return _diagram(BREAKER)


def _diagram(machine: StateMachine[Any]) -> str:
    return f"```mermaid\n{machine.mermaid()}\n```"


def retries() -> str:
    """What is sent again, by category."""
    rows = [f"| {category} | {times} | {style if times else ''} |" for category, (times, style) in RETRIES.items()]
    return "\n".join(["| category | times | how |", "|---|---|---|", *rows])


def pool_config() -> str:
    """The fields of PoolConfig with their defaults and docstrings."""
    return _fields(PoolConfig())


def monitor_config() -> str:
    """The tables of MonitorConfig, likewise."""
    defaults = MonitorConfig()
    tables = {name: getattr(defaults, name) for name in MonitorConfig.__struct_fields__}
    return "\n\n".join(f"### `[{name}]`\n\n{_fields(table)}" for name, table in tables.items())


def _fields(defaults: Struct) -> str:
    docs = _field_docs(Path(config.__file__), type(defaults).__name__)
    rows = [f"| `{name}` | `{getattr(defaults, name)!r}` | {docs[name]} |" for name in defaults.__struct_fields__]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows])


def events() -> str:
    """Every event with its measurements and metadata."""
    parts = []
    for spec in CATALOGUE.values():
        keys = [f"| measurement `{key}` | {text} |" for key, text in spec.measurements.items()]
        keys += [f"| metadata `{key}` | {text} |" for key, text in spec.metadata.items()]
        parts.append("\n".join([f"### `{spec.dotted}`", "", spec.meaning, "", "| key | meaning |", "|---|---|", *keys]))
    return "\n\n".join(parts)


def _field_docs(path: Path, class_name: str) -> dict[str, str]:
    """The string below each field of a class; fields that share one stand above it together."""
    found: dict[str, str] = {}
    fields: list[str] = []
    for node in next(
        item for item in ast.parse(path.read_text()).body if isinstance(item, ast.ClassDef) and item.name == class_name
    ).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and fields:
            found |= dict.fromkeys(fields, " ".join(str(node.value.value).split()))
            fields = []
    return found


def _drawn(match: re.Match[str]) -> str:
    start, kind, name, _, end = match.groups()
    if kind == "golden":
        frame = (ROOT / "tests" / "golden" / f"{name}.txt").read_text().rstrip("\n")
        return f"{start}```text\n{frame}\n```\n{end}"
    return f"{start}{GENERATED[name]()}\n{end}"


GENERATED = {
    "breaker": breaker,
    "retries": retries,
    "lifecycle": lifecycle,
    "pool_config": pool_config,
    "monitor_config": monitor_config,
    "events": events,
}


def out_of_date() -> dict[Path, str]:
    """The documents that are not as the code says, and what they should be."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    drawn = {path: BLOCK.sub(_drawn, path.read_text()) for path in documents}
    return {path: text for path, text in drawn.items() if text != path.read_text()}


if __name__ == "__main__":
    stale = out_of_date()
    if "--check" in sys.argv and stale:
        sys.exit(f"out of date: {', '.join(path.name for path in stale)}; run `make docs`")
    for path, text in stale.items():
        path.write_text(text)
