"""A real Alertmanager as a receiver, where one is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.alertmanager import Alertmanager, needs_alertmanager, sink

pytestmark = [needs_alertmanager, pytest.mark.slow, pytest.mark.gate]


def quick(url: str) -> dict[str, object]:
    """A configuration that tells *url* soon."""
    return {
        "route": {"receiver": "sink", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"},
        "receivers": [{"name": "sink", "webhook_configs": [{"url": f"{url}/hook"}]}],
    }


async def test_a_real_alertmanager_tells_its_receiver(tmp_path: Path) -> None:
    async with sink() as told, Alertmanager(tmp_path, quick(told.url)) as manager:
        answer = await manager.post([{"labels": {"alertname": "Lat"}}])
        assert answer.status_code == 200
        assert (await told.wait(1))[0].body["status"] == "firing"
        assert [one["labels"] for one in await manager.alerts()] == [{"alertname": "Lat"}]
