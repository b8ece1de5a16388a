"""The channels of this machine: the file and the log. And the text that people read, and apprise."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.channels import apprise as apprise_module
from pool_monitor.alerts.channels import file as file_module
from pool_monitor.alerts.channels import threaded
from pool_monitor.alerts.channels.apprise import AppriseSender
from pool_monitor.alerts.channels.file import FileSender
from pool_monitor.alerts.channels.log import LISTED, LogSender
from pool_monitor.alerts.channels.sparkline import sparkline
from pool_monitor.alerts.channels.text import SUBJECT_MAX, lines, subject
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.alerts.routing import AppriseChannel, FileChannel, Secret
from tests.helpers.fault_server import FaultServer, hang, status
from tests.helpers.notifications import ended, notification, told

# -- the text ---------------------------------------------------------------------------------------------------------


def test_the_text_says_what_is_wrong_since_when_and_how_it_came_about():
    assert list(lines(notification(told(), ended(2), about="Nobody acknowledged it at ops."))) == [
        "1 firing and 1 resolved: first notification.",
        "Nobody acknowledged it at ops.",
        "Service: shop",
        "Group: alertname=FailingCalls",
        "",
        "FIRING  FailingCalls critical: 12% of summarize1 fail",
        "  value 12%, bound 5%",
        "  ▁▁·▂▄█ between 1% and 12% in 1h",
        "  since 2026-09-21 14:09:20 UTC",
        "  pool=text operation=summarize1",
        "  runbook: https://runbooks.example/failing-calls",
        "",
        "RESOLVED  FailingCalls critical: 12% of summarize2 fail",
        "  value 12%, bound 5%",
        "  ▁▁·▂▄█ between 1% and 12% in 1h",
        "  fired 2026-09-21 14:09:20 UTC, resolved 2026-09-21 14:13:20 UTC, after 4m",
        "  pool=text operation=summarize2",
        "  runbook: https://runbooks.example/failing-calls",
    ]


def test_the_text_says_why_it_ended_and_that_it_is_late():
    text = "\n".join(lines(notification(ended(reason="rule_removed", delayed=True))))
    assert "FailingCalls critical (rule removed): " in text
    assert "delayed" in text


def test_what_is_not_listed_is_counted():
    text = "\n".join(lines(notification(told(), firing=140, resolved=3)))
    assert "142 more alerts are not listed." in text
    assert subject(notification(told(), firing=140, resolved=3)).endswith("(and 142 more) - shop")


def test_a_notification_of_counts_alone_has_a_subject():
    assert subject(notification(alerts=(), firing=7)) == "[FIRING 7] alertname=FailingCalls - shop"


unknown_texts = st.text(max_size=400)


@given(unknown_texts, unknown_texts, unknown_texts)
def test_whatever_a_text_has_a_subject_is_one_short_line(alertname: str, summary: str, service: str):
    one = notification(told(alertname=alertname, summary=summary), service=service)
    for line in (subject(one), *lines(one)):
        assert line.isprintable()
    assert len(subject(one)) <= SUBJECT_MAX


@given(st.lists(st.none() | st.floats(), max_size=60), st.integers(0, 30))
def test_a_sparkline_is_at_most_as_wide_as_asked(values: list[float | None], width: int):
    drawn = sparkline(values, width)
    assert len(drawn) <= width
    assert set(drawn) <= set("▁▂▃▄▅▆▇█·")


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([None, None], ""),
        ([1, 1, 1], "▁▁▁"),
        ([0, None, 7], "▁·█"),
        (list(range(8)), "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], "▁▁██"),
        ([float("inf"), 1.0, 2.0], "·▁█"),
        ([-1e308, 1e308], "▁█"),
    ],
)
def test_a_sparkline_is_scaled_from_the_lowest_to_the_highest(values: list[float | None], drawn: str):
    assert sparkline(values) == drawn


def test_more_values_than_characters_are_averaged():
    assert sparkline([0, 0, None, 3, 7, 7], 3) == "▁▄█"


# -- the file ---------------------------------------------------------------------------------------------------------


async def appended(path: Path, count: int = 1) -> list[Outcome]:
    sender = FileSender(FileChannel(path=str(path)))
    try:
        return [await sender.send(notification(id=f"msg_{number}")) for number in range(count)]
    finally:
        await sender.aclose()


def ids(path: Path) -> list[str]:
    return [json.loads(line)["data"]["id"] for line in path.read_text().splitlines()]


async def test_each_notification_is_an_object_on_a_line_of_a_private_file(tmp_path: Path):
    path = tmp_path / "told.jsonl"
    assert [one.result for one in await appended(path, 2)] == ["sent", "sent"]
    assert ids(path) == ["msg_0", "msg_1"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_grows_too_long_is_rotated_and_the_oldest_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "told.jsonl"
    await appended(path)
    monkeypatch.setattr(file_module, "MAX_BYTES", path.stat().st_size * 2)
    monkeypatch.setattr(file_module, "KEEP", 2)
    path.unlink()
    await appended(path, 7)
    assert {one.name: ids(one) for one in tmp_path.iterdir()} == {
        "told.jsonl": ["msg_6"],
        "told.jsonl.1": ["msg_4", "msg_5"],
        "told.jsonl.2": ["msg_2", "msg_3"],
    }


async def test_a_file_that_another_program_rotated_is_begun_again(tmp_path: Path):
    path = tmp_path / "told.jsonl"
    sender = FileSender(FileChannel(path=str(path)))
    await sender.send(notification(id="msg_a"))
    path.rename(tmp_path / "old")
    await sender.send(notification(id="msg_b"))
    await sender.aclose()
    assert (ids(tmp_path / "old"), ids(path)) == (["msg_a"], ["msg_b"])


async def test_a_line_that_a_kill_has_torn_is_not_glued_to_the_next(tmp_path: Path):
    path = tmp_path / "told.jsonl"
    await appended(path)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    await appended(path)
    assert ids(path) == ["msg_0", "msg_0"]


async def test_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_file: int, _body: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        outcomes = await appended(tmp_path / "told.jsonl")
    assert outcomes[0].result == "retry"
    assert "No space left" in outcomes[0].reason
    assert [one.result for one in await appended(tmp_path / "told.jsonl")] == ["sent"]


async def test_a_folder_that_is_missing_is_told(tmp_path: Path):
    outcome = (await appended(tmp_path / "none" / "told.jsonl"))[0]
    assert outcome.result == "retry"
    assert outcome.reason == "cannot be written: No such file or directory"


async def test_a_disk_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threaded, "SEND_S", 0.05)
    release = threading.Event()
    sender = FileSender(FileChannel(path=str(tmp_path / "told.jsonl")))
    monkeypatch.setattr(sender._file, "write", lambda _body: release.wait(30))
    first = await sender.send(notification())
    second = await sender.send(notification())
    assert (first.result, first.unsure) == ("retry", True)
    assert (second.result, second.unsure) == ("retry", False)
    release.set()
    await sender.aclose()


# -- the log ----------------------------------------------------------------------------------------------------------


async def test_the_log_has_a_line_for_each_alert_and_counts_the_rest(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    alerts = [told(number) for number in range(LISTED + 5)]
    assert (await LogSender().send(notification(*alerts, ended()))).result == "sent"
    assert len(caplog.records) == LISTED + 1
    first, last = caplog.records[0], caplog.records[-1]
    assert first.levelno == logging.WARNING
    for part in ("notification: alert firing", "12% of summarize0 fail", "value 12%, bound 5%", "▁▁·▂▄█", "since 2026"):
        assert part in first.getMessage()
    assert "firing=5 resolved=1" in last.getMessage()


async def test_what_has_ended_is_information(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    await LogSender().send(notification(ended()))
    assert [record.levelno for record in caplog.records] == [logging.INFO]


# -- apprise ----------------------------------------------------------------------------------------------------------


by_it = pytest.mark.filterwarnings("ignore:.*imghdr:DeprecationWarning")  # one of its services imports it


def secret_of(server: FaultServer, path: str = "/canary-token") -> Secret:
    return Secret(f"json{server.url(path)[4:]}")


async def by_apprise(url: Secret) -> Outcome:
    sender = AppriseSender(AppriseChannel(url=url))
    try:
        return await sender.send(notification())
    finally:
        await sender.aclose()


@by_it
async def test_apprise_sends_the_text(caplog: pytest.LogCaptureFixture):
    pytest.importorskip("apprise")
    caplog.set_level(logging.DEBUG)
    async with FaultServer() as server:
        url = secret_of(server)
        assert (await by_apprise(url)).result == "sent"
        body = server.of("/canary-token")[0].json
    assert body["title"] == subject(notification())
    assert "▁▁·▂▄█ between 1% and 12% in 1h" in body["message"]
    assert body["type"] == "failure"
    assert "canary" not in caplog.text + AppriseSender(AppriseChannel(url=url)).where


@by_it
async def test_what_apprise_could_not_send_is_tried_again(caplog: pytest.LogCaptureFixture):
    pytest.importorskip("apprise")
    caplog.set_level(logging.DEBUG)
    async with FaultServer() as server:
        server.script("/canary-token", status(500, b"canary"))
        outcome = await by_apprise(secret_of(server))
        assert len(server.of("/canary-token")) == 1
    assert outcome.result == "retry"
    assert "canary" not in caplog.text + outcome.reason


@by_it
async def test_a_service_that_hangs_ends_within_the_limit_and_keeps_no_program_from_ending(
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("apprise")
    monkeypatch.setattr(threaded, "SEND_S", 0.3)
    before = threading.enumerate()
    async with FaultServer() as server:
        server.script("/canary-token", hang())
        sender = AppriseSender(AppriseChannel(url=secret_of(server)))
        outcome = await sender.send(notification())
        assert (outcome.result, outcome.unsure) == ("retry", True)
        assert [one for one in threading.enumerate() if one not in before and not one.daemon] == []
    await sender.aclose()


@by_it
@pytest.mark.parametrize("url", ["nothing://x/y", "json://", "x"])
async def test_a_url_that_apprise_does_not_know_is_refused(url: str, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("apprise")
    outcome = await by_apprise(Secret(url))
    assert outcome == Outcome("refused", "its URL is none that apprise knows")
    assert not caplog.records


@pytest.mark.parametrize(
    ("url", "shown"),
    [("tgram://canary/1", "tgram:// ("), ("canary", "a URL ("), ("/canary://x", "a URL ("), ("canary x://", "a URL (")],
)
def test_of_a_url_its_service_is_shown_and_nothing_where_it_names_none(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NOTIFY_URL", url)
    where = AppriseSender(AppriseChannel(url=Secret(variable="NOTIFY_URL"))).where
    assert where.startswith(shown)
    assert "canary" not in where


async def test_without_the_extra_it_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert await by_apprise(Secret("json://x")) == Outcome("refused", apprise_module.NEEDS_EXTRA)


async def test_a_missing_variable_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOTIFY_URL", raising=False)
    outcome = await asyncio.wait_for(by_apprise(Secret(variable="NOTIFY_URL")), 10)
    assert outcome == Outcome("refused", "the environment variable NOTIFY_URL is not set")
