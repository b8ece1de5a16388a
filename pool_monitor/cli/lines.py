"""The lines that ``pool-monitor run`` reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

from pool_monitor.errors import ConfigError, OperationError
from pool_monitor.pool.caller import CallResult

_KEYS = {"id", "session", "args", "kwargs"}


class Job(NamedTuple):
    """One line of the input: a call to make, or what is wrong with the line."""

    number: int
    id: Any
    args: list[Any]
    kwargs: dict[str, Any]
    session: str | None
    problem: str | None


class Answer(NamedTuple):
    """One line of the output."""

    line: bytes
    ok: bool


async def parsed(lines: AsyncIterator[bytes]) -> AsyncIterator[Job]:
    """The jobs in *lines*; blank ones count as lines, and are passed over."""
    number = 0
    async for line in lines:
        number += 1
        if line.strip():
            yield parse(number, line)


def parse(number: int, line: bytes) -> Job:
    """What line *number* (from 1) asks for. Never raises: what is wrong with it is in ``problem``."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Job(number, number, [], {}, None, f"not valid JSON: {error}")
    if not isinstance(value, dict) or not ("args" in value or "kwargs" in value):
        return Job(number, number, [value], {}, None, None)
    args, kwargs, session = value.get("args", []), value.get("kwargs", {}), value.get("session")
    problem = None
    if unknown := value.keys() - _KEYS:
        problem = f"unknown keys {', '.join(sorted(unknown))}; beside args and kwargs there may be id and session"
    elif not isinstance(args, list):
        problem = f'"args" must be a list, not {args!r:.80}'
    elif not isinstance(kwargs, dict):
        problem = f'"kwargs" must be an object, not {kwargs!r:.80}'
    elif not (session is None or (isinstance(session, str) and session)):
        problem = f'"session" must be a non-empty string, not {session!r:.80}'
    return Job(number, value.get("id", number), args, kwargs, session, problem)


def answer(job: Job, result: CallResult | None) -> Answer:
    """What comes out for *job*; *result* is None when it could not even be asked."""
    if result is None:
        said: dict[str, Any] = {
            "ok": False,
            "error": {"type": "InvalidLine", "line": job.number, "message": job.problem},
        }
    elif result.error is None:
        said = {"ok": True, "result": result.result}
    else:
        said = {"ok": False, "error": _error(result.error)}
    if result is not None:
        said |= {"seconds": round(result.seconds, 6), "worker": result.worker}
    try:
        return Answer(msgspec.json.encode({"id": job.id, **said}) + b"\n", said["ok"])
    except Exception as error:  # noqa: BLE001 - a result that came as msgpack or pickle and has no JSON form
        lost = {"type": "PayloadError", "message": f"the result has no JSON form: {error}"}
        return Answer(msgspec.json.encode({"id": job.id, "ok": False, "error": lost}) + b"\n", False)


def _error(error: Exception) -> dict[str, Any]:
    said: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, OperationError):
        said |= {"type": error.type_name, "message": error.message, "traceback": error.traceback}
    category = getattr(error, "category", None)
    return said if category is None else said | {"category": category}


class Done(NamedTuple):
    """What an earlier run has left in the output."""

    lines: int
    failed: int


async def resume(output: BinaryIO, name: str, jobs: AsyncIterator[Job]) -> tuple[Done, AsyncIterator[Job]]:
    """What *output* holds already, and the jobs it has no answers for.

    A last line without its end, from a run that was killed, is cut off. Raises ConfigError, before anything is
    changed, when what is there are not the answers to these jobs.
    """
    count = failed = end = 0
    cut: Job | None = None
    for line in output:
        job = await anext(jobs, None)
        if job is not None and _is_cut(line, job):
            cut = job
            break
        try:
            said = msgspec.json.decode(line)
            fits = job is not None and said["id"] == job.id and line.endswith(b"\n")
            failed += not said["ok"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            fits = False
        if not fits:
            expected = "the input has ended" if job is None else f"an answer with id {job.id!r} should stand there"
            raise ConfigError(
                f"{name}:{count + 1}: cannot go on from here: {expected}; was it made from another input? "
                "Give another --output, or remove it to start over"
            )
        count += 1
        end += len(line)
    output.truncate(end)
    return Done(count, failed), _chained(cut, jobs)


def _is_cut(line: bytes, job: Job) -> bool:
    """Whether it is the beginning of the answer to *job*; not every line without an end is ours to throw away."""
    begin = msgspec.json.encode({"id": job.id})[:-1] + b',"ok":'
    return not line.endswith(b"\n") and (line.startswith(begin) or begin.startswith(line))


async def _chained(first: Job | None, rest: AsyncIterator[Job]) -> AsyncIterator[Job]:
    if first is not None:
        yield first
    async for job in rest:
        yield job
