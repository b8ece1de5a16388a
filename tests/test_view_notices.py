"""Notices: what keeps calls from running comes first at every size, and levels do not flicker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pool_monitor.dashboard import Lost
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.findings import HELD_S, held_seconds
from pool_monitor.snapshot import CallStats, Distribution, FaultView, Snapshot, Trend
from pool_monitor.view import LIVE, Freshness, levels, listing, overview, plain, report
from pool_monitor.view.notices import headline, notices
from pool_monitor.view.text import truncate_words, width
from tests.helpers import samples
from tests.helpers.samples import with_pool, with_worker

SIZES = [(60, 20), (80, 24), (200, 60)]


def page(snapshot: Snapshot, size: tuple[int, int] = (80, 24), **options: Any) -> list[str]:
    return plain(overview(snapshot, size, **options)).splitlines()


def overloaded() -> Snapshot:
    """Return a Snapshot of a pool that can serve 30 calls a second and is offered 120."""
    snapshot = with_pool(samples.snapshot(), busy=4, idle=0, waiting=38, queue_limit=40)
    trend = replace(snapshot.pools["text"].trend, rejected=(0.0,) * 150 + (90.0,) * 150)
    return with_pool(
        snapshot, trend=trend, rejected=10_110, error_ratio=0.09, errors=319, refusals={"saturated": 10_110}
    )


def paused() -> Snapshot:
    return with_pool(overloaded(), state="paused", busy=0, idle=4, waiting=40, deaths=20, last_death="exit code 7")


def held(seconds: float = 18.0, *, waiting: int = 0, **changes: Any) -> Snapshot:
    """Return a Snapshot of a pool whose workers are all on calls for *seconds*; no call has ended since."""
    snapshot = samples.snapshot()
    for slot in snapshot.pools["text"].workers:
        snapshot = with_worker(snapshot, slot, state="busy", state_age=seconds)
    quiet = int(seconds)
    trend = Trend(
        step=1.0, end=snapshot.taken_at, ok=(5.0,) * (300 - quiet) + (0.0,) * quiet, errors=(0.0,) * 300
    )  # fmt: skip
    base: dict[str, Any] = {"busy": 4, "idle": 0, "waiting": waiting, "trend": trend, "execution": Distribution()}
    return with_pool(snapshot, **{**base, **changes})


# what holds calls up comes first


@pytest.mark.parametrize("size", SIZES)
def test_overload_is_the_first_notice_and_a_key_figure(size: tuple[int, int]) -> None:
    lines = page(overloaded(), size)
    assert lines[3].startswith(" ✖ 10110 of 13650 calls rejected (74%) ")
    assert "REJ 74%✖" in lines[2]


@pytest.mark.parametrize("size", SIZES)
def test_a_paused_pool_is_the_first_notice_and_in_the_header(size: tuple[int, int]) -> None:
    lines = page(paused(), size)
    assert lines[0].endswith("▲ POOL PAUSED  ● LIVE")
    assert lines[3].startswith(" ✖ pool is paused: 40 calls wait ")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_state_of_a_pool_that_does_not_run_is_never_left_out(width: int) -> None:
    assert page(with_pool(samples.snapshot(), state="draining"), (width, 24))[0].endswith("▲ POOL DRAINING  ● LIVE")


@pytest.mark.parametrize("size", SIZES)
def test_held_workers_are_the_first_notice(size: tuple[int, int]) -> None:
    line = page(held(waiting=7), size)[3]
    assert line.startswith(" ✖ all 4 workers busy, nothing has ended for 18s")


@pytest.mark.parametrize("size", SIZES)
def test_a_notice_of_another_pool_has_its_name(size: tuple[int, int]) -> None:
    two = samples.snapshot(pools=("text", "vision"))
    vision = two.pools["vision"]
    sick = replace(vision, total=replace(vision.total, error_ratio=0.051, errors=181))
    lines = page(replace(two, pools={**two.pools, "vision": sick}), size)
    assert lines[3] == " ▲ pool vision: 5.1% of 3540 calls failed"
    assert " pool 1/2 text +▲" in lines[0]
    assert "+▲" not in page(replace(two, pools={**two.pools, "vision": sick}), size, pool="vision")[0]


def test_rejected_calls_are_drawn_below_the_errors_if_there_are_any() -> None:
    lines = page(overloaded())
    row = next(line for line in lines if "rej┤" in line)[7:-1]
    assert (row[:35].strip(), set(row[36:])) == ("", {"█"})
    assert "rejected up to 90" in next(line for line in lines if "throughput" in line)
    assert not any("rej┤" in line for line in page(samples.snapshot()))


def test_the_causes_of_rejections_come_before_the_rejections() -> None:
    broken = with_pool(overloaded(), breaker="open")
    texts = [headline(notice) for notice in notices(broken, broken.pools["text"], LIVE)]
    assert texts[:2] == ["circuit breaker is open: calls are refused", "10110 of 13650 calls rejected (74%)"]


def test_workers_held_now_come_before_earlier_rejections() -> None:
    both = held(18, waiting=7, rejected=9000)
    texts = [headline(notice) for notice in notices(both, both.pools["text"], LIVE)]
    assert texts == ["all 4 workers busy, nothing has ended for 18s", "9000 of 12540 calls rejected (72%)"]


def test_a_report_on_several_pools_has_the_notices_of_each() -> None:
    two = samples.snapshot(pools=("text", "vision"))
    sick = replace(two.pools["vision"], state="paused", waiting=0)
    assert report(replace(two, pools={**two.pools, "vision": sick})).count("pool is paused") == 1


# all workers held


def held_in(snapshot: Snapshot) -> float | None:
    return held_seconds(snapshot, snapshot.pools["text"])


@pytest.mark.parametrize(
    ("snapshot", "seconds"),
    [
        (held(18), 18.0),
        (held(3), 3.0),
        (held(18, idle=1), None),
        (held(18, busy=3), None),
        (held(18, size=0), None),
        (held(18, state="paused"), None),
        (with_worker(held(18), "text-1", state_age=4.0), 4.0),
        (
            with_pool(held(18), trend=Trend(step=1.0, end=samples.START + samples.UPTIME, ok=(1.0,), errors=(0.0,))),
            None,
        ),
        (with_pool(held(18), trend=Trend(step=1.0, end=samples.START + samples.UPTIME)), None),
        (replace(held(18), taken_at=held(18).taken_at + 0.5), 18.0),
    ],
)
def test_workers_are_held_for_as_long_as_all_are_busy_and_nothing_ended(
    snapshot: Snapshot, seconds: float | None
) -> None:
    assert held_in(snapshot) == seconds


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ["all 4 workers busy, nothing has ended for 18s"]),
        ({"waiting": 1}, ["all 4 workers busy, nothing has ended for 18s; 1 call waits"]),
        ({"execution": Distribution(count=9, max=17.0)}, ["all 4 workers busy, nothing has ended for 18s"]),
        ({"execution": Distribution(count=9, max=19.0)}, []),
    ],
)
def test_being_held_longer_than_any_call_took_is_a_finding(changes: dict[str, Any], wanted: list[str]) -> None:
    snapshot = held(18.0, **changes)
    found = notices(snapshot, snapshot.pools["text"], LIVE)
    assert [notice.text for notice in found] == wanted
    assert [notice.level for notice in found] == ["bad" if "waiting" in changes else "warn"] * len(wanted)


def test_being_held_for_a_moment_is_no_finding() -> None:
    snapshot = held(HELD_S - 1)
    assert notices(snapshot, snapshot.pools["text"], LIVE) == []


def test_calls_under_way_are_counted_before_the_first_call_has_ended() -> None:
    quiet = with_pool(samples.empty(), busy=2, completed=0)
    assert page(quiet)[3] == " no call has ended yet, 2 under way"


# the playbook


def everything() -> list[Snapshot]:
    """Return Snapshots that together have every kind of finding."""
    base = samples.snapshot()
    doubtful = replace(base.monitor, collecting=False, dropped=1, handler_failures=1, weights={"pool.error": 0})
    all_at_once = with_pool(
        overloaded(), state="paused", breaker="open", deaths=1, error_ratio=0.5, waiting=64, queue_limit=64
    )
    troubles: dict[str, dict[str, Any]] = {
        "text-0": {"state": "terminated"},
        "text-1": {"state": "degraded"},
        "text-2": {"state": "initializing"},
        "text-3": {"health": "stuck"},
    }
    for slot, changes in troubles.items():
        all_at_once = with_worker(all_at_once, slot, **changes)
    return [
        replace(all_at_once, monitor=doubtful),
        with_worker(base, "text-0", crash_loop=True),
        with_worker(base, "text-0", state="terminated", last_error="start: no"),
        held(18),
        with_pool(base, breaker="half_open"),
        with_pool(base, waiting=40),
        *(with_pool(base, state=state) for state in ("draining", "closed", "starting", "new")),
    ]


def test_the_playbook_has_a_line_for_every_text_of_the_notice_line() -> None:
    playbook = (Path(__file__).parent.parent / "docs" / "OPERATIONS_PLAYBOOK.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (.*?) \| .* \|$", playbook.partition("| text on the screen |")[2], re.MULTILINE)
    known = [words.strip() for cell in table for words in re.split(r", | or |…", cell) if words.strip()]
    freshness_states = [LIVE, Freshness("STALE", seconds=3), Freshness("LOST", reason="gone")]
    texts = {
        notice.text
        for snapshot in everything()
        for freshness in freshness_states
        for notice in notices(snapshot, snapshot.pools["text"], freshness)
    }
    assert len(texts) >= 20
    assert [text for text in texts if not any(words in text for words in known)] == []


# no flicker


def failing(share: float) -> Snapshot:
    return with_pool(samples.snapshot(), error_ratio=share, errors=round(share * 3540))


def shown_levels(shares: list[float]) -> list[str | None]:
    found, seen = levels(samples.snapshot()), []
    for share in shares:
        found = levels(failing(share), found)
        seen.append(found.get(("text", "failed")))
    return seen


def test_a_share_that_varies_around_its_bound_keeps_its_level() -> None:
    assert shown_levels([0.096, 0.1, 0.096, 0.1, 0.081, 0.1]) == ["warn", *["bad"] * 5]
    assert shown_levels([0.1, 0.079, 0.1, 0.016, 0.0159, 0.019, 0.02]) == [
        *("bad", "warn", "bad", "warn", None, None, "warn"),
    ]


def test_the_screen_keeps_a_level_from_one_frame_to_the_next() -> None:
    viewer = Viewer(100.0, source="articles", interval=1.0, window="5m")
    symbols = []
    for tick, share in enumerate((0.1, 0.096, 0.1, 0.096)):
        viewer.receive(failing(share), 100.0 + tick)
        lines = plain(viewer.page((80, 24), 100.0 + tick)).splitlines()
        symbols.append((lines[3][1], lines[1].split("ERR")[1].split()[0][-1]))
    assert symbols == [("✖", "✖")] * 4


def test_few_rejections_are_never_more_than_a_warning() -> None:
    def level(rejected: int, calls: int) -> str | None:
        return levels(with_pool(samples.snapshot(), rejected=rejected, calls=calls)).get(("text", "rejected"))

    assert [level(0, 0), level(1, 0), level(2, 2), level(3, 3), level(3, 28), level(3, 27)] == [
        *(None, "warn", "warn", "bad", "warn", "bad"),
    ]
    assert with_pool(samples.snapshot()).pools["text"].total == CallStats(
        **{name: getattr(samples.snapshot().pools["text"].total, name) for name in CallStats.__struct_fields__}
    )


# words


@pytest.mark.parametrize(
    ("text", "cells", "wanted"),
    [
        ("workers died in the last 5m", 27, "workers died in the last 5m"),
        ("workers died in the last 5m", 26, "workers died in the last…"),
        ("workers died in the last 5m", 20, "workers died in the…"),
        ("cannot start: OSError", 15, "cannot start…"),
        ("一二三四五 六七", 8, "一二三…"),
        ("incomprehensibilities", 8, "incompr…"),
        ("word", 0, ""),
    ],
)
def test_words_are_not_cut_if_more_than_one_fits(text: str, cells: int, wanted: str) -> None:
    assert truncate_words(text, cells) == wanted
    assert width(wanted) <= cells


def test_a_lost_connection_has_its_first_sentence_in_the_line_and_the_rest_on_the_page() -> None:
    viewer = Viewer(100.0, source="known", interval=1.0, window="5m")
    viewer.receive(samples.snapshot(), 100.0)
    viewer.receive(Lost("no service 'known'; running:\n  articles  pid 4101\n  vision  pid 4102", 2.0), 101.0)
    assert plain(viewer.page((80, 24), 101.0)).splitlines()[3] == " ✖ connection lost: no service 'known'"
    viewer.open("notices")
    in_full = " ".join(plain(viewer.page((80, 24), 101.0)).split())
    assert "✖ connection lost: no service 'known'; running: articles pid 4101 vision pid 4102" in in_full


def test_notices_without_room_are_counted_beside_the_key_that_lists_them() -> None:
    line = page(paused(), (60, 20))[3]
    assert line == " ✖ pool is paused: 40 calls wait  +4 more: n"
    listed = plain(listing("notices", paused(), (60, 20)))
    for words in (
        "✖ pool is paused: 40 calls wait",
        "✖ 10110 of 13650 calls rejected (74%); since the start:",
        "✖ 20 workers died in the last 5m, the latest: exit code 7",
        "✖ queue is full: 40 of 40 places taken",
        "▲ 9.0% of 3540 calls failed",
    ):
        assert words in listed


def test_a_lost_service_is_explained_on_the_waiting_page() -> None:
    viewer = Viewer(100.0, source="known", interval=1.0, window="5m")
    viewer.receive(Lost("no service 'known'; running:\n" + "\n".join(f"  service-{i}" for i in range(12)), 2.0), 100.0)
    shown = plain(viewer.page((60, 20), 100.0))
    assert "service-11" in shown
    assert viewer.freshness(100.0) == Freshness("LOST", seconds=2, reason=viewer.freshness(100.0).reason)


# resources


def strained(*faults: FaultView) -> Snapshot:
    snapshot = samples.measured(pools=("text", "vision"))
    return replace(snapshot, resources=replace(snapshot.resources, faults=faults))


HOST = FaultView(kind="memory", level="bad", subject="host", since=samples.START, reason="memory: 3.9 GB of 4.0 GB")
LOOP = FaultView(kind="lag", level="warn", subject="loop", since=samples.START, reason="lags\nby 120 ms")
WORKER = FaultView(
    kind="leak",
    level="warn",
    subject="worker text-3",
    pool="text",
    worker="text-3",
    since=samples.START,
    reason="leaks",
)


@pytest.mark.parametrize("pool", ["text", "vision"])
def test_a_fault_of_the_machine_is_a_notice_in_every_pool_and_the_worst_comes_first(pool: str) -> None:
    snapshot = strained(LOOP, WORKER, HOST)
    found = [notice.text for notice in notices(snapshot, snapshot.pools[pool], LIVE)]
    assert found[0] == "host: memory: 3.9 GB of 4.0 GB"
    assert "event loop: lags by 120 ms" in found
    assert page(snapshot, pool=pool)[3].startswith(" ✖ host: memory: 3.9 GB")


def test_a_fault_of_a_worker_is_a_notice_of_its_pool() -> None:
    snapshot = strained(WORKER)
    own, other = (notices(snapshot, snapshot.pools[name], LIVE) for name in ("text", "vision"))
    assert [notice.text for notice in own] == ["text-3: leaks"]
    assert [notice.text for notice in other] == ["pool text: text-3: leaks"]
    listed = plain(listing("notices", snapshot, (80, 24))).splitlines()
    assert listed[2:4] == [" pool text", "  ▲ text-3: leaks"]


def test_a_fault_of_the_machine_is_shown_before_any_pool_has_been_entered() -> None:
    snapshot = replace(strained(HOST), pools={})
    assert page(snapshot)[3].startswith(" ✖ host: memory: 3.9 GB")
