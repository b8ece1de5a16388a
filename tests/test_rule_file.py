"""Rule files: everything that is wrong is found in one run, at its place, and in words."""

from __future__ import annotations

import gc
import json
import os
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_monitor.alerts import catalogue
from pool_monitor.alerts.rule import (
    Absence,
    Absolute,
    AllOf,
    Anomaly,
    FindingIs,
    Forecast,
    Level,
    Matcher,
    MuteTime,
    OfLimit,
    OwnBaseline,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.alerts.rule_file import across, check, check_files, checked_rule, load, nodes
from pool_monitor.alerts.rule_file.across import CIRCLES_MAX
from pool_monitor.alerts.rule_file.nodes import PROBLEMS_MAX
from pool_monitor.alerts.rule_file.schema import schema
from pool_monitor.alerts.rule_file.yaml_text import ALIASED_MAX, BYTES_MAX, DEPTH_MAX
from pool_monitor.errors import ConfigError
from tests.helpers import golden
from tests.helpers.programs import ROOT

CORPUS = sorted((Path(__file__).parent / "rules_corpus").glob("*.yaml"))
EXAMPLE = Path(__file__).parent / "rules_corpus" / "good" / "documented.yaml"
RULE = "  - {alert: A, threshold: {metric: pool.rate, above: 3}}\n"
TEAM = "  - {alert: A, absence: {metric: pool.rate}, labels: {team: a}}\n"


def read(text: str):
    """The rules of a file that has no error."""
    file, problems = check(text, "rules.yaml")
    assert file is not None, problems
    return file


def rule_of(text: str):
    return read(f"rules:\n  - {{alert: A, {text}}}\n").rules[0]


def errors(text: str | bytes) -> list[str]:
    file, problems = check(text, "rules.yaml")
    assert file is None
    return [str(problem) for problem in problems]


# -- files that are wrong ----------------------------------------------------------------------------------------------


def test_every_error_of_every_bad_file_is_found_in_one_run_at_its_line_and_column():
    assert len(CORPUS) >= 40
    found = []
    for path in CORPUS:
        file, problems = check(path.read_bytes(), path.name)
        assert file is None, path.name
        found += [str(problem) for problem in problems]
    golden.check("rule_file_problems.txt", "\n".join(found) + "\n")


def test_a_mark_of_the_byte_order_and_other_ends_of_lines_change_nothing():
    for path in CORPUS:
        text = path.read_text()
        expected = check(text, path.name)[1]
        assert check("\ufeff".encode() + text.replace("\n", "\r\n").encode(), path.name)[1] == expected


def test_the_pure_parser_says_the_same_where_the_fast_one_is_absent(monkeypatch: pytest.MonkeyPatch):
    """Its words for errors of syntax differ, not their lines."""

    def found() -> list[tuple[str, int, str]]:
        problems = [one for path in CORPUS for one in check(path.read_text(), path.name)[1]]
        return [(one.file, one.line, "" if "not valid YAML" in one.message else one.message) for one in problems]

    fast = found()
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert found() == fast


def test_no_message_repeats_what_may_be_a_secret():
    path = next(path for path in CORPUS if path.stem == "secrets_are_not_repeated")
    assert "hunter2" in path.read_text()
    assert "hunter2" not in "\n".join(errors(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "receivers: [{name: a, webhook: {url: *hunter2}}]",
        "receivers: [{name: a, webhook: {url: @hunter2}}]",
        "receivers: [{name: a, webhook: {url: !hunter2 x}}]",
        "receivers: [{name: a, webhook: {url: 'https://hunter2\n",
        "receivers: [{name: a, webhook: {url: https://hunter2.example/a b c: d: e}}]",
        "receivers: [{name: hunter2/a, log: true}]\nroute: {receiver: b}",
        "receivers: [{name: a, webhook: {? https://hunter2 : 1, ? https://hunter2 : 2}}]",
        "receivers: [{name: a, email: {to: hunter2@x.y, smtp: 'hunter2:pw@host:25'}}]",
        "receivers: [{name: a, hunter2X: 1}]",
        "receivers: hunter2",
    ],
)
def test_no_error_of_syntax_or_structure_repeats_one_either(text):
    assert "hunter2" not in "\n".join(errors(text))


def test_a_message_is_one_line_and_cannot_control_a_terminal():
    odd = '"{\\e[2J\\u202e\\n}"'
    text = f"rules: [{{alert: {odd}, absence: {{metric: {odd}, {odd}: 1}}, for: {odd}, annotations: {{a: {odd}}}}}]"
    found = errors(text)
    assert len(found) == 5
    assert all(line.isprintable() for line in found)


@pytest.mark.parametrize("value", [r"\r\nX-Other: y", r"\0", r"\e[31m"])
@pytest.mark.parametrize("receiver", ['url: "https://x/V"', 'url: "https://x", headers: {A: "V"}'])
def test_a_receiver_has_no_characters_that_would_split_its_message(receiver, value):
    [found] = errors(f"receivers: [{{name: a, webhook: {{{receiver.replace('V', value)}}}}}]")
    assert "is not a URL" in found or "in one line" in found


@pytest.mark.parametrize("name", ["Transfer-Encoding", "content-length", "Connection"])
def test_a_header_that_says_how_a_message_is_sent_is_refused(name: str):
    [found] = errors(f"receivers: [{{name: a, webhook: {{url: 'https://x', headers: {{{name}: chunked}}}}}}]")
    assert "says how a message is sent" in found
    assert name not in found


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"rules: []\n# caf\xe9\n", "2:6", "not UTF-8"),
        ("rules: []\n".encode("utf-16"), "1:1", "looks like UTF-16"),
        (b"rules: []\n# \x07\n", "2:3", "U+0007"),
        (b"rules: []\x00", "1:10", "U+0000"),
        ("rules: []\n#\u2028".encode(), "2:2", "U+2028"),
        (b"#" * (BYTES_MAX + 1), "1:1", "1024 KiB"),
        (b"", "1:1", "says nothing"),
        (b"version: 1\n", "1:1", "says nothing"),
        (b"rules:\n " + b"[" * (DEPTH_MAX + 1), "2:33", "nested deeper"),
    ],
)
def test_a_file_that_is_no_text_of_a_file_is_refused(data, place, words):
    assert [line for line in errors(data) if line.startswith(f"rules.yaml:{place}: ") and words in line]


def test_aliases_stand_for_a_bounded_number_of_values():
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    found = errors(f"a0: &a0 [{', '.join('x' * 10)}]\n{levels}")
    assert any(str(ALIASED_MAX) in line for line in found)


def test_nesting_beyond_the_bound_by_an_alias_is_refused():
    deep = "[" * 20 + "]" * 20
    assert any("nested deeper" in line for line in errors(f"a: &a {deep}\nb: {'[' * 20}*a{']' * 20}\n"))


def test_the_problems_of_a_file_are_bounded():
    found = errors("rules:\n" + "  - {}\n" * (PROBLEMS_MAX + 1000))
    assert len(found) == PROBLEMS_MAX + 1
    assert found[-1].endswith("more problems are not shown")


def test_an_error_of_syntax_in_one_rule_does_not_hide_the_errors_of_others_nor_make_up_new_ones():
    text = (
        "rules:\n  - alert: A\n     for: 1s\n"
        "  - {alert: B, any: [{alert: A}], for: 5}\n  - {alert: C, any: [{alert: B}]}\n"
    )
    assert [line.split(": ")[0] for line in errors(text)] == ["rules.yaml:3:6", "rules.yaml:4:40"]


@given(st.text(alphabet=st.sampled_from(list("ab:{}[]-,&*!|>'\"%@`# \n\t\r?0_é")), max_size=120))
@example("rules:\n- a\n- {\n- }\n- [\n")
@example("? [a]\n: b")
@example("rules: &a [*a]")
@example("rules: [{alert: *a}]")
def test_no_text_makes_it_fail(text):
    check(text, "x")
    check(f"rules:\n  - {text}", "x")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data):
    check(data, "x")


_DOCUMENTED = EXAMPLE.read_text()


@settings(max_examples=40)
@given(st.data())
def test_no_damage_to_a_good_file_makes_it_fail(data):
    """A piece of the documented example is removed, doubled or replaced."""
    begin = data.draw(st.integers(0, len(_DOCUMENTED)))
    end = data.draw(st.integers(begin, min(len(_DOCUMENTED), begin + 40)))
    put = data.draw(
        st.sampled_from(["", _DOCUMENTED[begin:end] * 2, "{", "}", "[", "\n", "  ", ": ", "- ", "null", "\t"])
    )
    file, problems = check(f"{_DOCUMENTED[:begin]}{put}{_DOCUMENTED[end:]}", "x")
    assert (file is None) is any(problem.level == "error" for problem in problems)
    lines = _DOCUMENTED.count("\n") + put.count("\n") + 2
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in problems)


_KEYS = sorted({key for section in schema()["$defs"].values() for key in section.get("properties", ())})
_TEXTS = ["", "~", "A", "pool.rate", "5%", "1m", "3", "*", "own 24h median", "limit", "x: y"]
_VALUES = st.recursive(
    st.sampled_from(_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)
_FILES = st.fixed_dictionaries(
    {"rules": st.lists(_VALUES, max_size=3)},
    optional={"route": _VALUES, "receivers": st.lists(_VALUES, max_size=2), "inhibit": _VALUES, "version": _VALUES},
)


@settings(max_examples=40)
@given(_FILES)
def test_no_structure_makes_it_fail(value):
    file, problems = check(json.dumps(value), "x")  # JSON is YAML
    assert (file is None) is any(problem.level == "error" for problem in problems)


def test_the_largest_file_takes_no_longer_per_byte_than_a_small_one():
    """A ratio of two times of the same process, taken one after the other: the check is linear."""
    small, large = f"rules:\n{RULE * 50}", f"rules:\n{RULE * 800}"
    check(small, "x")
    gc.collect()
    gc.disable()  # a collection costs as much as everything else that the process holds
    try:
        begin = time.process_time()
        for _ in range(4):
            check(small, "x")
        middle = time.process_time()
        check(large, "x")
        end = time.process_time()
    finally:
        gc.enable()
    assert end - middle < 20 * (middle - begin)


# -- files that are right ----------------------------------------------------------------------------------------------


def test_the_documented_file_is_read_as_it_stands():
    rules = {rule.alert: rule for rule in read(_DOCUMENTED).rules}
    failing = rules["FailingCalls"]
    assert failing.kind == Threshold(
        metric="operation.error_ratio",
        window="1m",
        above=True,
        levels=(Level("warning", Absolute(0.05), Absolute(0.02)), Level("critical", Absolute(0.2))),
    )
    assert failing.match == (Matcher("operation", "summar*"), Matcher("pool", "text"))
    assert (failing.for_, failing.keep_firing_for, failing.min_samples) == (10.0, 30.0, 20)
    assert failing.labels == (("team", "search"),)
    assert failing.severities == ("warning", "critical")
    assert failing.origin == ("rules.yaml", 3, 5)
    assert rules["ThroughputFell"].kind == RateOfChange(metric="pool.rate", window="5m", against=3600.0, falls_by=0.5)
    assert rules["OddLatency"].kind == Anomaly(metric="operation.latency.p50", window="1m", direction="up")
    overloaded = rules["Overloaded"].kind
    assert isinstance(overloaded, AllOf)
    assert [one.window for one in overloaded.conditions] == [None, "1m"]
    assert rules["NoTraffic"].kind == Absence(metric="pool.rate", window="5m")
    assert rules["BudgetBurns"].kind == SloBurn(pool="text", objective=pytest.approx(0.999), period=30 * 86_400.0)
    assert rules["MemoryRunsOut"].kind == Forecast(metric="worker.rss", reaches=Absolute(2.0**30), within=6 * 3600.0)


def test_the_reference_shows_a_valid_file_the_true_messages_and_every_section():
    reference = (ROOT / "docs" / "ALERT_RULES.md").read_text()
    example = re.search(r"```yaml\n# rules.yaml\n(.*?)```", reference, re.DOTALL)
    assert example is not None
    assert read(f"# rules.yaml\n{example[1]}").rules
    damaged = example[1].replace("warning: 5%", "warning: 250ms").replace("pool.utilisation", "pool.utilization")
    assert "\n".join(errors(f"# rules.yaml\n{damaged}")) in reference
    sections = set(schema()["$defs"]) - {"quantity"}
    assert reference.count("| key | value | meaning |") == len(sections)


@pytest.mark.parametrize("text", ["rules: []", "rules:", "version: 1\nrules: []\n", "{rules: []}", '{"rules": []}'])
def test_a_file_whose_rules_are_empty_is_complete(text):
    assert read(text).rules == ()


def test_a_file_with_rules_alone_is_complete():
    assert len(read(f"rules:\n{RULE}").rules) == 1


@pytest.mark.parametrize(
    ("text", "levels", "above"),
    [
        ("above: 3", [("warning", 3.0, None)], True),
        ("below: 3, clear_above: 5", [("warning", 3.0, 5.0)], False),
        ("levels: {warning: 3, critical: 5}", [("warning", 3.0, None), ("critical", 5.0, None)], True),
        ("levels: {warning: 5, critical: 3}", [("warning", 5.0, None), ("critical", 3.0, None)], False),
        ("levels: {critical: 3}", [("critical", 3.0, None)], True),
        ("levels: {critical: {below: 3}}", [("critical", 3.0, None)], False),
        ("levels: {critical: 3}, clear_above: 4", [("critical", 3.0, 4.0)], False),
        (
            "levels: {low: {above: 3, clear_below: 2}, high: {above: 5, clear_below: 4}}",
            [("low", 3, 2), ("high", 5, 4)],
            True,
        ),
    ],
)
def test_bounds_and_levels_say_on_which_side_values_are_bad(text, levels, above):
    kind = rule_of(f"threshold: {{metric: pool.rate, {text}}}").kind
    found = [(one.severity, one.bound.value, one.clear.value if one.clear else None) for one in kind.levels]
    assert (found, kind.above) == (levels, above)


def test_relative_bounds_are_read():
    kind = rule_of("threshold: {metric: operation.latency.p95, above: {times: 2, of: own 24h median}}").kind
    assert kind.levels[0].bound == OwnBaseline(2.0, 86_400.0)
    kind = rule_of("threshold: {metric: worker.rss, above: {ratio: 90%, of: limit}}").kind
    assert kind.levels[0].bound == OfLimit(0.9)
    levels = "{warning: {times: 2, of: own 24h median}, critical: {times: 4, of: own 24h median}}"
    kind = rule_of(f"threshold: {{metric: operation.latency.p95, levels: {levels}}}").kind
    assert kind.above


@pytest.mark.parametrize(
    ("text", "severities"),
    [
        ("threshold: {metric: pool.rate, above: 3}", ("warning",)),
        ("threshold: {metric: pool.rate, above: 3}, labels: {severity: page}", ("page",)),
        ("threshold: {metric: pool.rate, levels: {a: 3, b: 4}}", ("a", "b")),
        ("absence: {metric: pool.rate}, labels: {severity: critical}", ("critical",)),
        ("any: [{metric: pool.rate, above: 3}], labels: {severity: critical}", ("critical",)),
        ("finding: crash_loop", ("warning", "critical")),
        ("slo_burn: {pool: text, objective: 99%}", ("warning", "critical")),
    ],
)
def test_the_severity_is_the_level_or_the_label_and_warning_otherwise(text, severities):
    rule = rule_of(text)
    assert rule.severities == severities
    assert "severity" not in dict(rule.labels)


def test_texts_are_read_as_they_are_written_whatever_yaml_makes_of_them():
    rule = rule_of("absence: {metric: pool.rate}, labels: {on: no, version: 1.10, zip: 010, at: 1:30, none: ~}")
    assert dict(rule.labels) == {"on": "no", "version": "1.10", "zip": "010", "at": "1:30", "none": "~"}


def test_a_metric_over_calls_without_a_window_has_five_minutes_and_one_of_the_moment_none():
    assert rule_of("threshold: {metric: pool.rate, above: 3}").kind.window == "5m"
    assert rule_of("threshold: {metric: pool.waiting, above: 3}").kind.window is None


def test_aliases_are_read():
    text = "rules:\n  - {alert: A, absence: &a {metric: pool.rate}}\n  - {alert: B, absence: *a}\n"
    assert [rule.kind.metric for rule in read(text).rules] == ["pool.rate", "pool.rate"]


def test_findings_are_read_one_or_several():
    assert rule_of("finding: crash_loop").kind == FindingIs(kinds=("crash_loop",))
    assert rule_of('finding: [held, stuck], annotations: {summary: "{finding}: {reason}"}').kind.kinds == (
        "held",
        "stuck",
    )


def test_mute_times_are_read():
    rule = rule_of("absence: {metric: pool.rate}, mute: [{days: [sat, sun], from: 22:00, to: 06:00}, {days: mon}]")
    assert rule.mute == (MuteTime(days=(5, 6), start=22 * 60, end=6 * 60), MuteTime(days=(0,)))


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "rules:\n  - {alert: A, min_samples: 5, absence: {metric: pool.rate}}\n",
            '2:16: warning: rules[0] "A".min_samples',
        ),
        (
            "rules: []\nroute: {receiver: log}\nreceivers: [{name: a, log: true}]\n",
            '3:20: warning: receivers[0] "a": no route',
        ),
        (
            "rules:\n  - {alert: A, absence: {metric: pool.rate},\n     annotations: {a: '{pool} {{ $labels.pool }}'}}",
            '3:20: warning: rules[0] "A".annotations.a: {{ $labels.pool }} stays as it is',
        ),
        (
            "rules:\n  - {alert: A, absence: {metric: pool.rate}, labels: {team: '{pool}'}}",
            '2:55: warning: rules[0] "A".labels.team: has braces, which are not replaced',
        ),
        (
            "rules: []\ninhibit: [{source: {a: b}, target: {pool: b}, equal: [pool]}]",
            '2:21: warning: inhibit[0].source.a: no rule has the label "a"; add it to a rule, or correct the name',
        ),
        (
            "rules: []\ninhibit: [{source: {pool: a}, target: {operatio: b}, equal: [worker]}]",
            '2:40: warning: inhibit[0].target.operatio: no rule has the label "operatio"; did you mean operation?',
        ),
        (
            "rules: []\ninhibit: [{source: {severity: a}, target: {severity: b}, equal: [finding, alertnam]}]",
            '2:75: warning: inhibit[0].equal[1]: no rule has the label "alertnam"; did you mean alertname?',
        ),
        (
            f"rules:\n{TEAM}route: {{receiver: log, routes: [{{match: {{team: a, taem: b}}}}]}}",
            '3:51: warning: route.routes[0].match.taem: no rule has the label "taem"; did you mean team?',
        ),
        (
            f"rules:\n{TEAM}route: {{receiver: log, group_by: [team, teem]}}",
            '3:41: warning: route.group_by[1]: no rule has the label "teem"; did you mean team?',
        ),
    ],
)
def test_a_warning_does_not_make_a_file_wrong(text, warning):
    file, problems = check(text, "rules.yaml")
    assert file is not None
    assert [problem.level for problem in problems] == ["warning"]
    assert str(problems[0]).startswith(f"rules.yaml:{warning}")


@pytest.mark.parametrize("text", ["{{{value}}}", "{{}}", "a {{b c}} {value}", "{{1}} {{"])
def test_braces_that_nobody_takes_for_placeholders_are_no_warning(text: str):
    _, problems = check(f"rules: [{{alert: A, absence: {{metric: pool.rate}}, annotations: {{a: '{text}'}}}}]", "a")
    assert list(problems) == []


# -- the files of a service --------------------------------------------------------------------------------------------


def written(folder: Path, **files: str) -> list[Path]:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder / f"{name}.yaml" for name in files]


def test_a_rule_may_name_a_rule_of_another_file(tmp_path: Path):
    paths = written(tmp_path, a=f"rules:\n{RULE}", b="rules:\n  - {alert: B, any: [{alert: A}]}\n")
    assert [rule.alert for rule in load(paths).rules] == ["A", "B"]
    with pytest.raises(ConfigError, match=r'b\.yaml:2:30: rules\[0\] "B"\.any\[0\]\.alert: there is no rule "A"'):
        load(paths[1:])
    assert len(load(paths[1:], known=load(paths[:1]).rules).rules) == 1


def test_names_are_unique_over_all_files_and_the_error_names_the_first(tmp_path: Path):
    paths = written(tmp_path, a=f"rules:\n{RULE}", b=f"rules:\n{RULE}")
    with pytest.raises(ConfigError, match=r"b\.yaml:2:13: .* the first is in .*a\.yaml:2:5"):
        load(paths)


def test_a_route_may_name_a_receiver_of_another_file_and_there_is_one_route(tmp_path: Path):
    receivers = "receivers: [{name: ops, log: true}]\n"
    paths = written(tmp_path, a="route: {receiver: ops}\n", b=receivers, c="route: {receiver: ops}\n")
    assert load(paths[:2]).receivers[0].name == "ops"
    with pytest.raises(ConfigError, match=r"c\.yaml:1:8: route: there is another route in .*a\.yaml:1:8"):
        load(paths)


def test_a_label_may_be_one_of_any_rule_also_of_one_that_is_wrong(tmp_path: Path):
    by_team = "inhibit: [{source: {team: a}, target: {team: b}, equal: [team]}]\n"
    [alone, team, wrong] = written(tmp_path, a=by_team, b=f"rules:\n{TEAM}", c=f"rules:\n{TEAM.replace('rate', 'rat')}")
    assert len(load([alone]).warnings) == 3
    assert load([alone, team]).warnings == ()
    assert load([alone], known=load([team]).rules).warnings == ()
    assert [one.level for one in check_files([alone, wrong]).problems] == ["error"]
    cut = written(tmp_path, d="rules:\n  - {alert: A\n")
    assert "warning" not in {one.level for one in check_files([alone, *cut]).problems}


def test_all_errors_of_all_files_are_in_one_error(tmp_path: Path):
    bad = "rules:\n  - {alert: X, absence: {metric: pool.rat}}\n"
    paths = written(tmp_path, a=bad, b=bad.replace("X", "Y"))
    with pytest.raises(ConfigError) as raised:
        load([*paths, tmp_path / "none.yaml"])
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert "none.yaml: cannot be read: No such file" in lines[0]
    assert [re.search(r"(\w)\.yaml:2:34", line)[1] for line in lines[1:]] == ["a", "b"]


def test_a_long_chain_of_rules_is_no_recursion(tmp_path: Path):
    chain = "".join(f"  - {{alert: A{n}, any: [{{alert: A{n + 1}}}]}}\n" for n in range(1200))
    paths = written(tmp_path, a=f"rules:\n{chain}{RULE.replace('alert: A', 'alert: A1200')}")
    assert len(load(paths).rules) == 1201


def test_what_is_no_file_is_not_read_and_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    found = check_files([tmp_path, tmp_path / "fifo"])
    assert not found.good
    assert len(found.unread) == 2


def test_a_circle_through_a_rule_in_force_is_an_error_of_the_file(tmp_path: Path):
    text = "rules:\n  - {alert: B, any: [{alert: A}]}\n"
    known = [checked_rule({"alert": "A", "any": [{"alert": "B"}]})]
    with pytest.raises(
        ConfigError, match=r'rules\[0\] "B"\.any\[0\]\.alert: the rules depend on each other: B -> A -> B'
    ):
        load(written(tmp_path, a=text), known)


def test_many_rules_in_many_circles_are_checked_and_their_circles_bounded():
    links = [", ".join(f"{{alert: A{(n * 7 + step) % 300}}}" for step in range(10)) for n in range(300)]
    found = errors("rules:\n" + "".join(f"  - {{alert: A{n}, any: [{link}]}}\n" for n, link in enumerate(links)))
    assert len(found) == CIRCLES_MAX
    assert max(map(len, found)) < 300


def test_many_rules_that_name_what_does_not_exist_are_not_all_compared(monkeypatch: pytest.MonkeyPatch):
    rules = "".join(f"  - {{alert: Failing{n}, any: [{{alert: Failling{n}}}]}}\n" for n in range(20))
    monkeypatch.setattr(across, "COMPARED_MAX", 60)
    hinted = ["did you mean Failing" in line for line in errors(f"rules:\n{rules}")]
    assert hinted == [True] * 3 + [False] * 17


def test_the_nearest_metrics_are_searched_for_only_while_problems_are_kept(monkeypatch: pytest.MonkeyPatch):
    searched: list[str] = []
    monkeypatch.setattr(catalogue, "_nearest", lambda name: searched.append(name) or "the nearest: none")
    monkeypatch.setattr(nodes, "PROBLEMS_MAX", 5)
    rules = "".join(f"  - {{alert: A{n}, threshold: {{metric: pool.sizee{n}, above: 3}}}}\n" for n in range(20))
    found = errors(f"rules:\n{rules}")
    assert searched == [f"pool.sizee{n}" for n in range(5)]
    assert found[-1].endswith("15 more problems are not shown")
