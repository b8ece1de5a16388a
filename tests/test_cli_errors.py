"""``pool-monitor errors``: tables and JSON of a history, options that are refused, and text that could do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.metrics.error_groups import GroupCount
from pool_monitor.snapshot import ErrorGroup, ErrorReport, ErrorSample
from pool_monitor.view import error_report
from tests.helpers import stores
from tests.helpers.programs import Done

Command = Callable[..., Done]
pytestmark = pytest.mark.usefixtures("utf8")
T0 = float(stores.T0)


def group(number: int, count: int, **fields: object) -> ErrorGroup:
    sample = ErrorSample(
        at=T0,
        message="order 7 has no price",
        operation="order",
        worker="text-0",
        traceback='File "job.py"\nE',
    )
    given = {
        "fingerprint": f"{number:016x}", "type": "ValueError", "message": "order <n> has no price", "count": count,
        "total": count, "first_seen": T0, "last_seen": T0 + 5, "operations": ("order",), "workers": ("text-0",),
        "frames": ("job.py:check",), "sample": sample,
    }  # fmt: skip
    return ErrorGroup(**{**given, **fields})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "text.db"
    with stores.writing(path) as made:
        for second in range(20):
            [pending] = stores.pending_blocks([second])
            found = [GroupCount("text", group(1, 2))]
            found += [GroupCount("text", group(255, 1, type="KeyError", message="<quoted>"))] if second == 16 else []
            made.write([pending._replace(errors=tuple(found))], stores.T0 + second + 1)
    return path


def test_a_history_is_shown_as_a_table(command: Command, store: Path) -> None:
    done = command("errors", str(store))
    assert (done.code, done.err) == (0, "")
    head, _, columns, first, second = done.out.splitlines()
    assert head.strip() == "POOL text: 41 failures in 2 groups, 20s"
    assert columns.split() == ["count", "rate/s", "last", "first", "error"]
    assert first.split()[:2] == ["40", "2.00"]
    assert first.endswith("ValueError: order <n> has no price")
    assert second.endswith("KeyError: <quoted>")


def test_one_group_is_shown_in_full_by_the_first_digits_of_its_fingerprint(command: Command, store: Path) -> None:
    done = command("errors", str(store), "--group", "00000000000000ff")
    assert "1 failure KeyError: <quoted>" in done.out
    assert "ValueError: order" not in done.out
    for part in ("operations order", "workers text-0", "in job.py:check", "order 7 has no price", 'File "job.py"'):
        assert part in done.out


def test_json_has_everything_and_a_period_is_rounded_outwards(command: Command, store: Path) -> None:
    report = json.loads(command("errors", str(store), "--json", "--since", "4s", "--pool", "text").out)
    assert (report["start"], report["end"]) == (T0 + 16, T0 + 20)
    assert [found["count"] for found in report["pools"]["text"]] == [8, 1]
    assert report["pools"]["text"][0]["sample"]["operation"] == "order"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--pool", "no"], 2, "has no pool 'no'; it has text"),
        (["--group", "77"], 2, "there is no such group in this period"),
        (["--window", "5m", "--since", "1h"], 2, "give only one of them"),
        (["--start", "2026-01-02", "--end", "2026-01-01"], 2, "--end must be after --start"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    command: Command, store: Path, args: list[str], code: int, words: str
) -> None:
    done = command("errors", str(store), *args)
    assert done.code == code
    assert words in done.err


def test_a_service_has_only_windows_and_a_missing_one_is_said(command: Command) -> None:
    assert "a running service has a --window" in command("errors", "--since", "1h").err
    assert command("errors").code == 3


def test_a_period_without_failures_says_so(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "calm.db"
    with stores.writing(path) as made:
        stores.write(made, range(5))
    assert command("errors", str(path)).out.strip() == "nothing failed in 5s"


@pytest.mark.parametrize("width", [20, 40, 80, 300])
def test_foreign_text_neither_controls_the_terminal_nor_breaks_the_page(width: int) -> None:
    evil = "\x1b[2J\x07\u202e" + "日本" * 200 + "\n\t" + "x" * 500
    sample = ErrorSample(at=1e300, message=evil, operation=evil, worker=evil, traceback=evil, stack=evil)
    odd = group(1, 3, type=evil, message=evil, operations=(evil,), workers=(evil,), frames=(evil,), sample=sample)
    report = ErrorReport(start=0.0, end=1e300, covered_seconds=5.0, pools={evil: (odd,), "calm": ()})
    for full in (False, True):
        text = error_report.text(report, width=width, full=full)
        assert all(char.isprintable() for line in text.splitlines() for char in line)
