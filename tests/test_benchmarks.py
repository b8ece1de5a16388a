"""The benchmarks themselves: every pool they compare can be used and leaves nothing, and their tables are true."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from benchmarks import bench_peers, figures, tables
from benchmarks.figures import Speed
from benchmarks.load import PAYLOAD, Slice
from benchmarks.peers import ALL, BASE, PEERS, Ours, Peer, Standard
from benchmarks.runner import Orphans, Runner, Trouble
from benchmarks.scenarios import Load, Loss, Served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by their environment")
OURS = Ours.label


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made
    assert made.left() == []


class NotInstalled(Standard):
    label, package = "not there", "a_package_that_nobody_has"


class TestPools:
    @pytest.mark.parametrize("label", PEERS)
    def test_each_answers_a_call_and_leaves_nothing_when_closed(self, label: str, runner: Runner):
        if not PEERS[label].installed():
            pytest.skip(f"{PEERS[label].package} is not installed")
        child = runner.start(label, "answer", 2)
        assert child.read(dict, 30.0) == PAYLOAD
        assert child.finish() == []
        assert child.code == 0

    def test_ours_and_the_one_all_are_compared_with_need_nothing_installed(self):
        assert PEERS[OURS].installed()
        assert PEERS[BASE].installed()

    def test_one_that_is_not_installed_is_listed_as_that(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(ALL, NotInstalled.label, NotInstalled)
        assert bench_peers.parted([BASE, NotInstalled.label]) == ([BASE], [NotInstalled.label])

    def test_a_choice_is_of_beginnings_and_brings_the_one_all_are_compared_with(self):
        assert bench_peers.chosen(None) == list(ALL)
        assert set(bench_peers.chosen(["ANYIO", "pool_monitor,"])) == {
            BASE,
            "anyio.to_process",
            "pool_monitor, prefetch=1",
            "pool_monitor, monitored",
        }
        with pytest.raises(ValueError, match="no peer 'celery'; there are ProcessPoolExecutor, "):
            bench_peers.chosen(["celery"])


class TestRunner:
    def test_a_pool_serves_slices_of_load_until_told_to_end(self, runner: Runner):
        child = runner.start(OURS, "serve", 2)
        assert len(set(child.read(list[int], 30.0))) == 2
        others = child.others()
        for payload in ("small", "1 MiB"):
            child.write(Load(payload=payload, callers=2, seconds=0.05))
            done = child.read(Slice, 30.0)
            assert isinstance(done, Slice)
            assert done.per_second > 0
            assert done.p50_us <= done.p99_us
        assert 0.0 <= others() <= (os.cpu_count() or 1)
        assert child.finish() == []
        assert child.code == 0

    def test_one_that_does_not_answer_hangs_and_is_ended(self, runner: Runner):
        child = runner.start(BASE, "serve", 2)
        assert len(child.read(list[int], 30.0)) == 2
        assert child.read(Slice, 0.0) == Trouble("hangs")
        assert runner.left()
        child.end()
        assert runner.left() == []

    def test_leaving_it_ends_whatever_is_still_there(self):
        with Runner() as runner:
            child = runner.start(BASE, "serve", 2)
            assert len(child.read(list[int], 30.0)) == 2
            assert len(runner.left()) == 3
        assert runner.left() == []
        child.end()

    def test_one_that_fails_says_why(self, runner: Runner):
        assert runner.ask("no such pool", "answer", 2, dict, 30.0) == Trouble("failed: KeyError: 'no such pool'")

    def test_what_a_killed_parent_leaves_is_counted_and_ended(self, runner: Runner):
        found = []
        for label in (BASE, OURS):
            child = runner.start(label, "orphan", 2)
            pids = child.read(list[int], 30.0)
            assert not isinstance(pids, Trouble)
            found.append(child.kill_parent(pids, patience=0.2 if label == BASE else 10.0))
            child.end()
        theirs, ours = found
        assert (theirs.workers, theirs.workers_left, theirs.gone_ms) == (2, 2, None)
        assert (ours.workers_left, ours.others_left) == (0, 0)
        assert ours.gone_ms is not None

    @pytest.mark.parametrize("scenario", ["cold", "lose_idle"])
    def test_our_pool_serves_with_all_its_workers_in_the_end(self, scenario: str, runner: Runner):
        result = runner.ask(OURS, scenario, 2, Served, 30.0)
        assert isinstance(result, Served)
        assert result.full_ms is not None
        assert result.first_ms is not None
        assert not result.silent


class TestTables:
    def test_a_terminal_gets_columns_in_line(self):
        table = tables.Table("speed", "what it is", ["", "calls/s"], [["a", "1"], ["long name", "1,234"]])
        assert tables.text(table).splitlines() == [
            "speed",
            "what it is",
            "",
            "           calls/s",
            "a                1",
            "long name    1,234",
        ]

    def test_a_readme_gets_markdown(self):
        table = tables.Table("speed", "what it is", ["", "calls/s"], [["a|b", "1"]])
        assert tables.markdown(table).splitlines() == [
            "### speed",
            "",
            "what it is",
            "",
            "|  | calls/s |",
            "| --- | ---: |",
            "| a\\|b | 1 |",
        ]

    def test_speed_is_that_of_the_slices_disturbed_least_and_its_ratio_to_the_base(self):
        slices = [Slice(rate, 100.0, 1234.5, 10.04) for rate in (100.0, 900.0, 300.0, 10.0)]
        disturbed = Speed(slices, [0.1, 1.5, 0.2, 1.9])
        ours = Speed([Slice(800.0, 10.0, 20.0, 3.0)], [0.0])
        table = figures.speed_table("speed", "", {BASE: disturbed, OURS: ours, "x": Trouble("hangs")}, ["y"])
        assert table.rows == [
            [BASE, "200", "1.00", "100", "1,234", "10.0"],
            [OURS, "800", "4.00", "10", "20", "3.0"],
            ["x", "hangs", *"----"],
            ["y", "not installed", *"----"],
        ]
        assert "used 0.10 processors" in table.about

    def test_a_start_has_its_ratio_and_what_a_further_worker_costs(self):
        few = {BASE: [Served(10.0, 12.0)], OURS: [Served(5.0, 6.0), Served(7.0, 8.0), Trouble("hangs")]}
        more = {BASE: [Served(10.0, 20.0)], OURS: [Trouble("failed: x")]}
        assert figures.cold_table(few, more, ["y"]).rows == [
            [BASE, "10.0", "1.00", "12.0", "2.0"],
            [OURS, "6.0 (hangs 1 of 3)", "0.60", "7.0 (hangs 1 of 3)", "-"],
            ["y", "not installed", "-", "-", "-"],
        ]

    def test_losing_an_idle_worker_is_told_with_what_callers_got(self):
        broken = Served(errors={"BrokenProcessPool": 700})
        rows = figures.idle_table(
            {
                BASE: [broken, broken],
                "silent": [Served(silent=True), Served(1.0, 400.0)],
                OURS: [Served(1.0, 2.0, {"WorkerDied": 1}), Served(3.0, 4.0, {"WorkerDied": 1})],
                "quiet": [Served(1234.0, 2345.0)],
            },
            [],
        ).rows
        assert rows == [
            [BASE, "never", "never", "BrokenProcessPool at every call", "no"],
            ["silent", "1.0 (hangs 1 of 2)", "400 (hangs 1 of 2)", "no answer", "1 of 2"],
            [OURS, "2.0", "3.0", "1 x WorkerDied", "yes"],
            ["quiet", "1,234", "2,345", "nothing", "yes"],
        ]

    def test_losing_a_busy_worker_is_told_with_what_else_was_lost(self):
        after = Served(1.0, 2.0)
        rows = figures.busy_table(
            {
                BASE: [Loss("BrokenProcessPool", 1.5, 5, 5, Served(errors={"BrokenProcessPool": 9}))],
                "silent": [Loss(None, None, 5, 0, Served(silent=True))],
                "again": [Loss("", None, 5, 0, after)],
                OURS: [Loss("WorkerDied", 1.0, 5, 0, after)],
                "z": [Trouble("hangs")],
            },
            [],
        ).rows
        assert rows == [
            [BASE, "BrokenProcessPool", "1.5", "5 of 5", "broken"],
            ["silent", "no answer", "-", "0 of 5", "hangs"],
            ["again", "its result: it ran again", "-", "0 of 5", "serves"],
            [OURS, "WorkerDied", "1.0", "0 of 5", "serves"],
            ["z", "hangs", "-", "-", "-"],
        ]

    def test_cancelling_is_told_as_a_time_or_as_no(self):
        results = {BASE: [Served(first_ms=1.0)], OURS: [Served(1.0, 2.0)]}
        assert figures.cancel_table(results, ["y"]).rows == [[BASE, "no"], [OURS, "2.0"], ["y", "not installed"]]

    def test_orphans_are_counted_workers_and_helpers_apart(self):
        results = {BASE: [Orphans(2, 2, 1, 1, None)], OURS: [Orphans(2, 0, 0, 0, 7.0)]}
        assert figures.orphan_table(results, []).rows == [[BASE, "2 of 2", "1 of 1", "-"], [OURS, "0 of 2", "-", "7.0"]]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("render", [False, True])
def test_the_whole_benchmark_of_the_peers_prints_its_tables(render: bool, capsys: pytest.CaptureFixture[str]):
    bench_peers.main(0.02, [OURS], as_markdown=render, rounds=2, few=1)
    out, err = capsys.readouterr()
    titles = ("small payload, 64 callers", "1 MiB", "cold start", "idle worker", "busy worker", "cancel", "the parent")
    assert all(title in out for title in titles)
    assert "left behind: nothing" in err


def test_every_pool_has_a_name_of_its_own():
    assert all(issubclass(kind, Peer) and kind.label == label for label, kind in ALL.items())
