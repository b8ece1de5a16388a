"""The answers of ``/livez`` and ``/readyz``: one word, a few lines, or JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import PoolReadiness, Readiness

Form = Literal["word", "lines", "json"]


def form_of(accept: str | None, asked: Mapping[str, str]) -> Form:
    """The form that a request asks for. Raises ConfigError for an unknown ``format``."""
    if (chosen := asked.get("format")) is not None:
        if chosen not in {"json", "text"}:
            raise ConfigError(f"format={chosen!r}: choose json or text")
    elif "application/json" in (accept or "").lower():
        chosen = "json"
    if chosen == "json":
        return "json"
    return "lines" if "verbose" in asked else "word"


def readyz(readiness: Readiness, form: Form) -> bytes:
    """The body of ``/readyz``."""
    if form == "json":
        return msgspec.json.encode(readiness)
    lines = [readiness.reason or "ok"]
    if form == "lines":
        lines += [_pool(name, pool) for name, pool in readiness.pools.items()]
        lines += [f"degraded: {reason}" for reason in readiness.degraded]
        lines.append(f"mode: {readiness.mode}")
    return _text(lines)


def livez(readiness: Readiness, form: Form) -> bytes:
    """The body of ``/livez``, unless it is one word."""
    if form == "json":
        return msgspec.json.encode({"live": readiness.live, "since": readiness.since})
    return _text(["ok", f"since {datetime.fromtimestamp(readiness.since, UTC).isoformat(timespec='seconds')}"])


def _pool(name: str, pool: PoolReadiness) -> str:
    if pool.workers is None:
        return f"pool {name}: its state is unknown"
    slots = f"{pool.workers.slots_used}/{pool.workers.slots_limit} slots used"
    return f"pool {name}: {pool.state}, {slots}, {pool.waiting}/{pool.queue_limit} calls waiting"


def _text(lines: list[str]) -> bytes:
    return "".join(f"{' '.join(line.split())}\n" for line in lines).encode("utf-8", "backslashreplace")
