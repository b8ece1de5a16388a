"""The pages that keys open: complete, scrolled, and never wider or higher than the screen."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.snapshot import FailureView, Snapshot
from pool_monitor.view import (
    ASCII,
    LIVE,
    PAGES,
    UNICODE,
    Freshness,
    Glyphs,
    PageName,
    PageState,
    help_page,
    levels,
    listing,
    max_offset,
    overview,
    plain,
)
from pool_monitor.view.notices import notices
from tests.helpers import golden, samples
from tests.helpers.samples import with_pool, with_worker
from tests.test_view_overview import assert_fits, freshness_states, glyph_sets, nasty_text, sizes, snapshots

KINDS = get_args(PageName)[1:]
FAILURES = (
    FailureView("RateLimited", "try again in 20 s", "chat", "text-3", 8.2, 11),
    FailureView("crash", "exit code 7: MemoryError: 8 GB wanted", "generate", "text-1", 402.0, 1),
    FailureView("OperationTimeout", None, "generate", None, 3000.0, 2),
)


def page(kind: PageName, snapshot: Snapshot, size: tuple[int, int] = (80, 24), **options: Any) -> str:
    return plain(listing(kind, snapshot, size, **options))


def several() -> Snapshot:
    """Return a Snapshot of three pools, two of them with findings."""
    snapshot = samples.measured(pools=("text", "vision", "audio"))
    vision, audio = snapshot.pools["vision"], snapshot.pools["audio"]
    vision = replace(vision, total=replace(vision.total, error_ratio=0.051, errors=181))
    audio = replace(audio, state="paused", waiting=64, busy=0, idle=4)
    snapshot = replace(
        snapshot,
        pools={**snapshot.pools, "vision": vision, "audio": audio},
        resources=replace(snapshot.resources, faults=()),
    )
    return with_pool(snapshot, failures=FAILURES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pages_match_the_golden_files(kind: PageName) -> None:
    golden.check(f"{kind}_80x24.txt", page(kind, several()))


failures = st.builds(
    FailureView,
    nasty_text(),
    st.none() | nasty_text(),
    st.none() | nasty_text(),
    st.none() | nasty_text(),
    st.floats(0, 1e9),
    st.integers(0, 10**12),
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    snapshots,
    st.lists(failures, max_size=20),
    sizes,
    freshness_states,
    glyph_sets,
    st.integers(-3, 99),
)
def test_any_page_of_any_snapshot_fits_any_screen(
    kind: PageName, snapshot: Snapshot, seen: list[FailureView], size: tuple[int, int], freshness: Freshness,
    glyphs: Glyphs, offset: int,
) -> None:  # fmt: skip
    if snapshot.pools:
        snapshot = with_pool(snapshot, failures=tuple(seen))
    assert_fits(listing(kind, snapshot, size, freshness=freshness, offset=offset, glyphs=glyphs), size, glyphs)
    assert max_offset(kind, snapshot, size, state=PageState(freshness)) >= 0


def test_all_notices_of_all_pools_are_listed_in_full() -> None:
    snapshot = replace(several(), monitor=replace(several().monitor, dropped=12))
    listed = page("notices", snapshot, (60, 20), freshness=Freshness("LOST", reason="gone; try\nagain"))
    found = levels(snapshot)
    for pool in snapshot.pools.values():
        for notice in notices(replace(snapshot, pools={pool.name: pool}), pool, LIVE, found):
            assert " ".join(notice.text.split()) in " ".join(listed.split())
    assert "gone; try again" in listed
    assert "nothing needs attention" in page("notices", samples.snapshot())


def test_the_page_of_pools_shows_the_worst_notice_of_each() -> None:
    text, vision, audio = (line.split() for line in page("pools", several()).splitlines()[2:5])
    assert text == ["text", "running", "3/4", "2", "11.8", "1.2%", "1.3s"]
    assert (vision[:2], vision[-4:]) == (["▲", "vision"], ["5.1%", "of", "3540", "calls…"])
    assert audio[:5] == ["✖", "audio", "paused", "0/4", "64"]
    assert audio[8:] == ["pool", "is", "paused:", "64…"]
    assert "pool is paused: 64 calls wait" in page("pools", several(), (120, 40))


def test_the_symbols_of_pools_and_both_ends_of_their_names_are_visible_at_every_width() -> None:
    snapshot = several()
    pools = {f"{name}-of-the-shop-{number}": pool for number, (name, pool) in enumerate(snapshot.pools.items())}
    snapshot = replace(snapshot, pools={name: replace(pool, name=name) for name, pool in pools.items()})
    rows = [line.split()[:2] for line in page("pools", snapshot, (60, 15)).splitlines()[2:5]]
    assert rows == [["text-o…shop-0", "running"], ["▲", "vision…shop-1"], ["✖", "audio-…shop-2"]]


def test_lines_that_do_not_fit_a_page_are_counted_and_can_be_scrolled_to() -> None:
    operations = {f"op-{number:03}": samples.snapshot().pools["text"].operations["chat"] for number in range(100)}
    operations = {name: replace(view, operation=name) for name, view in operations.items()}
    many = with_pool(samples.snapshot(), operations=operations)
    assert "… 80 more" in page("operations", many)
    assert "… 10 above, 70 below" in page("operations", many, offset=10)
    most = max_offset("operations", many, (80, 24))
    last = page("operations", many, offset=most)
    assert " op-099 " in last
    assert "… 80 above, 0 below" in last
    assert page("operations", many, offset=most + 9) == last


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (80, 20), (120, 30)])
def test_many_workers_leave_room_for_operations_and_those_in_use_come_first(size: tuple[int, int]) -> None:
    many = samples.snapshot(workers=24)
    for index in range(0, 24, 3):
        many = with_worker(many, f"text-{index}", state="ready", operation=None, calls=0)
    many = with_worker(many, "text-20", state="degraded")
    lines = plain(overview(many, size)).splitlines()
    assert any(line.startswith(" OPERATION") for line in lines)
    slots = [line.split()[0] for line in lines if line.startswith(" text-")]
    assert slots[:3] == ["text-20", "text-1", "text-2"]
    assert "text-0" not in slots


# keys


def viewer(snapshot: Snapshot) -> Viewer:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    made.receive(snapshot, 100.0)
    return made


def screen(made: Viewer, size: tuple[int, int] = (80, 24)) -> str:
    return plain(made.page(size, 100.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_over_the_overview_and_closes_again(kind: PageName) -> None:
    made = viewer(several())
    before = screen(made)
    made.open(kind)
    assert screen(made) == page(kind, several())
    made.open(kind)
    assert screen(made) == before
    made.open(kind)
    made.helping = True
    made.go_back()
    assert screen(made) == page(kind, several())
    made.go_back()
    assert screen(made) == before


def test_another_page_can_be_opened_from_a_page_and_from_the_help() -> None:
    made = viewer(several())
    made.open("notices")
    made.open("errors")
    assert "ERROR " in screen(made)
    made.helping = True
    made.open("errors")
    assert "ERROR " in screen(made)


def test_on_a_page_the_arrows_scroll_and_keep_the_selection() -> None:
    made = viewer(several())
    made.open("resources")
    most = max_offset("resources", several(), (80, 24))
    for step, above in ((1, "… 1 above"), (1, "… 2 above"), (99, f"… {most} above"), (-1, f"… {most - 1} above")):
        made.move(step, (80, 24), 100.0)
        assert above in screen(made)
    made.move_page(-1, (80, 24), 100.0)
    assert "above" not in screen(made)
    assert made.selected is None


def test_on_the_page_of_pools_the_arrows_choose_the_pool_to_show() -> None:
    made = viewer(several())
    made.open("pools")
    made.move(1, (80, 24), 100.0)
    made.go_back()
    assert "pool 2/3 vision" in screen(made)
    made.open("pools")
    made.move(-1, (80, 24), 100.0)
    made.move_page(-1, (80, 24), 100.0)
    made.go_back()
    assert "pool 3/3 audio" in screen(made)


def test_outdated_numbers_on_a_page_never_look_live() -> None:
    for kind in KINDS:
        lines = listing(kind, several(), (80, 24), freshness=Freshness("STALE", seconds=3))
        assert {segment.meaning for line in lines[1:-1] for segment in line if segment.text.strip()} <= {"dim"}


def test_every_page_has_its_own_key_in_the_help_and_in_the_footer() -> None:
    opened = [page for name, page in PAGES.items() if name != "overview"]
    assert len({page.key for page in opened}) == len(opened)
    footer = plain(overview(several(), (120, 24))).splitlines()[-1]
    help_text = plain(help_page((100, 30)))
    for one in opened:
        assert f" {one.key} {one.label} " in footer
        assert one.title in help_text


def test_the_pages_have_an_ascii_form() -> None:
    assert page("notices", several(), glyphs=ASCII).isascii()
    assert not page("notices", several(), glyphs=UNICODE).isascii()
