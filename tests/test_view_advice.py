"""Advice and tuning on screens and in reports: what waits comes first, figures have units, no text does harm."""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor.advisor import patterns
from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.export.tuning_families import tuning_families
from pool_monitor.snapshot import Change, Effect, Pattern, Snapshot, TrialState
from pool_monitor.view import ASCII, LIVE, UNICODE, Freshness, listing, overview, plain, report
from pool_monitor.view import advice_words as words
from pool_monitor.view.advice_page import advice_rows, selected_advice
from pool_monitor.view.notices import notices
from pool_monitor.view.period_report import markdown
from pool_monitor.view.period_report import text as period_text
from tests.helpers import advice_samples, golden, samples
from tests.helpers.advice_samples import NOW, WAIT, recommendation, trial
from tests.test_view_overview import assert_fits, nasty_text, sizes
from tests.test_view_period_report import report as period_report

KEYS = "Enter why  A approve  R reject  B undo  D dismiss"


def several(**changes: Any) -> Snapshot:
    return advice_samples.snapshot(*advice_samples.recommendations(), **changes)


def page(snapshot: Snapshot, size: tuple[int, int] = (100, 30), **options: Any) -> str:
    return plain(listing("advice", snapshot, size, **options))


def flat(shown: str) -> str:
    return " ".join(shown.split())


# the page


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("waiting_80x24", (80, 24), {}),
        ("advice_80x24", (80, 24), {"advice": "00000001"}),
        ("narrow_60x20", (60, 20), {"advice": "00000001"}),
        ("wide_120x30", (120, 30), {"advice": "00000001"}),
        ("stale_80x24", (80, 24), {"freshness": Freshness("STALE", seconds=9)}),
        ("ascii_80x24", (80, 24), {"glyphs": ASCII}),
    ],
)
def test_the_page_matches_the_golden_files(name: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    shown = page(several(frozen="release", frozen_until=NOW + 2040), size, **options)
    golden.check(f"tuning_{name}.txt", shown)


def test_what_waits_comes_first_then_what_runs_then_advice_by_score_then_what_is_over() -> None:
    rows = advice_rows(several())
    assert [row.id for row in rows] == [
        "a0000001", "a0000002", "00000001", "00000002", "00000003", "a0000003", "a0000004",
    ]  # fmt: skip
    assert selected_advice(rows, "00000002") is rows[3]
    assert selected_advice(rows, "gone") is rows[0]
    assert selected_advice([], None) is None


def test_the_page_explains_itself_where_there_is_nothing() -> None:
    off = samples.snapshot()
    assert "the tuner is off nothing to recommend: nothing was found, or there is too little data" in flat(page(off))
    broken = replace(off, monitor=replace(off.monitor, degraded={"advisor": "its task\x1b[2J has ended"}))
    assert "no advice: the part is degraded: its task?[2J has ended" in flat(page(broken))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "tuner recommend, policy balanced; 1 change waits for approval; 1 on trial"),
        ({"pending": (), "trials": ()}, "tuner recommend, policy balanced "),
        (
            {"mode": "auto", "pending": (trial(1), trial(2)), "trials": ()},
            "tuner auto, policy balanced; 2 changes wait",
        ),
        ({"frozen": "release"}, "policy balanced; frozen: release; 1 change waits"),
        ({"frozen": "release", "frozen_until": NOW + 60}, "frozen: release, for another 1m00s;"),
    ],
)
def test_the_first_line_says_what_the_tuner_may_do(changes: dict[str, Any], told: str) -> None:
    assert told in flat(page(several(**changes)))


def test_the_size_of_each_pool_is_told_with_its_range_and_its_reason() -> None:
    shown = flat(page(several()))
    assert "text: 4 workers, wants 6 (2 to 16, floor 3): 12.1 calls/s need it" in shown


def test_the_selected_recommendation_is_told_in_full_with_effect_and_playbook() -> None:
    shown = flat(page(several(), advice="00000001"))
    for text in (
        "overloaded of pool text: too few workers; score 71 of 100, confidence 93%, 1840 samples",
        "expected: p95 wait 480ms -> about 60ms (40ms to 90ms) at 6 workers, +2 x 48MiB",
        "do: let the pool have 6 workers",
        "check first: whether the calls have become slower",
        "change: size 4 > 6; low risk",
        "evidence: utilisation_ratio 97%, wait_p95_seconds 480ms, size 4",
        "open since 15m00s, last found 12s ago; id 00000001",
        "playbook: docs/OPERATIONS_PLAYBOOK.md#advice-overloaded",
    ):
        assert text in shown, text


def test_the_explanation_stands_below_the_details_line_by_line() -> None:
    shown = page(several(), (100, 40), advice="00000001", explanation="first\n  second\x1b[2J")
    lines = [line.strip() for line in shown.splitlines()]
    assert lines.index("second?[2J") == lines.index("first") + 1


def test_the_footer_names_the_keys_that_act() -> None:
    assert KEYS in page(several(), (120, 30)).splitlines()[-1]
    assert "Enter why  A approve" in page(several(), (60, 20)).splitlines()[-1]


@pytest.mark.parametrize("state", get_args(TrialState))
def test_every_state_of_a_trial_has_words_that_fit_its_column(state: TrialState) -> None:
    assert 0 < len(words.STATE_WORDS[state]) <= 11
    rows = advice_rows(several(pending=(), trials=(trial(1, state=state),)))
    assert "a0000001" in {row.id for row in rows}


def test_every_pattern_has_words() -> None:
    assert set(words.PATTERN_WORDS) == set(get_args(Pattern))


@settings(max_examples=15, deadline=None)
@given(nasty_text(), sizes)
def test_foreign_text_is_harmless_at_any_size(text: str, size: tuple[int, int]) -> None:
    hostile = advice_samples.snapshot(
        recommendation(1, subject=text, summary=text, action=text, check_first=text, evidence={text: 1.0}, id=text),
        frozen=text,
        policy=text,
        pending=(trial(1, pool=text, knob=text, reason=text, why=text, actor=text, origin=text),),
    )
    for chosen in (None, text):
        assert_fits(listing("advice", hostile, size, advice=chosen, explanation=text), size, UNICODE)


# words


@pytest.mark.parametrize(
    ("effect", "change", "told"),
    [
        (None, None, ""),
        (WAIT, None, "p95 wait 480ms -> about 60ms (40ms to 90ms), +96MiB"),
        (
            WAIT,
            Change(knob="size", current=4, proposed=5),
            "p95 wait 480ms -> about 60ms (40ms to 90ms) at 5 workers, +96MiB",
        ),
        (
            Effect(metric="pool.error_ratio", now=0.2, expected=0.01, low=0.01, high=0.01, cost=-(1024.0**2)),
            None,
            "failed calls 20% -> about 1%, -1MiB",
        ),
        (
            Effect(metric="worker.rss", now=2**30, expected=2**29, low=float("nan"), high=1, cost=None),
            None,
            "memory of a worker 1GiB -> about 512MiB",
        ),
    ],
)  # fmt: skip
def test_an_effect_is_a_number_with_a_range_and_a_price(effect: Any, change: Any, told: str) -> None:
    assert words.effect_words(effect, change) == told


def test_the_metrics_that_have_words_exist() -> None:
    assert set(words._METRIC_WORDS) <= set(METRICS)


def test_every_metric_that_a_pattern_names_has_words_and_a_unit() -> None:
    sources = "".join(path.read_text() for path in Path(patterns.__file__).parent.glob("*.py"))
    named = set(re.findall(r'metric ?= ?"([^"]+)"', sources)) | {"pool.execution.mean"}
    assert "pool.queue.p95" in named
    assert named <= set(words._METRIC_WORDS) | set(words._OWN_METRICS)
    assert not set(words._OWN_METRICS) & set(METRICS)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("p95_wait", 0.48, "480ms"),
        ("p999_high", 2.0, "2s"),
        ("mean_before", 0.05, "50ms"),
        ("start_seconds", 5.0, "5s"),
        ("late_ratio", 0.31, "31%"),
        ("failed_ratio_low", 0.02, "2%"),
        ("rss", 2.0**30, "1GiB"),
        ("bytes_per_hour_high", 2.0**20, "1MiB"),
        ("incidents", 4.0, "4"),
        ("p", 0.0001, "0.0001"),
    ],
)
def test_a_figure_of_the_evidence_has_its_unit(name: str, value: float, told: str) -> None:
    assert words.evidence_words({name: value}) == f"{name} {told}"


# elsewhere


def test_a_change_that_was_rolled_back_is_a_notice_for_a_while_and_one_that_waits_is_a_hint() -> None:
    snapshot = several()
    told = [notice.text for notice in notices(snapshot, snapshot.pools["text"], LIVE)]
    assert "text: size 6 > 4 was rolled back: p95 wait rose to 310ms" in told
    later = replace(snapshot, taken_at=NOW + 3600)
    assert not any("rolled back" in notice.text for notice in notices(later, later.pools["text"], LIVE))
    quiet = several(trials=())
    assert "nothing else needs attention; 1 change waits for approval: t" in plain(overview(quiet, (100, 30)))


def test_the_report_has_advice_and_changes() -> None:
    shown = flat(report(several(), width=120))
    assert "ADVICE: tuner recommend, policy balanced; 1 change waits for approval; 1 on trial" in shown
    assert "ADVICE" not in report(samples.snapshot())


def test_the_report_on_a_period_has_what_is_recommended_and_what_was_changed() -> None:
    found = replace(
        period_report(),
        recommendations=advice_samples.recommendations()[:2],
        changes=advice_samples.trials(),
    )
    shown = flat(period_text(found, width=200, zone=UTC))
    assert "advice and tuning" in shown
    assert "overloaded of pool text (score 71): 95% of the calls waited for up to 480ms" in shown
    assert "in that time: 3 changes of settings" in shown
    assert "| a0000003 | text | size 6 > 4 | rolled back | policy | p95 wait rose to 310ms |" in markdown(
        found
    ).replace("\\>", ">")
    assert "advice and tuning" not in period_text(period_report(), width=100, zone=UTC)


def test_the_families_are_those_of_the_guide_and_count_by_pattern_and_pool() -> None:
    told = tuning_families(several(ended={"kept": 2}, frozen="x"))
    found = {one.name.removeprefix("pool_monitor_"): one for one in told}
    assert dict(found["advice_open"].series)[(("pattern", "overloaded"),)] == [1]
    assert found["tuner_mode"].series == [((), [0, 1, 0])]
    assert found["tuner_changes_total"].series == [((), [2, 0, 0, 0])]
    assert [found[f"tuner_{name}"].series[0][1] for name in ("frozen", "pending", "running")] == [[1], [1], [1]]
    sizes_of = {name: found[f"tuner_size_{name}"].series for name in ("wanted", "low", "high", "floor", "ceiling")}
    assert {name: series[0][1] for name, series in sizes_of.items() if series} == {
        "wanted": [6], "low": [2], "high": [16], "floor": [3], **({"ceiling": [None]} if sizes_of["ceiling"] else {}),
    }  # fmt: skip
    assert all(not one.series for one in tuning_families(samples.snapshot()))
    numbers = [value for one in found.values() for _, values in one.series for value in values]
    assert not any(isinstance(value, bool) for value in numbers)


# the keys


def viewer(snapshot: Snapshot | None = None) -> Viewer:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    made.receive(several() if snapshot is None else snapshot, 100.0)
    made.open("advice")
    return made


def screen(made: Viewer) -> str:
    return plain(made.page((110, 30), 100.0))


@pytest.fixture(autouse=True)
def anna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")


def test_a_key_asks_about_the_selected_change_and_y_confirms_once() -> None:
    made = viewer()
    made.ask_by_key("A")
    assert "approve text: size 4 > 6 as anna?   y yes   Esc no" in screen(made)
    request = made.prompt.confirm()
    assert request is not None
    assert (request.action, request.about, request.author) == ("approve", "a0000001", "anna")
    assert made.prompt.confirm() is None
    made.prompt.answer(request, "approved\x1b[2J")
    assert "approved?[2J" in screen(made)


@pytest.mark.parametrize(
    ("row", "key", "asked"),
    [
        ("a0000001", "A", "approve"), ("a0000001", "R", "reject"), ("a0000001", "B", None), ("a0000001", "D", None),
        ("a0000002", "B", "rollback"), ("a0000002", "A", None),
        ("a0000003", "B", None), ("a0000004", "B", "rollback"),
        ("00000001", "D", "dismiss"), ("00000001", "A", None), ("00000001", "S", None),
    ],
)  # fmt: skip
def test_a_key_asks_only_what_can_be_done_to_the_row(row: str, key: str, asked: str | None) -> None:
    made = viewer()
    made.advice.id = row
    made.ask_by_key(key)
    request = made.prompt.confirm()
    assert (None if request is None else request.action) == asked


def test_nothing_is_asked_elsewhere_or_without_a_row() -> None:
    made = viewer()
    made.open("errors")
    made.ask_by_key("A")
    assert made.prompt.confirm() is None
    assert made.ask_for_explanation() is None
    empty = viewer(samples.snapshot())
    empty.ask_by_key("A")
    assert (empty.prompt.confirm(), empty.ask_for_explanation()) == (None, None)


def test_an_explanation_is_asked_for_shown_and_gone_with_its_row() -> None:
    made = viewer()
    request = made.ask_for_explanation()
    assert request is not None
    assert (request.action, request.about) == ("explain", "a0000001")
    made.advice.explain(request, "the figures")
    assert "the figures" in screen(made)
    made.move(1, (110, 30), 100.0)
    assert "the figures" not in screen(made)
    made.move(-1, (110, 30), 100.0)
    assert "the figures" in screen(made)


def test_the_selection_stays_with_its_row_when_others_come() -> None:
    made = viewer(several(pending=()))
    made.move(1, (110, 30), 100.0)
    assert made.advice.id == "00000001"
    made.receive(several(), 101.0)
    assert "overloaded of pool text" in screen(made)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["up", "down", "A", "R", "B", "D", "y", "esc", "why", "new"]), max_size=12))
def test_no_sequence_of_keys_breaks_the_page(keys: list[str]) -> None:
    made = viewer()
    for number, key in enumerate(keys):
        if key in ("up", "down"):
            made.move(1 if key == "down" else -1, (80, 24), 100.0)
        elif key == "y":
            made.prompt.confirm()
        elif key == "esc":
            made.prompt.cancel()
        elif key == "why":
            made.ask_for_explanation()
        elif key == "new":
            made.receive(several(pending=() if number % 2 else (trial(),)), 100.0 + number)
        else:
            made.ask_by_key(key)
        assert_fits(made.page((80, 24), 100.0), (80, 24), UNICODE)
