"""A real Alertmanager: finds the program, starts it, and talks to it. A `FaultServer` can be its receiver.

The program comes from PATH. Debian's has its templates in a fixed folder, which is missing where the package was only
unpacked (``dpkg -x``, as .ci/run does it). Then a copy of the program is used that looks for them below its working
directory: the path in it is replaced by a relative one of the same length, so neither root nor a mount is needed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

START_S = 20.0
_TEMPLATES = "/usr/share/prometheus/alertmanager"
_Json = dict[str, Any]


@cache
def program() -> Path | None:
    """Return the path of the program; None: it is not installed."""
    found = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    return None if found is None else Path(found).resolve()


needs_alertmanager = pytest.mark.skipif(program() is None, reason="no alertmanager in PATH")


class Alertmanager:
    """A real Alertmanager with its data in *folder*. *config* is its configuration (JSON is YAML).

    Used as an async context manager: it runs inside. `stop` and `start` restart it with the same address and data.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._config = folder / "alertmanager.yml"
        self.configure(config)
        self._process: asyncio.subprocess.Process | None = None

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write *config*, for the next start."""
        self._config.write_text(json.dumps(config))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        binary, root = _runnable(self.folder)
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(binary),
                f"--config.file={self._config}",
                f"--storage.path={self.folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--cluster.listen-address=",
                cwd=root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(START_S):
                while not await self._ready():
                    assert self._process.returncode is None, self.log()
                    await asyncio.sleep(0.02)
        except BaseException:
            await self.stop(signal.SIGKILL)
            raise

    async def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it with the signal *by*, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.send_signal(by)
            await process.wait()

    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text(errors="replace")

    # -- its API --------------------------------------------------------------------------------------------------

    async def alerts(self, **query: Any) -> list[_Json]:
        """The alerts that it has, as ``GET /api/v2/alerts`` gives them: only those that have not ended."""
        found: list[_Json] = await self._call("GET", "/api/v2/alerts", params=query)
        return found

    async def post(self, alerts: Sequence[Mapping[str, Any]]) -> httpx.Response:
        """Post *alerts* to it as they are."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(f"{self.url}/api/v2/alerts", json=list(alerts))

    async def silence(self, labels: Mapping[str, str], start: datetime, end: datetime) -> str:
        """Silence alerts with *labels*. Returns the id of the silence."""
        matchers = [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in labels.items()]
        times = {"startsAt": start.isoformat(), "endsAt": end.isoformat()}
        about = {"createdBy": "a test", "comment": "a test"}
        made = await self._call("POST", "/api/v2/silences", json={"matchers": matchers, **times, **about})
        return str(made["silenceID"])

    async def unsilence(self, silence: str) -> None:
        """End a silence."""
        await self._call("DELETE", f"/api/v2/silence/{silence}")

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(method, f"{self.url}{path}", **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def _ready(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.url}/-/ready")).is_success
        except httpx.TransportError:
            return False


def _runnable(folder: Path) -> tuple[Path, Path]:
    """Return a program that finds its templates, and the directory that it must be started in."""
    found = program()
    assert found is not None, "no alertmanager in PATH"
    root = found.parent.parent.parent  # of …/usr/bin/prometheus-alertmanager
    if Path(_TEMPLATES).exists() or not (root / _TEMPLATES[1:]).exists():
        return found, folder
    copy = folder / "alertmanager"
    if not copy.exists():
        fixed, below = _TEMPLATES.encode(), f"{_TEMPLATES[1:]}/".encode()
        copy.write_bytes(found.read_bytes().replace(fixed, below))
        copy.chmod(0o755)
    return copy, root


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
