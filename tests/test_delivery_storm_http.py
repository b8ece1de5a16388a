"""A storm of alerts in a monitor, with real receivers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.clock import ManualClock
from tests.helpers.fault_server import FaultServer
from tests.helpers.support import eventually
from tests.helpers.told_life import ToldReader, manager_of

ALERTS, PAGES = 10_000, 20
RULES = """
rules:
  - {{alert: Slow, threshold: {{metric: pool.waiting, above: 3}}, limit: 10000, match: {{pool: "p*"}}}}
  - alert: Down
    threshold: {{metric: pool.waiting, levels: {{critical: 5}}}}
    match: {{pool: "q*"}}
route:
  receiver: ops
  group_by: [alertname, pool]
  group_wait: 0s
  group_interval: 1s
  routes: [{{match: {{severity: critical}}, receiver: pager}}]
receivers:
  - {{name: ops, webhook: {{url: "{ops}"}}}}
  - {{name: pager, webhook: {{url: "{pager}"}}, page: true}}
"""


def messages(server: FaultServer, path: str) -> list[dict[str, Any]]:
    return [one.json["data"] for one in server.of(path)]


@pytest.mark.slow
@pytest.mark.gate
async def test_ten_thousand_alerts_reach_real_receivers_as_two_digests_and_the_true_state(tmp_path: Path) -> None:
    clock = ManualClock()
    reader = ToldReader(clock)
    rules = tmp_path / "rules.yaml"
    async with FaultServer() as server:
        rules.write_text(RULES.format(ops=server.url("/ops"), pager=server.url("/pager")))
        manager = manager_of(str(tmp_path / "state.db"), rules, reader)
        await manager.open()
        try:
            began = time.process_time()
            reader.values = {f"p{number}": 6.0 for number in range(ALERTS)}
            reader.values |= {f"q{number}": 6.0 for number in range(PAGES)}
            await manager.evaluate()
            print(manager._evaluator.longest_hold)
            await server.received("/ops")
            await server.received("/pager", 12)
            assert len(server.of("/pager")) == 12, "the others wait for the bucket"
            [digest] = messages(server, "/ops")
            assert (digest["reason"], digest["firing"], digest["groups"]) == ("digest", ALERTS, ALERTS)
            assert len(server.of("/ops")[0].body) < 2**17
            reader.values = dict.fromkeys(reader.values, 0.0)
            clock.advance(5.0)
            await manager.evaluate()
            for _ in range(12):
                clock.advance(15.0)
                await manager.evaluate()
                await eventually(lambda: manager.view().owed == 0, timeout=20)
            told = messages(server, "/ops")
            assert len(told) <= 3
            assert sum(one["resolved"] for one in told) == ALERTS
            assert told[-1]["status"] == "resolved"
            pages = messages(server, "/pager")
            pools = {
                alert["labels"]["pool"] for one in pages for alert in one["alerts"] if alert["status"] == "resolved"
            }
            assert len(pools) == PAGES
            assert all(len({alert["labels"]["pool"] for alert in one["alerts"]}) == 1 for one in pages)
            print(f"{time.process_time() - began:.1f} s of processor time", manager._evaluator.longest_hold)
        finally:
            await manager.close()
