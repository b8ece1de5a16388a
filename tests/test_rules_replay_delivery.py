"""``pool-monitor rules replay``: who would have been told, and that the service has told the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Monitor
from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
from pool_monitor.alerts.tally import NotificationTally
from tests.helpers.fault_server import FaultServer
from tests.helpers.programs import Done, command, runtime_dir
from tests.helpers.support import eventually
from tests.test_alerts_replay import RULES, Service

__all__ = ["command", "runtime_dir"]
Command = Callable[..., Done]

RECEIVERS = ("ops", "pager", "chat", "boss")
ROUTES = """
route:
  receiver: ops
  group_by: [alertname]
  group_wait: 30s
  group_interval: 1m
  repeat_interval: 5m
  routes:
    - {match: {severity: critical}, receiver: pager, group_wait: 0s, group_interval: 30s, continue: true}
    - {match: {alertname: Either}, receiver: chat, group_wait: 0s, escalate_after: 15s, escalate_to: boss}
    - {match: {alertname: F*}, receiver: ops, group_by: [pool]}
receivers:
"""
# The times of the routes are multiples of the time between two evaluations, which is when the clock of the service is
# moved: so all that is due is due at an evaluation.


def rules_with(url: str) -> str:
    receivers = "".join(
        f"  - {{name: {name}, webhook: {{url: '{url}/{name}'}}, page: {str(name == 'pager').lower()}}}\n"
        for name in RECEIVERS
    )
    return RULES + ROUTES + receivers


class ToldService(Service):
    """Moves its clock only when everything has arrived."""

    async def evaluated(self, monitor: Monitor) -> None:
        accounts = monitor.alerts._evaluator.delivery._accounts

        def quiet() -> bool:
            due = accounts.notifier.next_at
            return not accounts.outbox.debts() and (due is None or due > self.clock.wall_ns() / 1e9)

        await eventually(quiet)


def plain(told: dict[str, Any]) -> dict[str, Any]:
    """A notification without what only a service has: its id and name, and the course of the values."""

    def time(value: Any) -> Any:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value

    alerts = [
        {name: time(value) if name in ("starts_at", "ends_at") else value for name, value in alert.items() if value}
        for alert in told["alerts"]
    ]
    for alert in alerts:
        for course in ("values", "values_s", "sparkline"):
            alert.pop(course, None)
    group = told["group"] if "group" in told else told["group_key"]
    return {name: told[name] for name in ("receiver", "status", "reason", "firing", "resolved")} | {
        "group": group,
        "at": time(told["at"]),
        "alerts": alerts,
    }


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Service, list[dict[str, Any]]]:
    """A service that has told four receivers over HTTP, with a restart, and what has arrived."""

    async def live() -> tuple[Service, list[dict[str, Any]]]:
        async with FaultServer() as server:
            service = ToldService(tmp_path_factory.mktemp("told"), rules_with(server.url("")))
            await service.live(60)
            await service.live(15)
            return service, [one.json["data"] for name in RECEIVERS for one in server.of(f"/{name}")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pool_monitor.alerts.delivery.delivery.WAKE_LEAST_S", 0.001)
        return asyncio.run(live())


def test_a_replay_says_what_the_service_has_told(command: Command, lived: tuple[Service, list[dict[str, Any]]]) -> None:
    service, arrived = lived
    done = command("rules", "replay", str(service.rules), str(service.store), "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    told = [plain(line) for line in lines if "receiver" in line]
    for receiver in RECEIVERS:
        theirs = [plain(one) for one in arrived if one["receiver"] == receiver]
        assert [one for one in told if one["receiver"] == receiver] == theirs
    assert len(told) > 20
    assert {one["reason"] for one in told} >= {"first notification", "all alerts resolved", "escalated"}
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_only_what_was_told_in_the_period_is_printed(
    command: Command, lived: tuple[Service, list[dict[str, Any]]]
) -> None:
    service, _arrived = lived
    replay = ("rules", "replay", str(service.rules), str(service.store), "--json")
    lines = command(*replay).out.splitlines()
    middle = str(json.loads(lines[len(lines) // 2])["at"])
    both = [*command(*replay, "--to", middle).out.splitlines(), *command(*replay, "--from", middle).out.splitlines()]
    assert both == lines


def test_a_table_counts_what_each_receiver_was_told_and_of_which_rules(
    command: Command, lived: tuple[Service, list[dict[str, Any]]]
) -> None:
    service, arrived = lived
    done = command("rules", "replay", str(service.rules), str(service.store))
    _head, rules, receivers, remarks = done.out.split("\n\n")
    told = Counter(one["receiver"] for one in arrived)
    resolved = Counter(one["receiver"] for one in arrived if one["status"] == "resolved")
    for line in receivers.splitlines()[1:]:
        name, messages, firing, ended, _repeated, most = line.split()
        assert (int(messages), int(ended)) == (told[name], resolved[name])
        assert int(messages) == int(firing) + int(ended)
        assert bool(int(messages)) <= int(most) <= int(messages)
    of_rule = Counter(alert["alertname"] for one in arrived for alert in one["alerts"])
    heads, *rows = [re.split(" {2,}", line) for line in rules.splitlines()]
    assert heads[-1] == "messages"
    assert {row[0]: int(row[-1]) for row in rows} == {row[0]: of_rule[row[0]] for row in rows}
    assert "silences and acknowledgements are not recorded" in remarks


def test_a_changed_rule_changes_what_is_told(command: Command, lived: tuple[Service, list[dict[str, Any]]]) -> None:
    service, arrived = lived
    replay = ("rules", "replay", str(service.rules), str(service.store), "--set", "Either.for=1h")
    chat = next(line for line in command(*replay).out.splitlines() if line.startswith("chat "))
    assert re.match(rf"chat +{sum(one['receiver'] == 'chat' for one in arrived)} \| 0 ", chat)
    lines = [json.loads(line) for line in command(*replay, "--json").out.splitlines()]
    assert {line["receiver"] for line in lines if "receiver" in line} == {"ops", "pager"}


def test_without_a_route_nobody_is_told_and_nothing_is_said_of_it(
    command: Command, lived: tuple[Service, list[dict[str, Any]]], tmp_path: Path
) -> None:
    service, _arrived = lived
    bare = tmp_path / "bare.yaml"
    bare.write_text(RULES)
    assert "messages" not in command("rules", "replay", str(bare), str(service.store)).out
    assert '"receiver"' not in command("rules", "replay", str(bare), str(service.store), "--json").out


def test_the_most_in_a_minute_is_that_of_any_sixty_seconds() -> None:
    tally = NotificationTally(0.0, 1000.0)
    for at in (0.0, 50.0, 59.0, 60.0, 100.0, 2000.0):
        tally.note(at, notification("a", "b"))
    found = tally.receivers["r"]
    assert (found.notifications, found.most_in_a_minute, len(found.latest)) == (5, 4, 4)
    assert tally.rules == {"a": 5, "b": 5}


def notification(*alerts: str) -> Notification:
    return Notification(
        id="i", receiver="r", group_key="k", group_labels={}, reason="digest", status="firing", firing=1, resolved=0,
        at=0.0, alerts=tuple(
            ToldAlert(alertname=name, labels={}, fingerprint=name, status="firing", severity="info", starts_at=0.0)
            for name in alerts
        ),
    )  # fmt: skip
