"""Rules that are made in code: the same fields, the same checks, the same types."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pool_monitor import ConfigError, Rule
from pool_monitor.alerts.rule import (
    Absence,
    Absolute,
    AlertFires,
    AllOf,
    Anomaly,
    AnyOf,
    CheckedRule,
    FindingIs,
    Forecast,
    Level,
    Matcher,
    MuteTime,
    Not,
    OfLimit,
    Origin,
    OwnBaseline,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.alerts.rule_file import check, check_together, checked_rule, fields_of, unit_of

FAILING = {"metric": "operation.error_ratio", "window": "1m", "levels": {"warning": "5%", "critical": "20%"}}


def wrong(**fields) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        Rule(**fields)
    return str(raised.value).splitlines()


def test_a_rule_has_the_fields_of_the_file():
    text = "rules: [{alert: A, threshold: {metric: pool.rate, above: 3}, for: 10s, match: {pool: t*}, labels: {a: b}}]"
    file, _ = check(text, "x")
    rule = Rule(
        alert="A", threshold={"metric": "pool.rate", "above": 3}, for_="10s", match={"pool": "t*"}, labels={"a": "b"}
    )
    assert rule.checked == structs.replace(file.rules[0], origin=None)
    assert rule.alert == "A"


def test_words_of_python_are_given_with_an_underscore_or_in_a_mapping():
    by_mapping = Rule(**{"alert": "A", "not": {"metric": "pool.rate", "above": 3}, "for": "10s"})
    assert Rule(alert="A", not_={"metric": "pool.rate", "above": 3}, for_="10s") == by_mapping
    assert by_mapping.checked.for_ == 10.0


def test_numbers_are_in_base_units_and_none_is_the_default():
    rule = Rule(alert="A", threshold={"metric": "operation.latency.p95", "above": 0.25}, for_=60, keep_firing_for=None)
    assert rule.checked.kind.levels[0].bound == Absolute(0.25)
    assert rule == Rule(alert="A", threshold={"metric": "operation.latency.p95", "above": "250ms"}, for_="1m")
    assert hash(rule) == hash(
        Rule(alert="A", threshold={"metric": "operation.latency.p95", "above": "250ms"}, for_="1m")
    )
    assert rule != Rule(alert="A", threshold={"metric": "operation.latency.p95", "above": "250ms"})
    assert rule != "A"


def test_a_kind_may_be_given_as_its_type():
    kind = Threshold(
        metric="pool.rate", window="5m", above=False, levels=(Level("page", Absolute(3.0), Absolute(4.0)),)
    )
    rule = Rule(alert="A", threshold=kind)
    assert rule.checked.kind == kind
    assert rule.checked.severities == ("page",)


def test_the_repr_shows_the_fields_as_they_were_given():
    text = "Rule(alert='A', threshold={'metric': 'pool.rate', 'above': 3}, for_='10s')"
    assert repr(eval(text)) == text
    assert repr(Rule(**{"alert": "A", "for": "10s", "absence": {"metric": "pool.rate"}})).startswith(
        "Rule(alert='A', for_="
    )


def test_all_errors_are_in_one_error_that_names_the_places():
    found = wrong(
        alert="A",
        threshold={"metric": "operation.error_ratio", "levels": {"warning": "250ms", "critical": True}},
        for_="10",
        fro="x",
        annotations={"summary": "{nobody}"},
        match={"worker": "x"},
    )
    places = [line.split(": ")[0] for line in found]
    assert places == [
        'Rule "A".threshold.levels.warning',
        'Rule "A".threshold.levels.critical',
        'Rule "A".for',
        'Rule "A"',
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "has none of threshold"),
        ({"alert": 3}, "is not a text"),
        ({"alert": "A", "threshold": FAILING, "anomaly": {"metric": "pool.rate"}}, "exactly one of"),
        ({"alert": "A", "threshold": "x"}, "is a text; needs a threshold"),
        ({"alert": "A", "threshold": FAILING, "for_": float("nan")}, "not finite"),
        ({"alert": "A", "threshold": FAILING, "for_": -1}, "negative"),
        ({"alert": "A", "threshold": FAILING, "for_": 10**400}, "more than"),
        ({"alert": "A", "threshold": FAILING, "limit": 1.5}, "not a whole number"),
        ({"alert": "A", "threshold": FAILING, "limit": True}, "is no quantity"),
        ({"alert": "A", "threshold": FAILING, "labels": {"a": 1}}, "is not a text"),
        ({"alert": "A", "threshold": FAILING, "labels": {1: "a"}}, "cannot be a key"),
        ({"alert": "A", "threshold": FAILING, "labels": {"a": "\ud800"}}, "surrogate without its other half"),
        ({"alert": "A", "threshold": FAILING, "match": {"pool": "\udcff*"}}, "surrogate without its other half"),
        ({"alert": "A", "threshold": FAILING, "labels": {"a": object()}}, "is no part of a rule"),
        ({"alert": "A", "all": [{"alert": "A"}]}, "depend on each other: A -> A"),
        (
            {"alert": "A", "threshold": FAILING, "annotations": {"a": "{nobody}"}},
            "{nobody} is not a placeholder of this",
        ),
        ({"alert": "A", "threshold": FAILING, "match": {"worker": "x"}}, '"worker" is not a label'),
    ],
)
def test_a_bad_rule_is_refused_in_words(fields, words):
    assert words in "\n".join(wrong(**fields))


def test_a_list_within_itself_is_refused():
    endless: list = []
    endless.append(endless)
    assert "nested deeper" in wrong(alert="A", all=endless)[0]


@pytest.mark.parametrize("value", [None, "A", 3, [FAILING]])
def test_what_is_no_rule_is_refused(value):
    with pytest.raises(ConfigError, match="is not a rule"):
        checked_rule(value)


def test_a_mapping_and_a_checked_rule_are_rules_too():
    rule = checked_rule({"alert": "A", "threshold": FAILING})
    origin = Origin("x.yaml", 3, 5)
    kept = checked_rule(CheckedRule(alert="A", kind=rule.kind, severities=rule.severities, default=True, origin=origin))
    assert (kept.default, kept.origin) == (True, origin)
    assert checked_rule(Rule(alert="A", threshold=FAILING)) == rule


def test_a_checked_rule_that_could_not_be_is_refused():
    kind = Threshold(metric="pool.nothing", window="5m", above=True, levels=(Level("warning", Absolute(3.0)),))
    with pytest.raises(ConfigError, match=r"pool\.nothing"):
        checked_rule(CheckedRule(alert="A", kind=kind))


def test_rules_that_name_each_other_are_checked_together():
    one, other = (Rule(alert=name, any=[{"alert": to}]).checked for name, to in (("A", "B"), ("B", "C")))
    with pytest.raises(ConfigError, match=r'Rule "B"\.any\[0\]\.alert: there is no rule "C"'):
        check_together([one, other])
    with pytest.raises(ConfigError, match="A -> B -> C -> A"):
        check_together([one, other, Rule(alert="C", any=[{"alert": "A"}]).checked])
    check_together([one, other, Rule(alert="C", threshold=FAILING).checked])


# -- and back ----------------------------------------------------------------------------------------------------------

SECONDS = st.sampled_from([1.0, 0.5, 60.0, 90.0, 3600.0])
NUMBERS = st.floats(min_value=0, max_value=1e12, allow_subnormal=False)
BOUNDS = st.builds(Absolute, NUMBERS) | st.builds(OwnBaseline, st.floats(1, 10), st.sampled_from([60.0, 86_400.0]))


@st.composite
def levels(draw: st.DrawFn, above: bool) -> tuple[Level, ...]:
    values = sorted(draw(st.sets(NUMBERS, min_size=1, max_size=4)), reverse=not above)
    return tuple(Level(f"l{number}", Absolute(value)) for number, value in enumerate(values))


THRESHOLDS = st.booleans().flatmap(
    lambda above: st.builds(
        Threshold, metric=st.just("pool.rate"), window=st.just("5m"), above=st.just(above), levels=levels(above)
    )
)
SIMPLE = st.builds(
    Threshold,
    metric=st.just("worker.rss"),
    window=st.none(),
    above=st.booleans(),
    levels=st.tuples(st.builds(Level, st.just("warning"), BOUNDS | st.builds(OfLimit, st.floats(0.1, 1)))),
)
CONDITIONS = st.recursive(
    SIMPLE | st.builds(AlertFires, alert=st.sampled_from(["B", "C"])) | st.builds(FindingIs, kinds=st.just(("held",))),
    lambda inner: (
        st.builds(AllOf, conditions=st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, conditions=st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, condition=inner)
    ),
    max_leaves=6,
)
KINDS = (
    THRESHOLDS
    | CONDITIONS.filter(lambda kind: isinstance(kind, AllOf | AnyOf | Not | FindingIs))
    | st.builds(
        RateOfChange,
        metric=st.just("pool.rate"),
        window=st.just("1m"),
        against=SECONDS.map(lambda s: s + 60),
        falls_by=st.floats(0.01, 1),
        rises_by=st.none() | st.floats(0.01, 9),
    )
    | st.builds(
        Anomaly,
        metric=st.just("pool.rate"),
        window=st.just("1h"),
        direction=st.sampled_from(["up", "down", "both"]),
        detector=st.none() | st.just("seasonal"),
    )
    | st.just(Absence(metric="pool.rate", window="5m"))
    | st.builds(
        SloBurn,
        pool=st.sampled_from(["*", "text"]),
        operation=st.none() | st.just("a*"),
        objective=st.floats(0.5, 0.9999),
        period=st.just(30 * 86_400.0),
    )
    | st.builds(
        Forecast,
        metric=st.just("worker.rss"),
        reaches=st.builds(Absolute, NUMBERS) | st.just(OfLimit(0.9)),
        within=SECONDS,
        window=SECONDS.map(lambda s: s + 150),
    )
)


@st.composite
def rules(draw: st.DrawFn) -> CheckedRule:
    kind = draw(KINDS)
    severities = {Threshold: lambda: tuple(one.severity for one in kind.levels)}.get(type(kind), lambda: None)()
    if isinstance(kind, FindingIs | SloBurn):
        severities = ("warning", "critical")
    return CheckedRule(
        alert="A",
        kind=kind,
        for_=draw(st.just(0.0) | SECONDS),
        keep_firing_for=draw(st.just(0.0) | SECONDS),
        min_samples=draw(st.sampled_from([0, 20])),
        on_no_data=draw(st.sampled_from(["resolve", "keep", "fire"])),
        no_data_for=draw(st.none() | SECONDS),
        on_error=draw(st.sampled_from(["resolve", "keep", "fire"])),
        labels=draw(st.sampled_from([(), (("team", "no"),)])),
        annotations=draw(st.sampled_from([(), (("summary", "{value} {{}}"),)])),
        severities=severities or draw(st.sampled_from([("warning",), ("critical",)])),
        match=draw(st.sampled_from([(), (Matcher("pool", "t*"),)]))
        if not isinstance(kind, AllOf | AnyOf | Not)
        else (),
        mute=draw(st.sampled_from([(), (MuteTime(days=(5, 6), start=60, end=30), MuteTime(days=(1,)))])),
        limit=draw(st.sampled_from([1000, 5])),
    )


@settings(max_examples=60)
@given(rules())
def test_the_fields_of_a_rule_make_the_same_rule_again(rule):
    assert checked_rule(fields_of(rule)) == rule
    assert checked_rule(rule) == rule


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"threshold": FAILING}, "ratio"),
        ({"rate_of_change": {"metric": "pool.rate", "against": "1h", "falls_by": "50%"}}, "ratio"),
        ({"any": [{"alert": "B"}, {"metric": "worker.rss", "above": "1GiB"}]}, "bytes"),
        ({"any": [{"alert": "B"}]}, ""),
        ({"absence": {"metric": "pool.rate"}}, "/s"),
    ],
)
def test_the_value_of_an_alert_has_the_unit_of_what_is_measured(fields, unit):
    assert unit_of(Rule(alert="A", **fields).checked.kind) == unit
