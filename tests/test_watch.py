"""A watch from outside: whom it finds gone, frozen or stale, and whom it does not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.errors import ConfigError
from pool_monitor.service import discovery
from pool_monitor.service.client import Address, connected
from pool_monitor.snapshot import SCHEMA_VERSION, AlertingView
from pool_monitor.watch import polling, watch_list
from pool_monitor.watch.polling import Poller, Wanted, poll, read, wanted_of
from pool_monitor.watch.rules import RULES, WatchFiles
from pool_monitor.watch.watch_list import Found, Poll, Seen, SeenMonitor, SeenService, WatchList
from tests.helpers import virtual
from tests.helpers.fault_server import Answer, FaultServer, disconnect, hang, huge_body, moved, ok, status

LIVES, SILENT, REFUSED, LEFT = Poll("answered"), Poll("silent", "s"), Poll("refused", "r"), Poll("left", "l")
ODD = Poll("odd", "o")


def kinds(watch_list: WatchList) -> list[tuple[str, str]]:
    return [(one.service, one.kind.removeprefix("service_")) for one in watch_list.found()]


def judged(*polls: Poll, expected: bool = False, fixed: bool = False) -> list[tuple[str, str]]:
    """What is found of one process after these polls."""
    one = WatchList()
    if expected or fixed:
        one.expect("a")
    one.join("a", "a-1", 0.0, fixed=fixed)
    for at, each in enumerate(polls, 1):
        one.note("a-1", each, float(at))
    return kinds(one)


# -- the judgement ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polls", "found"),
    [
        ([], []),
        ([LIVES], []),
        ([LIVES, SILENT], []),
        ([LIVES, REFUSED], []),
        ([LIVES, SILENT, LIVES, SILENT, LIVES], []),
        ([LIVES, SILENT, SILENT], [("a", "frozen")]),
        ([SILENT, SILENT], [("a", "frozen")]),
        ([LIVES, REFUSED, REFUSED], [("a", "gone")]),
        ([LIVES, SILENT, REFUSED], [("a", "gone")]),
        ([LIVES, REFUSED, SILENT], [("a", "frozen")]),
        ([LIVES, SILENT, SILENT, LIVES], []),
        ([LIVES, REFUSED, REFUSED, LEFT], []),
        ([LIVES, LEFT], []),
        ([LIVES, ODD], []),
        ([LIVES, ODD, ODD], [("a", "stale")]),
        ([LIVES, ODD, ODD, LIVES], []),
        ([LIVES, ODD, ODD, SILENT, SILENT], [("a", "frozen")]),
    ],
)
def test_one_failed_poll_is_none_and_two_are_a_finding(polls: list[Poll], found: list[tuple[str, str]]) -> None:
    assert judged(*polls) == found


def test_who_is_expected_may_not_leave() -> None:
    assert judged(LIVES, LEFT, LEFT, fixed=True) == [("a", "gone")]
    one = WatchList()
    one.expect("a")
    one.note("?a", REFUSED, 1.0)
    assert kinds(one) == []
    one.note("?a", REFUSED, 2.0)
    assert kinds(one) == [("a", "gone")]
    one.join("a", "a-1", 3.0)
    one.note("a-1", LIVES, 3.5)
    assert kinds(one) == []
    one.note("a-1", LEFT, 4.0)
    assert one.missing == ["a"]


def test_one_of_several_processes_may_leave_and_may_not_die() -> None:
    one = WatchList()
    one.expect("a")
    for key in ("a-1", "a-2"):
        one.join("a", key, 0.0)
        one.note(key, LIVES, 1.0)
    one.note("a-1", LEFT, 2.0)
    assert one.missing == []
    one.join("a", "a-3", 2.0)
    one.note("a-3", LIVES, 2.0)
    for at in (3.0, 4.0):
        one.note("a-2", REFUSED, at)
    assert kinds(one) == []  # a-3 has taken its place
    for at in (5.0, 6.0):
        one.note("a-3", REFUSED, at)
    assert kinds(one) == [("a", "gone")]


@pytest.mark.parametrize("first", ["new", "old"])
def test_a_service_that_is_started_anew_is_back_whichever_poll_comes_first(first: str) -> None:
    one = WatchList()
    one.join("a", "a-1", 0.0)
    one.note("a-1", LIVES, 0.0)
    dead = [("a-1", REFUSED, 1.5), ("a-1", REFUSED, 1.6)]
    one.join("a", "a-2", 1.2)
    for key, each, at in [("a-2", LIVES, 1.7), *dead] if first == "new" else [*dead, ("a-2", LIVES, 1.7)]:
        one.note(key, each, at)
    assert kinds(one) == []
    assert one.keys == ["a-2"]


def test_who_was_gone_before_a_restart_of_the_watch_is_gone_until_it_is_back() -> None:
    one = WatchList()
    one.restore("a")
    assert kinds(one) == [("a", "gone")]
    one.join("a", "a-2", 1.0)
    one.note("a-2", LIVES, 1.0)
    assert kinds(one) == []


def test_who_was_gone_before_a_restart_is_not_watched_any_more_if_others_are_named() -> None:
    one = WatchList()
    one.expect("b")
    one.restore("a")
    assert one.services == ["b"]


def test_a_dead_process_that_nobody_asked_for_is_forgotten_after_a_day() -> None:
    one = WatchList()
    one.join("a", "a-1", 0.0)
    one.note("a-1", REFUSED, 1.0)
    one.note("a-1", REFUSED, 86_000.0)
    assert kinds(one) == [("a", "gone")]
    one.note("a-1", REFUSED, 86_402.0)
    assert one.keys == []


def test_the_roster_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_list, "WATCHED_MAX", 3)
    one = WatchList()
    joined = [one.join("a", f"a-{number}", 0.0) for number in range(5)]
    one.restore("b")
    one.expect("c")
    assert joined == [True, True, True, False, False]
    assert (len(one.keys), one.refused) == (3, 2)
    assert one.trouble == "there are more than 3 processes: the others are not watched"
    one.note("a-0", Poll("left"), 1.0)
    assert one.trouble == ""


def seen(seq: int = 1, degraded: dict[str, str] | None = None, **alerts: Any) -> Poll:
    alerting = AlertingView(**{"rules": 1, "interval": 5.0, "evaluated_age": 1.0, **alerts})
    monitor = SeenMonitor(alerting, degraded or {})
    return Poll("answered", "", Seen(SCHEMA_VERSION, seq, float(seq), SeenService(1), monitor))


@pytest.mark.parametrize(
    ("polls", "reason"),
    [
        ([seen(1), seen(2)], None),
        ([seen(1), seen(1), seen(1)], "it answers with the same Snapshot as before"),
        ([seen(1, {"otlp": "x"}), seen(2)], None),
        ([seen(1, {"otlp": "x"}), seen(2, {"otlp": "x"})], "otlp is degraded: x"),
        ([seen(1, evaluated_age=60.0), seen(2, evaluated_age=70.0)], "the rules have not been evaluated for 70 s"),
        ([seen(1, evaluated_age=60.0, paused=9.0), seen(2, evaluated_age=70.0, paused=8.0)], None),
        ([seen(1, parked=2), seen(2, parked=2)], "messages that their receivers refuse: 2"),
        ([seen(1, oldest_debt=400.0), seen(2, oldest_debt=401.0)], "a message has not arrived for 401 s"),
    ],
)
def test_a_service_that_answers_and_cannot_be_relied_on_is_stale(polls: list[Poll], reason: str | None) -> None:
    one = WatchList()
    one.join("a", "a-1", 0.0)
    for at, each in enumerate(polls):
        one.note("a-1", each, float(at))
    assert one.found() == ([] if reason is None else [Found("a", "service_stale", reason)])


# -- polls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "verdict", "words"),
    [
        (b"", "odd", "not a Snapshot"),
        (b"\xff\xfe", "odd", "not a Snapshot"),
        (b"[1]", "odd", "not a Snapshot"),
        (b"[" * 200_000, "odd", "not a Snapshot"),
        (b'{"version": 1}', "odd", "not a Snapshot"),
        (msgspec.json.encode(seen().seen), "answered", ""),
        (msgspec.json.encode(msgspec.structs.replace(seen().seen, version=999)), "odd", "update it"),
        (b'{"version": "\\u001b[2J", "seq": 1}', "odd", "not a Snapshot"),
    ],
)
def test_an_answer_may_say_anything(body: bytes, verdict: str, words: str) -> None:
    found = read(body)
    assert found.verdict == verdict
    assert words in found.reason
    assert found.reason.isprintable()


def test_a_service_that_says_much_takes_little_room_in_the_list() -> None:
    one = WatchList()
    one.join("a", "a-1", 0.0)
    for seq in (1, 2):
        one.note("a-1", seen(seq, {f"\x1b[2J{number}": "x" * 1000 for number in range(1000)}), float(seq))
    (found,) = one.found()
    assert found.reason.isprintable()
    assert len(found.reason) < 10 * 250
    assert sum(len(str(process)) for process in one._processes.values()) < 10_000


@contextlib.contextmanager
def listening(path: Path, backlog: int = 5) -> Iterator[socket.socket]:
    """A socket that takes connections and never answers."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen(backlog)
        yield one


async def verdict(address: Address, limit: float) -> str:
    async with connected(address) as http:
        found = await poll(http, address, limit)
    assert found is not None
    assert found.reason.isprintable()
    return found.verdict


async def test_a_poll_says_what_is_behind_a_socket(runtime_dir: Path, no_leaks: None) -> None:
    def at(name: str) -> Address:
        return Address("x", runtime_dir / name, "http://localhost")

    with listening(runtime_dir / "hangs"):
        assert await verdict(at("hangs"), 0.1) == "silent"
    assert await verdict(at("hangs"), 0.1) == "refused"
    assert await verdict(at("nothing"), 0.1) == "left"
    (runtime_dir / "killed.dead").touch()
    assert await verdict(at("killed.sock"), 0.1) == "refused"
    with listening(runtime_dir / "full", backlog=0) as one:
        queued = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in queued:
            each.setblocking(False)
            each.connect_ex(one.getsockname())
        assert await verdict(at("full"), 0.3) == "silent"
        for each in queued:
            each.close()


async def test_a_poll_of_a_url_tells_a_closed_port_from_a_hanging_one(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "ANSWER_MAX", 1 << 20)
    async with FaultServer() as server:
        address = Address("x", None, server.url("/m"))
        server.script("/m/v1/snapshot", hang(), status(503), huge_body(), moved("/elsewhere"), disconnect())
        verdicts = [await verdict(address, 0.3) for _ in range(5)]
    assert verdicts == ["silent", "odd", "odd", "odd", "silent"]
    assert await verdict(address, 0.5) == "refused"


def encoded(body: bytes, coding: str) -> Answer:
    return status(200, body, content_encoding=coding)


async def test_whatever_a_service_answers_costs_one_poll_and_little_memory(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "ANSWER_MAX", 1 << 20)
    bomb = gzip.compress(gzip.compress(bytes(40 << 20)))
    snapshot = msgspec.json.encode(seen().seen)
    answers = [encoded(bomb, "gzip, gzip"), *map(moved, ("http://xn--/", "http://[", "http://a:99999999/"))]
    async with FaultServer() as server:
        address = Address("x", None, server.url("/m"))
        server.script("/m/v1/snapshot", *answers, status(200, snapshot, set_cookie="canary=1"), ok(snapshot))
        tracemalloc.start()
        try:
            async with connected(address) as http:
                found = [await poll(http, address, 20.0) for _ in range(len(answers) + 2)]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [one and one.verdict for one in found] == ["odd", "odd", "odd", "odd", "answered", "answered"]
    assert peak < 10 << 20
    assert "cookie" not in server.requests[-1].headers, "what a service sets is kept without bound"


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("text", "text"),
        ("my service", "my_service"),
        ("/run/x/text-123.sock", "text"),
        ("/run/x/text-123.2.sock", "text"),
        ("./odd.sock", "odd"),
        ("http://user:canary@h.example:8000/monitor?token=canary", "h.example:8000/monitor"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
    ],
)
def test_a_service_is_named_by_its_address_without_secrets(text: str, service: str, runtime_dir: Path) -> None:
    assert wanted_of(text).service == service


def test_a_service_may_be_asked_for_by_its_pid(runtime_dir: Path) -> None:
    with listening(runtime_dir / "text-77.sock"):
        assert wanted_of("77") == wanted_of("text-77") == Wanted("text", None)


def test_a_socket_that_was_left_behind_shows_for_ten_minutes_that_its_process_died(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runtime_dir / "text-999999999.sock"
    with listening(path):
        pass
    assert [one.path for one in discovery.sockets()] == [path]
    assert discovery.services() == []
    assert discovery.sockets() == []
    assert discovery.was_left_behind(path)
    assert discovery.services() == []
    assert discovery.was_left_behind(path)
    monkeypatch.setattr(discovery, "MARK_S", -1.0)
    assert discovery.services() == []
    assert list(runtime_dir.iterdir()) == []


class Fate:
    """Scripted services, polled on virtual time. An entry: from when on, and what a poll meets."""

    def __init__(self, *changes: tuple[float, str]) -> None:
        self.changes = changes

    def now(self) -> str:
        at = asyncio.get_running_loop().time()
        return [state for since, state in self.changes if since <= at][-1]

    async def poll(self, http: object, address: Address, limit: float, *, explain: bool = False) -> Poll | None:
        state = self.now()
        if state == "frozen":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    while self.now() == "frozen":
                        await asyncio.sleep(0.02)
        return {"lives": LIVES, "frozen": SILENT, "dead": REFUSED}[self.now()]

    def found(self, interval: float, span: float) -> list[tuple[float, list[str]]]:
        """When the findings changed, and what they were then."""
        told: list[tuple[float, list[str]]] = []

        async def live() -> None:
            one = WatchList()
            address = Address("a", None, "http://a")
            now = asyncio.get_running_loop().time

            def changed() -> None:
                found = [each.kind for each in one.found()]
                if found != (told[-1][1] if told else []):
                    told.append((now(), list(found)))

            poller = Poller(one, [Wanted("a", address)], interval, changed)
            running = asyncio.ensure_future(poller.run())
            await asyncio.sleep(span)
            running.cancel()
            await asyncio.wait([running])

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(polling, "poll", self.poll)
            virtual.run(live())
        return told


@settings(max_examples=25)
@given(at=st.floats(10, 30), interval=st.sampled_from([1.0, 4.0, 15.0, 60.0]), fate=st.sampled_from(["frozen", "dead"]))
def test_a_fault_is_found_once_and_within_two_intervals(at: float, interval: float, fate: str) -> None:
    [(when, found)] = Fate((0.0, "lives"), (at, fate)).found(interval, at + 6 * interval)
    assert found == ["service_frozen" if fate == "frozen" else "service_gone"]
    # The evaluation comes after it: an eighth of an interval, at most a second.
    assert when - at <= 2 * interval - min(interval / 8, 1.0) + 0.1


@given(at=st.floats(10, 30), share=st.floats(0.01, 0.49), fate=st.sampled_from(["frozen"]))
def test_a_hiccup_is_no_finding(at: float, share: float, fate: str) -> None:
    assert Fate((0.0, "lives"), (at, fate), (at + share * 4.0, "lives")).found(4.0, at + 20.0) == []


def test_what_was_found_is_over_within_an_interval() -> None:
    [_, (when, found)] = Fate((0.0, "lives"), (10.0, "frozen"), (30.0, "lives")).found(4.0, 60.0)
    assert found == []
    assert when <= 34.0


# -- who is told ------------------------------------------------------------------------------------------------------


def test_a_watch_tells_at_once_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("route: {receiver: log}\nrules: [{alert: Busy, threshold: {metric: pool.busy, above: 3}}]")
    loaded = WatchFiles(str(path)).read(())
    assert loaded.rules == RULES
    assert loaded.routing.route is not None
    assert (loaded.routing.route.group_wait, loaded.routing.route.group_by) == (0.0, ("alertname", "service"))
    path.write_text("route: {receiver: log, group_wait: 7s, group_by: [alertname], routes: [{match: {service: a}}]}")
    loaded = WatchFiles(str(path)).read(())
    assert loaded.routing.route is not None
    assert (loaded.routing.route.group_wait, loaded.routing.route.group_by) == (7.0, ("alertname",))
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [("rules: []", "has no route"), ("route: {receiver: nobody}", "nobody"), ("route: [", "rules.yaml:1")],
)
def test_a_file_by_which_nobody_is_told_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        WatchFiles(str(path)).read(())
