"""``pool-monitor alerts`` against a service that answers as a monitor does, and what its refusals look like."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pool_monitor.alerts.recording import encode_transition
from pool_monitor.snapshot import AlertReport, AlertView, ReceiverView
from pool_monitor.storage.evaluations import PendingEvaluation
from tests.helpers import alert_samples, stores
from tests.helpers.programs import Done, short_dir, until

Command = Callable[..., Done]
pytestmark = pytest.mark.usefixtures("utf8")
FIRST = f"{1:016x}"
KNOWN = "ops: told 2m00s ago; pager: told 1m58s ago; boss: waits for its group for another 24s"


class StandIn:
    """A service with the alerts of `alert_samples`. It keeps what it was asked to do."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.report = AlertReport(
            alerts=alert_samples.alerts(),
            silences=(alert_samples.silence(),),
            transitions=alert_samples.transitions(),
        )
        self.alerting: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/snapshot", self._snapshot),
                Route("/v1/alerts", self._alerts),
                Route("/v1/alerts/{rest:path}", self._act, methods=["POST", "DELETE"]),
            ]
        )

    async def _snapshot(self, _request: Request) -> Response:
        return _json(alert_samples.snapshot(*self.report.alerts, **self.alerting))

    async def _alerts(self, request: Request) -> Response:
        limit = int(request.query_params["limit"])
        return _json(msgspec.structs.replace(self.report, transitions=self.report.transitions[:limit]))

    async def _act(self, request: Request) -> Response:
        if self.refusal is not None:
            return JSONResponse({"error": self.refusal}, status_code=403)
        body = await request.body()
        self.asked.append((request.method, request.path_params["rest"], json.loads(body or b"{}")))
        return JSONResponse({"id": "s-7", **self.answer})


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


@pytest.fixture(scope="module")
def stand_in() -> Iterator[tuple[StandIn, str]]:
    folder = short_dir()
    found, address = StandIn(), str(folder / "articles-1.sock")
    config = uvicorn.Config(found.app(), uds=address, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield found, address
    server.should_exit = True
    thread.join(10.0)
    shutil.rmtree(folder)
    assert not thread.is_alive()


@pytest.fixture
def service(stand_in: tuple[StandIn, str]) -> StandIn:
    """The stand-in, as if it had just begun."""
    vars(stand_in[0]).update(vars(StandIn()))
    return stand_in[0]


@pytest.fixture
def address(stand_in: tuple[StandIn, str]) -> str:
    return stand_in[1]


def test_the_alerts_are_listed_what_fires_first(command: Command, service: StandIn, address: str) -> None:
    done = command("alerts", "list", address)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("23 rules, last evaluated 2s ago, 4 firing, 1 recovering")
    assert lines[2].split()[:4] == ["✖", "critical", "firing", "FailingCalls"]
    assert lines[9:11] == [
        f"{FIRST}  FailingCalls text/chat; escalated 1m00s ago: nobody had acknowledged it; {KNOWN}",
        f"{3:016x}  WorkerMemory text-3; acknowledged by anna 10h00m ago: restart tonight",
    ]
    assert lines[-2:] == [
        "silences:",
        "s-1  alertname=HostMemory, ends in 1h50m, by bert: more memory arrives at noon",
    ]


def test_without_alerts_the_list_says_what_is_evaluated(command: Command, service: StandIn, address: str) -> None:
    service.report = AlertReport(alerts=())
    assert command("alerts", "list", address).out == "23 rules, last evaluated 2s ago, nothing fires\n"


def test_json_has_the_fields_of_the_views(command: Command, service: StandIn, address: str) -> None:
    listed = json.loads(command("alerts", "list", address, "--json", "--state", "firing", "--state", "pending").out)
    assert [row["state"] for row in listed] == ["firing"] * 4 + ["pending"]
    assert msgspec.convert(listed[0], AlertView) == alert_samples.alerts()[3]
    changes = json.loads(command("alerts", "history", address, "--json", "--limit", "2").out)
    assert [(row["from"], row["to"]) for row in changes] == [("recovering", "resolved"), ("firing", "recovering")]


def test_the_receivers_are_listed_with_what_they_are_owed(command: Command, service: StandIn, address: str) -> None:
    service.alerting = alert_samples.troubled()
    done = command("alerts", "receivers", address)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["RECEIVER", "CHANNEL", "STATE", "OWED"]
    assert lines[2].split()[:6] == ["pager", "webhook", "▲", "parked", "2", "1"]
    assert " ▲ pager: refuses 1 message, tried again in 2m10s: HTTP 404 not found" in lines
    listed = json.loads(command("alerts", "receivers", address, "--json").out)
    assert msgspec.convert(listed, tuple[ReceiverView, ...]) == service.alerting["receivers"]


def test_a_receiver_is_tested_and_what_came_of_it_is_said(command: Command, service: StandIn, address: str) -> None:
    service.answer = {"sent": True}
    done = command("alerts", "test", "ops", "--address", address)
    assert (done.code, done.out) == (0, "ops has got the test\n")
    service.answer = {"sent": False, "reason": "HTTP 404\x1b[2J"}
    done = command("alerts", "test", "pager", "--address", address)
    assert (done.code, done.out, done.err.strip()) == (1, "", "pager has not got the test: HTTP 404?[2J")
    assert [(method, path) for method, path, _ in service.asked] == [
        ("POST", "receivers/ops/test"),
        ("POST", "receivers/pager/test"),
    ]


def test_without_receivers_it_is_said_that_nobody_is_told(command: Command, service: StandIn, address: str) -> None:
    service.alerting = {"receivers": ()}
    assert command("alerts", "receivers", address).out == "nobody is told of alerts: no file of rules has receivers\n"
    assert command("alerts", "receivers", address, "--json").out == "[]\n"


def test_the_history_is_a_table_the_newest_first(command: Command, service: StandIn, address: str) -> None:
    lines = command("alerts", "history", address).out.splitlines()
    assert ["recovering > resolved" in lines[1], "inactive > pending" in lines[5], len(lines)] == [True, True, 6]
    service.report = AlertReport(alerts=())
    assert command("alerts", "history", address).out == "no alert has changed yet\n"


@pytest.mark.parametrize(
    ("args", "matchers"),
    [
        (["alertname=FailingCalls", "pool=te*t"], {"alertname": "FailingCalls", "pool": "te*t"}),
        (["pool=te*", "--glob"], {"pool": {"glob": "te*"}}),
        (["note=a=b"], {"note": "a=b"}),
        (["operation="], {"operation": ""}),
    ],
)
def test_a_silence_has_its_matchers_duration_and_author(
    command: Command, service: StandIn, address: str, args: list[str], matchers: dict[str, Any]
) -> None:
    options = ["--duration", "2h", "--comment", "deploy", "--author", "me", "--address", address]
    assert command("alerts", "silence", *args, *options).out == "s-7\n"
    ((method, path, body),) = service.asked
    assert (method, path) == ("POST", "silences")
    assert body | {"starts_in": None} == {
        "matchers": matchers, "duration": "2h", "comment": "deploy", "author": "me", "starts_in": None
    }  # fmt: skip


@pytest.mark.parametrize(("name", "words"), [("s-7", "it matches 1 alert now"), ("s-8", "it matches no alert now")])
def test_a_new_silence_says_how_many_alerts_it_matches(
    command: Command, service: StandIn, address: str, name: str, words: str
) -> None:
    alert = alert_samples.alert("FailingCalls", silenced=True, silences=(name,))
    service.report = AlertReport(alerts=(alert, alert_samples.alert("SlowCalls", 2)))
    done = command("alerts", "silence", "alertname=FailingCalls", "--duration", "2h", "--address", address)
    assert (done.code, done.out) == (0, "s-7\n")
    assert words in done.err


def test_the_author_is_the_user(command: Command, service: StandIn, address: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("LOGNAME", "anna")
    command("alerts", "ack", "0000000000000001", "--address", address)
    assert service.asked == [("POST", f"{FIRST}/ack", {"author": "anna", "comment": "", "duration": None})]


def test_a_silence_is_ended_by_its_id(command: Command, service: StandIn, address: str) -> None:
    assert command("alerts", "unsilence", "a/b", "--address", address).code == 0
    assert [asked[:2] for asked in service.asked] == [("DELETE", "silences/a/b")]


def test_an_alert_is_acknowledged_by_the_first_digits_of_its_fingerprint(
    command: Command, service: StandIn, address: str
) -> None:
    other = alert_samples.alert("Other", 0x2A << 56)
    service.report = msgspec.structs.replace(service.report, alerts=(*service.report.alerts, other))
    done = command("alerts", "ack", "2A", "--address", address, "--duration", "1h")
    assert done.out == "acknowledged: Other text/chat\n"
    undone = command("alerts", "ack", "2a", "--undo", "--address", address)
    assert undone.out == "not acknowledged any more: Other text/chat\n"
    assert [(method, path) for method, path, _ in service.asked] == [
        ("POST", f"{other.fingerprint}/ack"),
        ("DELETE", f"{other.fingerprint}/ack"),
    ]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["silence", "pool", "--duration", "2h"], 2, "'pool': needs LABEL=VALUE, such as"),
        (["silence", "=x", "--duration", "2h"], 2, "'=x': needs LABEL=VALUE"),
        (["silence", "a=1", "a=2", "--duration", "2h"], 2, "a is given twice"),
        (["silence", "a=1", "--duration", "2"], 2, "--duration"),
        (["silence", "a=1"], 2, "--duration"),
        (["silence", "--duration", "2h"], 2, "LABEL=VALUE"),
        (["ack", "77"], 2, "no alert has a fingerprint that begins with '77'; see pool-monitor alerts list"),
        (["ack", ""], 2, "no alert has a fingerprint"),
        (["ack", "000"], 2, "several alerts have a fingerprint that begins with '000':"),
        (["history", "--limit", "0"], 2, "--limit"),
        (["list", "--state", "odd"], 2, "--state"),
        (["sleep"], 2, "No such command 'sleep'"),
    ],
)
def test_wrong_use_is_refused_in_words(
    command: Command, service: StandIn, address: str, args: list[str], code: int, words: str
) -> None:
    done = command("alerts", *args, *(["--address", address] if args[0] in ("ack", "silence") else []))
    assert done.code == code
    assert words in done.err
    assert service.asked == []


def test_what_the_service_refuses_is_told_in_its_words(command: Command, service: StandIn, address: str) -> None:
    service.refusal = "actions are off: set [service] actions = true"
    for args in (["ack", FIRST], ["unsilence", "s-1"], ["silence", "a=b", "--duration", "1h"]):
        done = command("alerts", *args, "--address", address)
        assert (done.code, done.err) == (2, f"Error: {service.refusal}\n")


def test_without_a_service_the_exit_code_says_so(command: Command) -> None:
    assert command("alerts", "list").code == 3


def test_foreign_text_is_harmless(command: Command, service: StandIn, address: str) -> None:
    bad = alert_samples.alert("\x1b[2J", labels={"pool": "\x07"}, summary="\x1b]0;t\x07")
    silence = alert_samples.silence("\x1b[1m", comment="\x07", matchers={"\x07": "\x07"})
    service.report = AlertReport(alerts=(bad,), silences=(silence,))
    done = command("alerts", "list", address)
    assert not set("\x1b\x07") & set(done.out)


def test_a_history_on_disk_has_the_changes_too(command: Command, tmp_path: Path) -> None:
    path, changes = tmp_path / "text.db", alert_samples.transitions()[::-1]
    bodies = (*map(encode_transition, changes), b"damaged")
    with stores.writing(path) as made:
        stores.write(made, range(10))
        made.write([PendingEvaluation(float(stores.T0), b"x", bodies)], stores.T0 + 11)
    done = command("alerts", "history", str(path), "--json", "--limit", "3")
    assert [row["to"] for row in json.loads(done.out)] == ["resolved", "recovering"]
    assert done.err == f"{path}: 1 change cannot be read, and left out\n"
    reported = command("report", str(path), "--format", "json")
    assert "1 change of alerts cannot be read" in json.loads(reported.out)["doubts"]
