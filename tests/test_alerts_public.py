"""Alerts as a program outside this repository meets them: public names, a real service, and receivers that are real."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Monitor, Pool, Rule, telemetry
from tests.helpers import fault_server as fs
from tests.helpers.fault_server import FaultServer
from tests.helpers.support import eventually

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()
SIZED = Rule(
    alert="Sized",
    threshold={"metric": "pool.size", "above": 0},
    labels={"team": "search"},
    annotations={"summary": "{pool} has {value}", "runbook": "https://runbooks.example/sized"},
)
TIMES = "group_by: [alertname], group_wait: 0s, group_interval: 100ms"


@asynccontextmanager
async def service(folder: Path, rules: str) -> AsyncIterator[Monitor]:
    """A service with one pool and these *rules*."""
    (folder / "rules.yaml").write_text(rules)
    (folder / "service.toml").write_text(
        f'[state]\npath = "{folder}/state.db"\n[service]\nsocket = false\n'
        '[alerts]\nrules = ["rules.yaml"]\ndefault_rules = false\ninterval = 0.2\n'
    )
    async with (
        Pool("tests.targets.plain:Kept", name="text", size=1) as pool,
        Monitor(pool, config=str(folder / "service.toml")) as monitor,
    ):
        yield monitor


def hook(server: FaultServer, name: str, more: str = "", of_webhook: str = "") -> str:
    return f'  - {{name: {name}, webhook: {{url: "{server.url(f"/{name}")}"{of_webhook}}}{more}}}\n'


def bodies(server: FaultServer, path: str) -> list[Any]:
    return [json.loads(body) for body in server.bodies(path)]


@pytest.mark.usefixtures("no_leaks")
async def test_every_kind_of_receiver_hears_the_beginning_and_under_a_silence_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", KEY)
    monkeypatch.setenv("ROUTING_KEY", "r" * 32)
    monkeypatch.delenv("NO_SUCH_HOOK", raising=False)
    told = ["native", "alertmanager", "slack", "pagerduty", "audit", "running", "moved", "unset"]
    async with FaultServer() as server:
        server.script("/pagerduty", fs.status(202))
        server.script("/moved", fs.moved(server.url("/elsewhere"), 307))
        rules = (
            f"version: 1\nrules: []\nroute: {{receiver: native, {TIMES}, "
            f"routes: [{', '.join(f'{{receiver: {name}, continue: true}}' for name in told)}]}}\nreceivers:\n"
            + hook(server, "native", of_webhook=", secret_env: HOOK_SECRET")
            + hook(server, "alertmanager", of_webhook=", format: alertmanager")
            + hook(server, "slack", of_webhook=", format: slack")
            + hook(server, "pagerduty", of_webhook=", format: pagerduty, secret_env: ROUTING_KEY")
            + f'  - {{name: audit, file: "{tmp_path}/audit.jsonl"}}\n'
            + f'  - {{name: running, alertmanager: {{url: "{server.url("")}"}}}}\n'
            + hook(server, "moved", more=", fallback: [spare]")
            + "  - {name: unset, webhook: {url_env: NO_SUCH_HOOK}, fallback: [other]}\n"
            + hook(server, "spare")
            + hook(server, "other")
        )
        hooks = ["native", "alertmanager", "slack", "pagerduty", "spare", "other"]
        with telemetry.capture(("alert", "notify")) as events:
            async with service(tmp_path, rules) as monitor:
                monitor.alerts.add(SIZED)
                for name in hooks:
                    await server.received(f"/{name}")
                await server.received("/api/v2/alerts")
                receivers = {one.name: one for one in monitor.snapshot().monitor.alerts.receivers}
                monitor.alerts.silence({"alertname": "Sized"}, duration="2h", comment="deploy", author="me")
                monitor.alerts.remove("Sized")
                for name in hooks:
                    await server.received(f"/{name}", 2)
                await server.received("/api/v2/alerts", 2)
                await eventually(lambda: (tmp_path / "audit.jsonl").read_text().count("\n") == 2)
        native, v4 = bodies(server, "/native"), bodies(server, "/alertmanager")
        assert [one["type"] for one in native] == ["alert.firing", "alert.resolved"]
        assert [one["type"] for one in bodies(server, "/spare")] == ["alert.firing", "alert.resolved"]
        assert [one["type"] for one in bodies(server, "/other")] == ["alert.firing", "alert.resolved"]
        assert [one["status"] for one in v4] == ["firing", "resolved"]
        assert v4[0]["groupKey"] == '{}/{}:{alertname="Sized"}'
        assert v4[0]["alerts"][0]["annotations"]["summary"] == "text has 1"
        incidents = bodies(server, "/pagerduty")
        assert [one["event_action"] for one in incidents] == ["trigger", "resolve"]
        assert len({one["dedup_key"] for one in incidents}) == 1
        [[begun], [over]] = bodies(server, "/api/v2/alerts")
        assert begun["labels"] == over["labels"]
        assert begun["endsAt"] > over["endsAt"]
        firsts = [json.dumps(bodies(server, f"/{name}")[0], ensure_ascii=False) for name in hooks]
        assert all("▁ 1 in " in text for text in firsts)
        assert not server.of("/elsewhere")
        assert (receivers["moved"].parked, receivers["unset"].parked, receivers["native"].parked) == (1, 1, 0)
        assert "NO_SUCH_HOOK" in (receivers["unset"].last_error or "")
        results = {(event.metadata["receiver"], event.metadata["result"]) for event in events}
        assert {("native", "sent"), ("moved", "refused"), ("unset", "refused"), ("audit", "sent")} <= results
        webhooks = pytest.importorskip("standardwebhooks.webhooks")
        for request in server.of("/native"):
            assert webhooks.Webhook(KEY).verify(request.body.decode(), request.headers)
