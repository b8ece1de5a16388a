"""``pool-monitor rules check`` and ``rules schema``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pool_monitor.alerts.rule_file import check
from pool_monitor.alerts.rule_file.schema import schema
from tests.helpers.programs import ROOT, command, pool_monitor, program, runtime_dir

__all__ = ["command", "pool_monitor", "program", "runtime_dir"]

CORPUS = Path(__file__).parent / "rules_corpus"
GOOD = CORPUS / "good" / "documented.yaml"
BAD = CORPUS / "levels_in_wrong_order.yaml"


def test_a_good_file_is_said_to_be_good(command):
    done = command("rules", "check", GOOD)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "7 rules, no error"


def test_warnings_do_not_fail(command):
    assert "23:12: warning: " in command("rules", "check", GOOD).out


def test_every_error_of_every_file_is_one_line_that_editors_find(command):
    done = command("rules", "check", BAD, CORPUS / "key_twice.yaml")
    assert done.code == 1
    lines = done.out.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"\S+\.yaml:\d+:\d+: rules\[\d\] \"\w+\"", line) for line in lines)


def test_as_json(command):
    found = json.loads(command("rules", "check", "--json", GOOD, BAD).out)
    assert [one["rules"] for one in found["files"]] == [7, None]
    assert [one["line"] for one in found["problems"]] == [3, 4]
    assert set(found["problems"][0]) == {"file", "line", "column", "place", "message", "level"}


def test_a_file_that_cannot_be_read_is_an_error_of_usage_and_the_others_are_checked(command, tmp_path: Path):
    done = command("rules", "check", tmp_path / "none.yaml", tmp_path, BAD)
    assert done.code == 2
    assert "none.yaml: cannot be read: No such file" in done.err
    assert f"{tmp_path}: cannot be read: it is not a file" in done.err
    assert len(done.out.splitlines()) == 2


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "NOTIFICATIONS.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_routes_and_receivers_are_good(command, tmp_path: Path, example: str):
    path = tmp_path / "rules.yaml"
    path.write_text(example)
    done = command("rules", "check", path)
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines()[:-1] if not line.endswith("no route names it")] == []


@pytest.mark.parametrize("arguments", [["check"], ["chek", "x"], ["check", "--nope", "x"]])
def test_usage_is_explained(command, arguments):
    done = command("rules", *arguments)
    assert done.code == 2
    assert done.err


def test_characters_of_a_file_do_not_reach_the_terminal(command, tmp_path: Path):
    path = tmp_path / "odd\x1b[31m.yaml"
    path.write_text('rules: [{alert: "a\\e[31m\\u202e", absence: {metric: "\\e[2J"}}]')
    assert "\x1b" not in repr(command("rules", "check", path).out).replace("\\x1b[31m.yaml", "")


def test_it_reads_stdin_and_works_in_any_locale(pool_monitor):
    started = pool_monitor("rules", "check", "-", environ={"LC_ALL": "C", "PYTHONUTF8": "0"})
    done = started.ended(BAD.read_bytes().replace(b"alert: A", "alert: Ä".encode()))
    assert done.code == 1
    assert "<stdin>:3:62: " in done.out


# -- the schema --------------------------------------------------------------------------------------------------------


def misfits(value: Any, wanted: dict[str, Any], root: dict[str, Any]) -> str | None:
    """What is wrong with *value* by the part of JSON Schema that is used here; None if it fits."""
    if "$ref" in wanted:
        return misfits(value, root["$defs"][wanted["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in wanted and all(misfits(value, one, root) for one in wanted["anyOf"]):
        return f"{value!r} fits none"
    if "oneOf" in wanted and sum(misfits(value, one, root) is None for one in wanted["oneOf"]) != 1:
        return f"{value!r} does not fit exactly one"
    kind = wanted.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return f"{value!r} is no {kind}"
    if "enum" in wanted and value not in wanted["enum"]:
        return f"{value!r} is none of {wanted['enum']}"
    if isinstance(value, list):
        few = len(value) < wanted.get("minItems", 0)
        return "too few" if few else first(misfits(one, wanted.get("items", {}), root) for one in value)
    if isinstance(value, dict):
        return misfits_in(value, wanted, root)
    return form(value, wanted)


TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
TYPES |= {"boolean": bool, "null": type(None)}


def misfits_in(value: dict[str, Any], wanted: dict[str, Any], root: dict[str, Any]) -> str | None:
    if missing := set(wanted.get("required", ())) - value.keys():
        return f"{missing} are missing"
    if len(value) < wanted.get("minProperties", 0):
        return "too few properties"
    known, more = wanted.get("properties", {}), wanted.get("additionalProperties", {})
    if more is False and (unknown := value.keys() - known.keys()):
        return f"{unknown} are unknown"
    names = first(misfits(key, wanted.get("propertyNames", {}), root) for key in value)
    return names or first(misfits(one, known.get(key, more), root) for key, one in value.items())


def form(value: Any, wanted: dict[str, Any]) -> str | None:
    if isinstance(value, str):
        length = wanted.get("minLength", 0) <= len(value) <= wanted.get("maxLength", len(value))
        return None if length and re.search(wanted.get("pattern", ""), value) else f"{value!r} has the wrong form"
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits = wanted.get("minimum", value) <= value <= wanted.get("maximum", value)
        return None if fits else f"{value!r} is out of range"
    return None


def first(problems: Iterable[str | None]) -> str | None:
    return next(filter(None, problems), None)


def loaded(text: str) -> Any:
    """The values that an editor sees."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag.endswith((":bool", ":int", ":float", ":null"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return yaml.load(text, Loader)


def test_the_documented_file_fits_the_schema():
    assert misfits(loaded(GOOD.read_text()), schema(), schema()) is None


@pytest.mark.parametrize("text", ["rules: []", "rules:", "{version: 1, rules: []}"])
def test_a_file_without_rules_fits_the_schema(text):
    assert misfits(loaded(text), schema(), schema()) is None


SEEN_BY_THE_SCHEMA = """anomaly composites duration_without_unit empty finding_unknown key_unknown labels_reserved
no_kind no_name not_a_mapping numbers receivers route_and_inhibit rules_no_list two_kinds version_2 window_unknown
yaml_would_guess"""


def test_the_schema_refuses_what_the_checker_refuses_where_it_can_see_it():
    refused = set()
    for path in CORPUS.glob("*.yaml"):
        try:
            value = loaded(path.read_text())
        except yaml.YAMLError:
            continue
        if misfits(value, schema(), schema()):
            refused.add(path.stem)
    assert refused >= set(SEEN_BY_THE_SCHEMA.split())


def test_the_schema_refuses_nothing_that_the_checker_accepts():
    good = [
        "rules: [{alert: A, threshold: {metric: pool.rate, above: 3}}]",
        "rules: [{alert: A, threshold: {metric: pool.rate, above: 3/s}}]",
        "rules: [{alert: A, threshold: {metric: worker.rss, above: {ratio: 90%, of: limit}, clear_below: 1 GiB}}]",
        "rules: [{alert: A, threshold: {metric: operation.latency.p95, levels: {a: 250ms, b: {above: 1h30m}}}}]",
        "rules: [{alert: A, finding: [held, stuck], mute: [{days: sat, from: '22:00'}], limit: 5}]",
        "rules: [{alert: A, not: {any: [{alert: B}, {finding: held}]}}, {alert: B, absence: {metric: pool.rate}}]",
        "route: {receiver: log, mute: [{days: [mon]}], routes: [{escalate_after: 5m, escalate_to: log}]}",
        "route: {receiver: log, group_wait: 0s, routes: [{match: {severity: critical}, continue: true}]}",
        "receivers: [{name: a, webhook: {url: 'https://x.example', headers: {A: b, C: {env: D}}}, page: true}]",
        "receivers: [{name: a, file: x.jsonl}, {name: b, log: true, fallback: a}]",
        "inhibit: [{source: {a: b}, target: {c: d}}]",
    ]
    for text in good:
        file, problems = check(text, "x")
        assert file is not None, problems
        assert misfits(loaded(text), schema(), schema()) is None, text


def test_the_schema_is_printed(command):
    assert json.loads(command("rules", "schema").out) == schema()
