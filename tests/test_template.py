"""The texts of annotations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.template import VALUE_MAX, expand, placeholders


def test_placeholders_are_replaced_and_doubled_braces_are_braces():
    assert placeholders("{value} of {{operation}} {pool}\n") == ["value", "pool"]
    assert expand("{value} of {{operation}} {pool}\n", {"value": "5%", "pool": "t"}) == "5% of {operation} t\n"


def test_a_name_without_a_value_is_replaced_by_nothing():
    assert expand("[{worker}]", {}) == "[]"


@pytest.mark.parametrize(
    "text", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{ a}", "{{a}", "{a}}", "{é}"]
)
def test_what_is_no_placeholder_is_refused(text):
    with pytest.raises(ValueError, match="stand for braces"):
        placeholders(text)


def test_a_value_is_no_template_and_cannot_control_a_terminal():
    assert expand("{a}", {"a": "{b}\x1b[2J\u202e\n", "b": "secret"}) == "{b}\\x1b[2J\\u202e\\n"


def test_a_value_is_bounded():
    assert len(expand("{a}", {"a": "x" * 10_000})) == VALUE_MAX


@given(st.text(alphabet="{}a.[]0!: "), st.dictionaries(st.sampled_from("ab"), st.text()))
def test_expanding_never_fails(template, values):
    assert isinstance(expand(template, values), str)
