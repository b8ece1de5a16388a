"""``pool-monitor tune`` against a service that answers as a monitor does: what is shown, asked for, and refused."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pool_monitor.cli.tune_options import only
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import AdviceReport, TrialView, TuningReport
from tests.helpers import advice_samples
from tests.helpers.programs import Done, short_dir, until

Command = Callable[..., Done]
pytestmark = pytest.mark.usefixtures("utf8")


class StandIn:
    """A service with the advice and tuning of `advice_samples`. It keeps what it was asked to do."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.report = TuningReport(tuning=advice_samples.tuning(), history=advice_samples.trials())
        self.advice = AdviceReport(recommendations=advice_samples.recommendations())
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/recommendations", lambda _request: _json(self.advice)),
                Route("/v1/tuning", self._tuning),
                Route("/v1/{kind}/{id}/explain", self._explain),
                Route("/v1/{rest:path}", self._act, methods=["POST"]),
            ]
        )

    async def _tuning(self, request: Request) -> Response:
        limit = int(request.query_params["limit"])
        return _json(msgspec.structs.replace(self.report, history=self.report.history[:limit]))

    async def _explain(self, request: Request) -> Response:
        return _json({"text": f"{request.path_params['kind']} {request.path_params['id']}\x1b[2J\nsecond line"})

    async def _act(self, request: Request) -> Response:
        if self.refusal is not None:
            return JSONResponse({"error": self.refusal}, status_code=403)
        self.asked.append((request.path_params["rest"], json.loads(await request.body())))
        return JSONResponse({"id": "a0000009", "ids": ["a0000004"]})


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


@pytest.fixture(scope="module")
def stand_in() -> Iterator[tuple[StandIn, str]]:
    folder = short_dir()
    found, address = StandIn(), str(folder / "articles-1.sock")
    server = uvicorn.Server(uvicorn.Config(found.app(), uds=address, log_config=None, lifespan="off"))
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


def test_the_status_has_the_tuner_the_sizes_what_waits_and_what_is_recommended(
    command: Command, service: StandIn, address: str
) -> None:
    done = command("tune", "status", address)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "tuner recommend, policy balanced; 1 change waits for approval; 1 on trial"
    assert lines[1] == "text: 4 workers, wants 6 (2 to 16, floor 3): 12.1 calls/s need it"
    assert lines[3].split()[:5] == ["waits", "pool", "text", "size", "4"]
    assert "a0000001  text: size 4 > 6: the advisor recommends it: overloaded" in lines
    assert "00000002  error_hotspot of operation chat: look at the error group" in lines
    told = json.loads(command("tune", "status", address, "--json").out)
    assert told["tuning"]["mode"] == "recommend"
    assert {one["pattern"] for one in told["recommendations"]} == {"overloaded", "error_hotspot", "noisy_neighbour"}


def test_a_service_that_has_nothing_to_say_says_so(command: Command, service: StandIn, address: str) -> None:
    service.report, service.advice = TuningReport(tuning=None), AdviceReport(recommendations=())
    assert command("tune", "status", address).out == (
        "the tuner is off\nnothing is recommended, and nothing waits\n"
    )  # fmt: skip
    assert command("tune", "history", address).out == "nothing has been changed yet\n"
    assert command("tune", "mode", "--address", address).out == "off\n"


def test_the_history_is_a_table_the_newest_first(command: Command, service: StandIn, address: str) -> None:
    lines = command("tune", "history", address).out.splitlines()
    assert ["on trial" in lines[1], "rolled back" in lines[2], len(lines)] == [True, True, 4]
    listed = json.loads(command("tune", "history", address, "--json", "--limit", "2").out)
    assert msgspec.convert(listed, tuple[TrialView, ...]) == advice_samples.trials()[:2]


@pytest.mark.parametrize(
    ("args", "path", "body", "said"),
    [
        (["approve", "a"], "tuning/a0000001/approve", {}, "approved: text: size 4 > 6"),
        (["reject", "A0000001", "--reason", "no"], "tuning/a0000001/reject", {"reason": "no"}, "rejected: text: size"),
        (["rollback"], "tuning/rollback", {"everything": False}, "rolled back: a0000004"),
        (["rollback", "--all"], "tuning/rollback", {"everything": True}, "rolled back: everything"),
        (["rollback", "a0000004"], "tuning/a0000004/rollback", {}, "rolled back: text: prefetch 0 > 2"),
        (["freeze", "x", "--duration", "1h"], "tuning/freeze", {"reason": "x", "duration": "1h"}, "frozen for 1h: x"),
        (["freeze", "x"], "tuning/freeze", {"reason": "x", "duration": None}, "frozen until `pool-monitor tune thaw`"),
        (["thaw"], "tuning/thaw", {}, "the tuner goes on"),
        (["mode", "auto"], "tuning/mode", {"mode": "auto"}, "recommend"),
        (
            ["dismiss", "00000002", "--reason", "known"], "recommendations/00000002/dismiss", {"reason": "known"},
            "dismissed: error_hotspot of operation chat",
        ),
        (
            ["propose", "text", "size", "5", "--reason", "a rise"], "tuning/proposals",
            {"pool": "text", "setting": "size", "value": 5.0, "reason": "a rise"}, "a0000009",
        ),
    ],
)  # fmt: skip
def test_what_a_command_asks_for_and_what_it_says(
    command: Command, service: StandIn, address: str, args: list[str], path: str, body: dict[str, Any], said: str
) -> None:
    done = command("tune", *args, "--author", "anna", "--address", address)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(said)
    assert service.asked == [(path, {"author": "anna", **body})]


def test_an_explanation_is_shown_line_by_line_and_harmless(command: Command, service: StandIn, address: str) -> None:
    done = command("tune", "explain", "a0000003", "--address", address)
    assert done.out == "tuning a0000003?[2J\nsecond line\n"
    done = command("tune", "explain", "00000001", "--address", address, "--json")
    assert json.loads(done.out) == {"id": "00000001", "text": "recommendations 00000001\x1b[2J\nsecond line"}


def test_a_refusal_says_why_and_what_does_not_run_is_unreachable(
    command: Command, service: StandIn, address: str
) -> None:
    service.refusal = "set [service] actions = true"
    done = command("tune", "thaw", "--address", address)
    assert (done.code, done.out, done.err.strip()) == (2, "", "Error: set [service] actions = true")
    assert command("tune", "status", "/nowhere/x.sock").code == 3


def test_what_is_asked_wrongly_is_a_usage_error(command: Command, service: StandIn, address: str) -> None:
    for args in (["mode", "on"], ["freeze"], ["freeze", "x", "--duration", "soon"], ["rollback", "a", "--all"],
        ["propose", "text", "size", "nan"], ["propose", "text", "size", "inf"]):  # fmt: skip
        assert command("tune", *args, "--address", address).code == 2
    done = command("tune", "approve", "zzz", "--address", address)
    assert done.code == 2
    assert "no change has an id that begins with 'zzz'; there are:\n  a0000001  text: size 4 > 6" in done.err
    assert service.asked == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_that_is_no_number_is_a_usage_error(
    command: Command, service: StandIn, address: str, value: str
) -> None:
    done = command("tune", "propose", "text", "size", "--address", address, "--", value)
    assert (done.code, service.asked) == (2, [])
    assert "not a number that can be set" in done.err


def test_a_change_that_does_not_wait_any_more_is_told_with_its_state(
    command: Command, service: StandIn, address: str
) -> None:
    done = command("tune", "approve", "a0000002", "--address", address)
    assert done.code == 2
    assert "a0000002 does not wait for approval: text: timeout 30s > 12s: on trial" in done.err


def test_a_decision_of_the_policy_is_explained_and_is_no_trial(
    command: Command, service: StandIn, address: str
) -> None:
    made = advice_samples.trial(9, id="text/size", state="set", origin="policy", reason="12 calls per second need 6")
    service.report = msgspec.structs.replace(service.report, history=(made, *service.report.history))
    done = command("tune", "explain", "text/size", "--address", address)
    assert done.out.endswith("text: size 4 > 6, policy: 12 calls per second need 6\n")
    assert command("tune", "rollback", "text/size", "--address", address).code == 2
    assert "text/size" not in command("tune", "history", address).out


def test_in_auto_everything_that_is_restored_is_not_the_sizes(command: Command, service: StandIn, address: str) -> None:
    service.report = msgspec.structs.replace(service.report, tuning=advice_samples.tuning(mode="auto"))
    said = command("tune", "rollback", "--all", "--address", address).out
    assert said.startswith("rolled back: everything but the sizes")


def test_the_history_names_the_ids_that_explain_takes(command: Command, service: StandIn, address: str) -> None:
    lines = command("tune", "history", address).out.splitlines()
    assert [line.split()[1] for line in lines] == ["ID", "a0000002", "a0000003", "a0000004"]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("overloaded-1", "overloaded-1a"), ("1a", "overloaded-1a"), ("2b", "leak-2b"), ("leak-2b", "leak-2b")],
)
def test_the_beginning_of_an_id_is_enough_or_of_what_stands_behind_its_pattern(prefix: str, found: str) -> None:
    assert only(prefix, {"overloaded-1a": "x", "leak-2b": "y"}, "recommendation") == found


def test_an_id_that_is_not_clear_lists_those_it_may_be() -> None:
    with pytest.raises(ConfigError, match=r"several changes .* 'a':\n  a1  one\n  a2  two"):
        only("a", {"a1": "one", "a2": "two", "b": "three"}, "change")
    with pytest.raises(ConfigError, match="there is none"):
        only("a", {}, "change")
    with pytest.raises(ConfigError, match="begins with ''"):
        only("", {"a1": "one"}, "change")
