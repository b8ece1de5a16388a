"""The page of errors: one line for each group, the selected one in full, and what belongs to no group."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.snapshot import ErrorGroup, ErrorSample, FailureView, Snapshot
from pool_monitor.view import ASCII, Freshness, Glyphs, error_rows, listing, plain, report, selected_row
from tests.helpers import golden, samples
from tests.helpers.samples import with_pool
from tests.test_view_overview import assert_fits, counts, freshness_states, glyph_sets, nasty_text, seconds, sizes

CRASH = FailureView("crash", "exit code 7: MemoryError: 8 GB wanted", "generate", "text-1", 402.0, 1)
START = FailureView("start", "RuntimeError: no licence", None, "summaries-of-the-shop-12", 8.2, 11)
OF_A_CALL = FailureView("RateLimited", "try again in 20 s", "chat", "text-3", 8.2, 11)


def failing(*failures: FailureView, groups: tuple[ErrorGroup, ...] | None = None) -> Snapshot:
    snapshot = with_pool(samples.measured(), failures=failures)
    return snapshot if groups is None else with_pool(snapshot, error_groups=groups)


def many(number: int) -> tuple[ErrorGroup, ...]:
    first = samples.error_groups()[0]
    return tuple(replace(first, fingerprint=f"{place:016}", type=f"Error{place:02}") for place in range(number))


def page(snapshot: Snapshot, size: tuple[int, int] = (80, 24), **options: Any) -> str:
    return plain(listing("errors", snapshot, size, **options))


def edge(lines: list[str]) -> int:
    return next(place for place, line in enumerate(lines) if set(line) == {"─"})


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_the_page_matches_the_golden_files(size: tuple[int, int]) -> None:
    golden.check(f"errors_selected_{size[0]}x{size[1]}.txt", page(failing(CRASH), size))


def test_the_groups_come_first_and_then_what_no_call_raised() -> None:
    snapshot = failing(OF_A_CALL, CRASH, START)
    rows = error_rows(snapshot.pools["text"], snapshot.taken_at)
    assert [row.type for row in rows] == ["RateLimited", "OperationTimeout", "crash", "start"]
    assert [row.times for row in rows] == [31, 11, 1, 11]


def test_a_process_that_ended_in_a_call_is_counted_once() -> None:
    died = replace(samples.error_groups()[0], type="WorkerDied", operations=("generate",))
    elsewhere = replace(CRASH, operation="chat")
    pool = failing(CRASH, elsewhere, START, groups=(died,)).pools["text"]
    rows = error_rows(pool, 0.0)
    assert [(row.type, row.where) for row in rows[1:]] == [("crash", ("chat",)), ("start", ())]


def test_without_groups_all_failures_are_listed() -> None:
    snapshot = failing(OF_A_CALL, CRASH, groups=())
    assert [row.type for row in error_rows(snapshot.pools["text"], snapshot.taken_at)] == ["RateLimited", "crash"]
    assert "nothing went wrong" in page(samples.snapshot())
    assert "nothing went wrong" in page(replace(samples.snapshot(), pools={}))


def test_the_second_group_is_shown_with_the_stack_of_its_worker() -> None:
    shown = page(failing(), error=samples.error_groups()[1].fingerprint)
    assert "11 in the last 5m (0.04/s), 11 since the start; first 4m10s ago, last 42s ago" in shown
    assert "what the worker ran when it was interrupted:" in shown
    assert 'File "/srv/shop/summaries/tools.py", line 57, in clean' in shown


def test_a_failure_without_a_call_is_shown_in_full_with_its_slot() -> None:
    snapshot = failing(CRASH, START)
    key = error_rows(snapshot.pools["text"], snapshot.taken_at)[-1].key
    shown = page(snapshot, (60, 20), error=key)
    assert "RuntimeError: no licence" in shown
    assert "on summaries-of-the-shop-12" in " ".join(shown.split())
    assert "11 times in the last hour" in shown


def test_a_selection_that_is_gone_falls_back_to_the_first_row() -> None:
    snapshot = failing()
    rows = error_rows(snapshot.pools["text"], snapshot.taken_at)
    assert selected_row(rows, "gone") is rows[0]
    assert selected_row([], "gone") is None
    assert page(snapshot, error="gone") == page(snapshot)


def test_a_long_message_is_wrapped_and_foreign_text_is_harmless() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    sample = ErrorSample(at=samples.START, message=f"{words}\n\n  its last line\x1b[2J", traceback="a\tb\r\n\x07c")
    group = replace(samples.error_groups()[0], message="\x1b]0;title\x07", sample=sample)
    shown = page(failing(groups=(group,)), (80, 40))
    assert " its last line?[2J\n" in shown
    assert "".join(words.split()) in "".join(shown.split())
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_a_line_of_a_traceback_is_wrapped_and_nothing_of_it_is_lost() -> None:
    path = "/srv/" + "/".join(f"folder{number}" for number in range(20))
    sample = ErrorSample(at=samples.START, message="m", traceback=f'  File "{path}/x.py", line 3, in send')
    shown = page(failing(groups=(replace(samples.error_groups()[0], sample=sample),)), (60, 40))
    assert f'File"{path}/x.py",line3,insend' in "".join(shown.split())


def test_the_list_shows_the_selected_row_and_leaves_room_for_its_text() -> None:
    snapshot = failing(groups=many(60))
    for place in (0, 1, 30, 59):
        lines = page(snapshot, error=f"{place:016}").splitlines()
        assert edge(lines) <= 9
        assert any(f"Error{place:02}: try again" in line for line in lines[: edge(lines)])
        assert lines[edge(lines) + 1].startswith(f" Error{place:02}: try again")


def test_the_arrows_select_and_the_page_keys_scroll_the_text() -> None:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    long = "\n".join(f'  File "x.py", line {number}, in deep' for number in range(60))
    sample = ErrorSample(at=samples.START, message="m", traceback=long)
    first, second = samples.error_groups()
    made.receive(failing(groups=(first, replace(second, sample=sample))), 100.0)
    made.open("errors")
    size = (80, 24)

    def text() -> list[str]:
        lines = plain(made.page(size, 100.0)).splitlines()
        return lines[edge(lines) + 1 :]

    assert text()[0].startswith(" RateLimited")
    made.move(1, size, 100.0)
    made.move(1, size, 100.0)
    assert text()[0].startswith(" OperationTimeout")
    made.move_page(1, size, 100.0)
    assert "above" in text()[-2]
    assert not text()[0].startswith(" OperationTimeout")
    made.move_page(99, size, 100.0)
    assert " 0 below" in text()[-2]
    made.move(-1, size, 100.0)
    assert text()[0].startswith(" RateLimited")


def test_the_text_stays_while_counts_change_the_order() -> None:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    first, second = samples.error_groups()
    made.receive(failing(groups=(first, second)), 100.0)
    made.open("errors")
    before = plain(made.page((80, 24), 100.0)).splitlines()
    made.receive(failing(groups=(second, first)), 101.0)
    after = plain(made.page((80, 24), 101.0)).splitlines()
    assert before[edge(before) + 1] == after[edge(after) + 1] == " RateLimited: try again in <n> s"


groups = st.builds(
    ErrorGroup,
    fingerprint=nasty_text(),
    type=nasty_text(),
    message=nasty_text(),
    frames=st.lists(nasty_text(), max_size=3).map(tuple),
    count=counts(),
    total=counts(),
    rate=seconds(),
    first_seen=st.floats(0, 1e10),
    last_seen=st.floats(0, 1e10),
    operations=st.lists(nasty_text(), max_size=8).map(tuple),
    workers=st.lists(nasty_text(), max_size=8).map(tuple),
    sample=st.none()
    | st.builds(
        ErrorSample,
        at=st.floats(0, 1e10),
        message=nasty_text(),
        traceback=st.none() | st.text(max_size=200),
        stack=st.none() | nasty_text(),
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(groups, max_size=6), sizes, freshness_states, glyph_sets, st.integers(-3, 99), nasty_text())
def test_any_groups_fit_any_screen_and_can_be_reported(
    found: list[ErrorGroup], size: tuple[int, int], freshness: Freshness, glyphs: Glyphs, offset: int, error: str
) -> None:
    snapshot = failing(CRASH, groups=tuple(found))
    drawn = listing("errors", snapshot, size, freshness=freshness, offset=offset, glyphs=glyphs, error=error)
    assert_fits(drawn, size, glyphs)
    written = report(snapshot, glyphs=glyphs)
    assert all(line.isprintable() for line in written.split("\n"))


def test_the_page_has_an_ascii_form() -> None:
    assert page(failing(CRASH), glyphs=ASCII).isascii()
