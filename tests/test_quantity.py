"""Quantities with units: what a person writes, and what a person reads."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.quantity import FAMILIES, checked, parse, text_of

UNITS = tuple(FAMILIES)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("250ms", "s", 0.25),
        ("2s", "s", 2.0),
        ("1.5s", "s", 1.5),
        ("500us", "s", 5e-4),
        ("500µs", "s", 5e-4),
        ("1h30m", "s", 5400.0),
        ("1m0.5s", "s", 60.5),
        ("30d", "s", 30 * 86_400.0),
        ("2w", "s", 14 * 86_400.0),
        ("0s", "s", 0.0),
        ("010s", "s", 10.0),
        ("1GiB", "bytes", 2.0**30),
        ("512 MiB", "bytes", 2.0**29),
        ("1kB", "bytes", 1000.0),
        ("1.5GB", "bytes", 1.5e9),
        ("0B", "bytes", 0.0),
        ("5%", "ratio", 0.05),
        ("99.9 %", "ratio", 0.999),
        ("150%", "ratio", 1.5),
        ("20", "count", 20.0),
        ("1.10", "count", 1.1),
        ("20", "/s", 20.0),
        ("3.2/s", "/s", 3.2),
        ("2.5", "", 2.5),
    ],
)
def test_a_quantity_is_read_in_the_base_unit(text, unit, value):
    assert parse(text, unit) == pytest.approx(value, rel=1e-12)


NO_QUANTITIES = ["", " ", "nan", "inf", ".inf", "-5", "-5s", "-5%", "+5", "1e309", "1e3", "1_000", "0x10", "٣", "٣s"]
NO_QUANTITIES += ["5 %%", " 5s", "5s ", "5s\n", "1.s", ".5s", "1..5s", "5S", "1:30", "30m1h", "1m1m", "1.5h30m"]
NO_QUANTITIES += ["9" * 400, "no"]


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_no_quantity_is_refused_in_words(unit):
    for text in NO_QUANTITIES:
        with pytest.raises(ValueError, match=r"such as|write|the units are|negative|most"):
            parse(text, unit)


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("5%", "s", '"5%" is a share, but operation.latency.p95 is a duration; such as 250ms'),
        ("5", "s", "has no unit; operation.latency.p95 is a duration: write 5s if seconds are meant"),
        ("0", "s", "has no unit"),
        ("0.05", "ratio", "write 5% if a percentage is meant"),
        ("5", "ratio", "write 5% if a percentage is meant"),
        ("1", "bytes", "write 1B if bytes are meant"),
        ("5 minutes", "s", "write 5m"),
        ("5 m", "s", "write 5m"),
        ("10 sec", "s", "write 10s"),
        ("1gb", "bytes", "write 1GB"),
        ("10 fortnights", "s", "the units are us ms s m h d w"),
        ("250ms", "count", "is a duration, but"),
    ],
)
def test_the_message_names_the_unit_that_is_expected_and_the_remedy(text, unit, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text, unit, "operation.latency.p95")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e300, 10**400, -(10**400)])
@pytest.mark.parametrize("unit", UNITS)
def test_a_number_from_code_is_checked_too(value, unit):
    with pytest.raises(ValueError, match=r"not finite|negative|the most"):
        checked(value, unit)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (6, "count", "6"),
        (6.5, "count", "6.5"),
        (1_234_567, "count", "1234567"),
        (0.05, "ratio", "5%"),
        (0.0523456, "ratio", "5.23%"),
        (0.25, "s", "250ms"),
        (0.9996, "s", "1s"),
        (59.96, "s", "1m"),
        (90, "s", "1m30s"),
        (3599.7, "s", "1h"),
        (5400, "s", "1h30m"),
        (86_399, "s", "1d"),
        (2 * 86_400 + 3 * 3600, "s", "2d3h"),
        (1.5 * 2**30, "bytes", "1.5GiB"),
        (0, "bytes", "0B"),
        (3.2, "/s", "3.2/s"),
        (-0.05, "ratio", "-5%"),
        (2.5, "", "2.5"),
        (None, "s", "unknown"),
        (math.nan, "ratio", "unknown"),
        (math.inf, "count", "unlimited"),
    ],
)
def test_a_value_is_printed_as_a_person_reads_it(value, unit, text):
    assert text_of(value, unit) == text


@given(unit=st.sampled_from(UNITS), value=st.floats(min_value=0, max_value=1e6, allow_subnormal=False))
def test_what_is_printed_is_read_back_as_nearly_the_same(unit, value):
    digits = {"s": 1e-7, "bytes": 1e-3, "ratio": 1e-14, "/s": 1e-12, "count": 1e-12, "": 1e-12}[unit]
    assert parse(text_of(value, unit), unit) == pytest.approx(value, rel=0.021, abs=digits)


@given(unit=st.sampled_from(UNITS), value=st.floats(min_value=0, max_value=1e6, allow_subnormal=False))
def test_printing_what_was_printed_changes_nothing(unit, value):
    text = text_of(value, unit)
    assert text_of(parse(text, unit), unit) == text


@given(unit=st.sampled_from(UNITS), text=st.text(max_size=50))
def test_no_text_makes_it_fail_otherwise(unit, text):
    try:
        value = parse(text, unit)
    except ValueError:
        return
    assert 0 <= value <= FAMILIES[unit].most
