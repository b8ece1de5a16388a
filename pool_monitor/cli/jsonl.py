"""The lines that ``pool-monitor run`` reads and writes."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from pool_monitor.errors import ConfigError, OperationError
from pool_monitor.pool.caller import CallResult

_KEYS = {"id", "session", "args", "kwargs"}
_BOM = b"\xef\xbb\xbf"
_UTF16 = "UTF-16 and not UTF-8; convert it, with iconv -f UTF-16 -t UTF-8 for example"
_OTHER_FORMS = {
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"\x1f\x8b": "compressed; decompress it, with gzip -dc for example",
    b"\x28\xb5\x2f\xfd": "compressed; decompress it, with zstd -dc for example",
}
"""The first bytes of files that are not lines of UTF-8, and what such a file is."""
_AS_TEXT = datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID  # a datetime is a date
"""Types that are written as their usual text, for example ISO 8601."""


class Job(NamedTuple):
    """One line of the input: a call to make, or the fault of the line."""

    number: int
    """The number of the line, from 1, with blank lines counted."""
    place: int
    """The line number of its answer in an ordered output, from 1."""
    id: Any
    args: list[Any]
    kwargs: dict[str, Any]
    session: str | None = None
    problem: str | None = None
    size: int = 0
    """The length of the line in bytes."""
    digest: bytes = b""
    """The digest of the input from its beginning to the end of this line."""


class OutputLine(NamedTuple):
    """One line of the output."""

    line: bytes
    failure: str | None
    """The type of the error. None: the call ended well."""


# -- input ------------------------------------------------------------------------------------------------------------


async def parse_lines(lines: AsyncIterator[bytes], name: str, *, text: bool = False) -> AsyncIterator[Job]:
    """The jobs in *lines*, which are JSON or, with *text*, an argument each. Blank ones are passed over.

    Raises ConfigError naming the input when it is not made of lines of UTF-8 at all.
    """
    number = place = 0
    digest = b""
    async for line in lines:
        if number == 0:
            line = _first(line, name)  # noqa: PLW2901 - without a byte order mark
        number += 1
        digest = hashlib.blake2b(digest + line, digest_size=16).digest()
        if line.strip():
            place += 1
            job = _text(number, place, line) if text else parse(number, place, line)
            yield job._replace(size=len(line), digest=digest)


def _first(line: bytes, name: str) -> bytes:
    what = next((what for begin, what in _OTHER_FORMS.items() if line.startswith(begin)), None)
    if what is None and b"\0" in line[:2]:
        what = _UTF16
    if what is not None:
        raise ConfigError(f"{name}: is {what}")
    return line.removeprefix(_BOM)


def _text(number: int, place: int, line: bytes) -> Job:
    try:
        return Job(number, place, number, [line.removesuffix(b"\r").decode()], {})
    except UnicodeDecodeError as error:
        return Job(number, place, number, [], {}, problem=_not_utf8(error))


def parse(number: int, place: int, line: bytes) -> Job:
    """Return the job of line *number*. Never raises: the fault of an invalid line is in ``problem``."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Job(number, place, number, [], {}, problem=_flaw(line, error))
    if not isinstance(value, dict) or not ("args" in value or "kwargs" in value):
        return Job(number, place, number, [value], {})
    args, kwargs, session = value.get("args", []), value.get("kwargs", {}), value.get("session")
    problem = None
    if unknown := value.keys() - _KEYS:
        problem = f"unknown keys {', '.join(sorted(unknown))}; valid keys: args, kwargs, id, session"
    elif not isinstance(args, list):
        problem = f'"args" must be a list, not {args!r:.80}'
    elif not isinstance(kwargs, dict):
        problem = f'"kwargs" must be an object, not {kwargs!r:.80}'
    elif not (session is None or (isinstance(session, str) and session)):
        problem = f'"session" must be a non-empty string, not {session!r:.80}'
    return Job(number, place, value.get("id", number), args, kwargs, session, problem)


def _flaw(line: bytes, error: Exception) -> str:
    """Return the fault of a line that is not valid JSON."""
    constants: list[str] = []
    try:
        json.loads(line.decode(), parse_constant=constants.append)
    except UnicodeDecodeError as wrong:
        return _not_utf8(wrong)
    except (ValueError, RecursionError):
        hint = (
            "" if line.lstrip()[:1] in b'{["-0123456789tfn' else "; with --text, each line is an argument as plain text"
        )
        return f"not valid JSON: {error}{hint}"
    if constants:
        return f"not valid JSON: JSON has no {constants[0]}; write null, or a string that the operation parses"
    if b"\\ud" in line.lower():
        return "not valid JSON: a surrogate without its other half, such as \\ud800, is not a character"
    return f"not valid JSON: {error}"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"


# -- output -----------------------------------------------------------------------------------------------------------


def output_line(job: Job, result: CallResult | None, *, placed: bool = False) -> OutputLine:
    """Return the output line for *job*. *placed*: with its place, for an unordered output. *result* None: the line was
    invalid, and no call was made.
    """
    if result is None:
        fields: dict[str, Any] = {"error": {"type": "InvalidLine", "line": job.number, "message": job.problem}}
    elif result.error is not None:
        fields = {"error": _error_fields(result.error)}
    else:
        fields = _result_fields(result.result)
    if result is not None:
        fields |= {"seconds": round(result.seconds, 6), "worker": result.worker}
    begin = {"id": job.id, "place": job.place} if placed else {"id": job.id}
    try:
        return _line(begin, fields)
    except Exception as error:  # noqa: BLE001 - invalid text, or a subclass of a JSON type
        return _line(begin, {"error": _payload_error(f" fails to encode: {error}")})


def _result_fields(result: Any) -> dict[str, Any]:
    try:
        unfit = _unfit_for_json(result)
    except RecursionError:
        unfit = " is nested too deeply, or contains itself"
    return {"result": result} if unfit is None else {"error": _payload_error(unfit)}


def _line(begin: dict[str, Any], fields: dict[str, Any]) -> OutputLine:
    failure = fields["error"]["type"] if "error" in fields else None
    return OutputLine(msgspec.json.encode({**begin, "ok": failure is None, **fields}) + b"\n", failure)


def _error_fields(error: Exception) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, OperationError):
        fields |= {"type": error.type_name, "message": error.message, "traceback": error.traceback}
    fields = {name: text.encode(errors="backslashreplace").decode() for name, text in fields.items()}
    category = getattr(error, "category", None)
    return fields if category is None else fields | {"category": category}


def _payload_error(unfit: str) -> dict[str, Any]:
    advice = "the operation must return JSON values"
    return {"type": "PayloadError", "message": f"the result cannot be written as JSON: it{unfit}; {advice}"}


def _unfit_for_json(value: Any) -> str | None:
    """Return what JSON would change or lose in *value*, as the end of a sentence about *value*. None: nothing."""
    if value is None or isinstance(value, str | int | _AS_TEXT):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f" is {value}"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f" has the key {key!r:.80}, and keys must be strings"
            if (unfit := _unfit_for_json(item)) is not None:
                return f"[{key!r:.80}]{unfit}"
        return None
    if isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            if (unfit := _unfit_for_json(item)) is not None:
                return f"[{index}]{unfit}"
        return None
    return f" is of the type {type(value).__name__}"
