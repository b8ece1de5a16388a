"""Generate the blocks of the docs that describe code: ``python docs/generate.py``; ``--check`` only compares.

The content of a block, up to its ``<!-- end -->``, is replaced: after ``<!-- generated: name -->`` by what the function
of that name returns, after ``<!-- golden: name -->`` by the golden frame of that name, and after ``<!-- contents -->``
by links to the headings of the same document.
"""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import draw_imports
from msgspec import Struct

from pool_monitor.advisor.lifecycle import LIFE as ADVICE_LIFE
from pool_monitor.alerts.catalogue import DURATIONS, METRICS, Metric, Unit
from pool_monitor.alerts.defaults import default_rules as rules_of_the_package
from pool_monitor.alerts.delivery.contact import CONTACT
from pool_monitor.alerts.lifecycle import LIFE
from pool_monitor.alerts.quantity import text_of
from pool_monitor.alerts.rule import (
    Absolute,
    Bound,
    CheckedRule,
    FindingIs,
    OfLimit,
    OwnBaseline,
    RateOfChange,
    Threshold,
)
from pool_monitor.alerts.rule_file.bounds import LEVEL, RELATIVE
from pool_monitor.alerts.rule_file.fields import Section
from pool_monitor.alerts.rule_file.file import file_section
from pool_monitor.alerts.rule_file.kinds import CONDITION
from pool_monitor.alerts.rule_file.routes import (
    ALERTMANAGER,
    APPRISE,
    EMAIL,
    HEADER,
    INHIBITION,
    RECEIVER,
    ROUTE,
    WEBHOOK,
)
from pool_monitor.alerts.rule_file.rules import KIND_SECTIONS, MUTE_TIME, RULE
from pool_monitor.alerts.rule_file.shape import leaves
from pool_monitor.config import MonitorConfig, PoolConfig
from pool_monitor.events import CATALOGUE
from pool_monitor.metrics.ladder import MODES
from pool_monitor.pool.policy.breaker import BREAKER
from pool_monitor.pool.policy.lifecycle import LIFECYCLE
from pool_monitor.pool.policy.retry import RETRIES
from pool_monitor.pool.tunables import KNOBS
from pool_monitor.state_machine import StateMachine
from pool_monitor.tuner.sizing.guard import GUARD
from pool_monitor.tuner.trial import TRIAL

RULE_FILE = (
    *(file_section(), RULE, *KIND_SECTIONS.values(), LEVEL, RELATIVE, CONDITION, MUTE_TIME, ROUTE, RECEIVER),
    *(WEBHOOK, HEADER, EMAIL, ALERTMANAGER, APPRISE, INHIBITION),
)
"""The sections of a rule file, in the order of the reference."""
ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- (generated|golden): (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CONTENTS = re.compile(r"(<!-- contents -->\n)(.*?)(<!-- end -->)", re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


def lifecycle() -> str:
    """Return a worker's transitions as a Mermaid diagram."""
    return _diagram(LIFECYCLE)


def breaker() -> str:
    """Return the circuit breaker's transitions as a Mermaid diagram."""
    return _diagram(BREAKER)


def alert_life() -> str:
    """Return the transitions of an alert."""
    return _diagram(LIFE)


def recommendation_life() -> str:
    """Return the transitions of a recommendation."""
    return _diagram(ADVICE_LIFE)


def receiver() -> str:
    """Return the states of a receiver of alerts."""
    return _diagram(CONTACT)


def trial() -> str:
    """Return the life of a change by the tuner."""
    return _diagram(TRIAL)


def modes() -> str:
    """The modes of the collector."""
    return _diagram(MODES)


def guard() -> str:
    """Return the states of the guard of a pool's size."""
    return _diagram(GUARD)


def _diagram(machine: StateMachine[Any]) -> str:
    return f"```mermaid\n{machine.mermaid()}\n```"


def retries() -> str:
    """Return how often and how a failed call is sent again, by category, as a table."""
    rows = [f"| {category} | {times} | {style if times else ''} |" for category, (times, style) in RETRIES.items()]
    return "\n".join(["| category | times | how |", "|---|---|---|", *rows])


def pool_config() -> str:
    """Return the fields of PoolConfig with their defaults and docstrings, as a table."""
    return _fields(PoolConfig())


def tunables() -> str:
    """Return the settings that a pool offers to be changed while it runs, as a table."""
    rows = [
        f"| `{knob.name}` | {knob.unit} | {knob.safe} | {knob.effect} | {knob.offered_when or 'always'} |"
        for knob in KNOBS
    ]
    head = "| setting | unit | safe range | a change applies | offered when |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def monitor_config() -> str:
    """Return the same for each section of MonitorConfig."""
    defaults = MonitorConfig()
    tables = {name: getattr(defaults, name) for name in MonitorConfig.__struct_fields__}
    return "\n\n".join(f"### `[{name}]`\n\n{_fields(table)}" for name, table in tables.items())


def _fields(defaults: Struct) -> str:
    docs = _field_docs(Path(inspect.getfile(type(defaults))), type(defaults).__name__)
    rows = [f"| `{name}` | `{getattr(defaults, name)!r}` | {docs[name]} |" for name in defaults.__struct_fields__]
    return "\n".join(["| field | default | meaning |", "|---|---|---|", *rows])


def events() -> str:
    """Return every event with its measurements and metadata, grouped by the first words of its name."""
    groups: dict[str, list[str]] = {}
    for name, spec in CATALOGUE.items():
        keys = [f"| measurement `{key}` | {text} |" for key, text in spec.measurements.items()]
        keys += [f"| metadata `{key}` | {text} |" for key, text in spec.metadata.items()]
        part = "\n".join([f"### `{spec.dotted}`", "", spec.meaning, "", "| key | meaning |", "|---|---|", *keys])
        groups.setdefault(".".join(name[: 2 if name[0] == "pool" and len(name) > 2 else 1]), []).append(part)
    return "\n\n".join("\n\n".join([f"## `{group}.*`", *parts]) for group, parts in groups.items())


def rule_file() -> str:
    """Return the keys of each section of a rule file, as tables."""
    return "\n\n".join(_keys(section) for section in RULE_FILE)


def _keys(section: Section) -> str:
    rows = []
    for key in section.keys.values():
        words = key.type.words.replace("|", "\\|")
        rows.append(f"| `{key.name}` | {words}{'; required' if key.required else ''} | {key.meaning} |")
    return "\n".join([f"### {section.words.capitalize()}", "", "| key | value | meaning |", "|---|---|---|", *rows])


def metrics() -> str:
    """Return the metrics of alert rules, a table for each scope. The statistics of durations share a row."""
    tables: dict[str, dict[str, list[Metric]]] = {}
    for metric in METRICS.values():
        *before, _field = metric.name.split(".")
        family = ".".join(before) if len(before) > 1 and before[-1] in DURATIONS else metric.name
        tables.setdefault(metric.scope, {}).setdefault(family, []).append(metric)
    return "\n\n".join(
        "\n".join(
            [
                f"### `{scope}`",
                "",
                "| metric | unit | covers | past | limit | meaning |",
                "|---|---|---|---|---|---|",
                *(_metric_row(family, some) for family, some in families.items()),
            ]
        )
        for scope, families in tables.items()
    )


def _metric_row(family: str, some: list[Metric]) -> str:
    first, last = some[0], some[-1]
    if len(some) == 1:
        name, unit, meaning = f"`{first.name}`", first.unit or "number", first.meaning
    else:
        fields = ", ".join(f"`.{metric.path[-1]}`" for metric in some)
        name, unit = f"`{family}`: {fields}", f"{last.unit}, `.count` a number"
        meaning = f"{DURATIONS[family.rpartition('.')[2]].capitalize()}."
    past = (
        "yes"
        if all(metric.kept for metric in some)
        else ", ".join(f"`.{metric.path[-1]}`" for metric in some if metric.kept and len(some) > 1)
    )
    limit = f"`{first.limit}`" if first.limit else ""
    return f"| {name} | {unit} | {'window' if first.windowed else 'now'} | {past} | {limit} | {meaning} |"


def headings(text: str) -> list[tuple[int, str, str]]:
    """Return the headings of a Markdown document: level, text and anchor.

    Anchors are those of GitHub: lower case, no punctuation, hyphens for spaces, and a number after a repeated anchor.
    """
    found: list[tuple[int, str, str]] = []
    seen: dict[str, int] = {}
    for marks, title in HEADING.findall(FENCED.sub("", text)):
        anchor = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        repeat = seen[anchor] = seen.get(anchor, -1) + 1
        found.append((len(marks), title.strip(), f"{anchor}-{repeat}" if repeat else anchor))
    return found


def contents(text: str) -> str:
    """Return a line for each chapter of a document, followed by its sections."""
    lines: list[str] = []
    sections = 0  # of the chapter in the last line
    for level, title, anchor in headings(text):
        link = f"[{title}](#{anchor})"
        if level == 2:
            lines.append(f"- {link}")
            sections = 0
        elif level == 3:
            lines[-1] += f"{' ·' if sections else ':'} {link}"
            sections += 1
    return "\n".join(lines)


def default_rules() -> str:
    """Return the rules that come with the package: levels, time, what they read, how a test fires them, section."""
    fired = runpy.run_path(str(ROOT / "tests" / "helpers" / "default_faults.py"))["FIRED"]
    rows = []
    for rule in rules_of_the_package():
        section = dict(rule.annotations)["runbook"].partition("#")[2]
        text = f"[{section.replace('-', ' ')}](#{section})"
        severity, how = fired[rule.alert]
        held = text_of(rule.for_, "s") if rule.for_ else ""
        rows.append(f"| `{rule.alert}` | {_reads(rule)} | {held} | {text} | {severity}: {how} |")
    head = "| rule | fires when | for | section | fired in the tests, and by what |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def _reads(rule: CheckedRule) -> str:
    match rule.kind:
        case Threshold():
            side = ">" if rule.kind.above else "<"
            unit = METRICS[rule.kind.metric].unit
            levels = ", ".join(f"{one.severity} {side} {_bound(one.bound, unit)}" for one in rule.kind.levels)
            window = f" {rule.kind.window}" if rule.kind.window else ""
            least = f" (of {rule.min_samples} calls or more)" if rule.min_samples else ""
            return f"`{rule.kind.metric}`{window}: {levels}{least}"
        case FindingIs():
            return f"the dashboard shows it: {', '.join(f'`{kind}`' for kind in rule.kind.kinds)}"
        case RateOfChange():
            change = f"falls by {text_of(rule.kind.falls_by or 0.0, 'ratio')} within {text_of(rule.kind.against, 's')}"
            return f"`{rule.kind.metric}` {rule.kind.window} {change}"
        case _:
            parts = [part for _, part in leaves(rule.kind) if isinstance(part, Threshold)]
            texts = (
                f"`{part.metric}` {'>' if part.above else '<'} "
                f"{_bound(part.levels[0].bound, METRICS[part.metric].unit)}"
                for part in parts
            )
            return f"{rule.severities[0]}: {' and '.join(texts)}"


def _bound(bound: Bound, unit: Unit) -> str:
    match bound:
        case Absolute():
            return text_of(bound.value, unit)
        case OfLimit():
            return f"{text_of(bound.ratio, 'ratio')} of its limit"
        case OwnBaseline():
            return f"{bound.times:g} times its own {text_of(bound.seconds, 's')} median"


def _field_docs(path: Path, class_name: str) -> dict[str, str]:
    """Return the docstring below each field of a class. Fields above one docstring share it."""
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
    "guard": guard,
    "modes": modes,
    "trial": trial,
    "alert_life": alert_life,
    "recommendation_life": recommendation_life,
    "receiver": receiver,
    "default_rules": default_rules,
    "pool_config": pool_config,
    "tunables": tunables,
    "monitor_config": monitor_config,
    "events": events,
    "rule_file": rule_file,
    "metrics": metrics,
    "floors": draw_imports.floors,
    "inside_pool": lambda: draw_imports.inside("pool_monitor.pool"),
    "inside_transport": lambda: draw_imports.inside("pool_monitor.pool.transport"),
    "inside_metrics": lambda: draw_imports.inside("pool_monitor.metrics"),
    "inside_alerts": lambda: draw_imports.inside("pool_monitor.alerts"),
    "inside_advisor": lambda: draw_imports.inside("pool_monitor.advisor"),
    "inside_tuner": lambda: draw_imports.inside("pool_monitor.tuner"),
}


def drawn(text: str) -> str:
    """Return the document with its blocks generated. The contents come last, because other blocks add headings."""
    text = BLOCK.sub(_drawn, text)
    return CONTENTS.sub(lambda match: f"{match[1]}{contents(text)}\n{match[3]}", text)


def out_of_date() -> dict[Path, str]:
    """Return the documents whose blocks are out of date, with the text they should have."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path: right for path in documents if (right := drawn(text := path.read_text())) != text}


if __name__ == "__main__":
    stale = out_of_date()
    if "--check" in sys.argv and stale:
        sys.exit(f"out of date: {', '.join(path.name for path in stale)}; run `make docs`")
    for path, text in stale.items():
        path.write_text(text)
