"""Checks the messages of a worker before any of their content is used. No I/O.

A worker runs foreign code, so every field of every message is checked: its type, its range, its length. An invalid
message raises `FrameError`, which ends that worker and affects nothing else. Texts are cut and cleaned here once, so
that every later reader can rely on it.
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pool_monitor.pool.transport.child import PROTOCOL
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.child.telemetry import LEVELS, OURS, plain
from pool_monitor.pool.transport.interface import CallTimes, Failure

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Codec

_MOST_NS = 2**63
_MOST_BYTES = 2**50
_MOST_NUMBER = 2**63
_TEXT_LIMIT = 64 * 1024  # characters of a message, a traceback or a line
_NAME_LIMIT = 256  # characters of a name
_OPERATIONS = 10_000  # of one target
_FAILURES = ("operation", "payload", "cancelled")
_KINDS = ("function", "generator")


class Hello(NamedTuple):
    """The worker's hello."""

    codec: str
    python: str
    shared: bool
    """The worker uses the shared memory."""
    offsets: bool
    """The worker reads lent messages at any offset, and several at once."""
    context: bool
    """The worker takes the options of a call, and so its context variables."""


def service_hello(codecs: Sequence[str], frame_limit: int, session_data_limit: int) -> dict[str, Any]:
    """Return the hello that the service sends."""
    limits = {"frame_limit": frame_limit, "session_data_limit": session_data_limit}
    return {"type": "hello", "protocols": [PROTOCOL], "codecs": codecs, **limits, "offsets": True}


def parse_hello(message: Any, offered: Sequence[str]) -> Hello:
    """Parse the worker's hello. Its codec must be *offered*: only the service decides what it decodes."""
    if type(message) is not dict or message.get("type") != "hello":
        raise FrameError(f"invalid hello: {short_repr(message)}")
    codec, python = message.get("codec"), message.get("python")
    if not _is_amount(message.get("protocol")) or message["protocol"] != PROTOCOL:
        raise FrameError(f"protocol {short_repr(message.get('protocol'))}, but {PROTOCOL} was offered")
    if type(codec) is not str or codec not in offered:
        raise FrameError(f"codec {short_repr(codec)}, but {' or '.join(offered)} was offered")
    if type(python) is not str:
        raise FrameError(f"'python' is not text: {short_repr(python)}")
    takes = [message.get(name) is True for name in Hello._fields[2:]]
    return Hello(codec, encodable(python, _NAME_LIMIT), *takes)


def parse_operations(found: Any) -> dict[str, str]:
    """Return the operations of the message ``ready``, each with its kind."""
    if type(found) is not dict or not 0 < len(found) <= _OPERATIONS:
        raise FrameError(f"invalid operations: {short_repr(found)}")
    for name, kind in found.items():
        if type(name) is not str or not name or len(name) > _NAME_LIMIT or name != encodable(name, _NAME_LIMIT):
            raise FrameError(f"invalid name of an operation: {short_repr(name)}")
        if type(kind) is not str or kind not in _KINDS:
            raise FrameError(f"operation {short_repr(name)} has the invalid kind {short_repr(kind)}")
    return found


def parse_times(found: Any) -> CallTimes:
    """Return what a call took, as measured in the worker."""
    if type(found) is list and len(found) >= 2:
        wall, cpu, growth = found[0], found[1], found[2] if len(found) > 2 else None
        if (
            _is_amount(wall)
            and (cpu is None or _is_amount(cpu))
            and (growth is None or (type(growth) is int and 0 <= growth < _MOST_BYTES))
        ):
            return CallTimes(wall, cpu, growth)
    raise FrameError(f"invalid times: {short_repr(found)}")


def parse_failure(kind: Any, name: Any, text: Any, trace: Any) -> Failure:
    """Return why a call failed."""
    if kind not in _FAILURES or type(name) is not str or type(text) is not str or type(trace) is not str:
        raise FrameError(f"invalid error: {short_repr([kind, name, text, trace])}")
    return Failure(kind, encodable(name, _NAME_LIMIT), encodable(text), encodable(trace[-_TEXT_LIMIT:]))


def parse_event(name: Any, numbers: Any, about: Any) -> tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]:
    """Return the name, measurements and metadata of an event that the target emits."""
    if (
        type(name) is list
        and type(numbers) is dict
        and name
        and all(type(part) is str and part for part in name)
        and name[0] not in OURS
        and all(type(key) is str and _is_number(value) for key, value in numbers.items())
    ):
        return tuple(encodable(part, _NAME_LIMIT) for part in name), numbers, _fields(about)
    raise FrameError(f"invalid event: {short_repr([name, numbers])}")


def parse_log_line(level: Any, text: Any, fields: Any) -> tuple[str, str, dict[str, Any]]:
    """Return the level, text and fields of a line of the target's log."""
    if type(level) is not str or level not in LEVELS or type(text) is not str:
        raise FrameError(f"invalid log line: {short_repr([level, text])}")
    return level, encodable(text), _fields(fields)


def is_id(number: Any) -> bool:
    """Whether *number* can be the id of a call, a token, a length or a count."""
    return type(number) is int and 0 < number < _MOST_NUMBER


def is_pong(token: Any, call_id: Any, rss: Any) -> bool:
    """Whether these can be the answer to a ping."""
    return _is_amount(token) and (call_id is None or is_id(call_id)) and (rss is None or is_size(rss))


def is_size(number: Any) -> bool:
    """Whether *number* can be an amount of memory in bytes."""
    return type(number) is int and 0 <= number < _MOST_BYTES


def encodable(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Return *text*, cut, with each lone surrogate escaped: JSON can carry one, UTF-8 cannot."""
    text = text[:limit]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def reraise_interrupt(error: BaseException) -> None:
    """Raise *error* again if it is a KeyboardInterrupt. Whatever else foreign classes raise while they are encoded or
    decoded, also SystemExit, is the failure of one value.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error


def error_message(error: BaseException) -> str:
    """Return the message of *error*. Never raises."""
    try:
        return encodable(str(error))
    except Exception:  # noqa: BLE001 - a foreign __str__
        return "(its __str__ failed)"


def why_not_carried(codec: Codec, context: Mapping[str, Any] | None, error: BaseException) -> str:
    """Return why a call cannot be carried. *error* was raised by its arguments or by a context variable."""
    what = "the arguments"
    for name, value in (context or {}).items():
        try:
            codec.encode(codec.pack(value))
        except BaseException as failure:  # noqa: BLE001 - as for the whole message
            reraise_interrupt(failure)
            what, error = f"the context variable {name!r}", failure
            break
    return f"{what} cannot be carried as {codec.name}: {error_message(error)}"


def short_repr(value: Any) -> str:
    """Return a short form of a value, for an error text. A large value takes no longer than a small one."""
    return encodable(_repr.repr(value), 200)


def _fields(found: Any) -> dict[str, Any]:
    """Return *found* as JSON can hold it, whatever a handler writes it to: no NaN, no bytes, limited depth."""
    if type(found) is dict:
        with contextlib.suppress(ValueError):
            return dict(plain(found))
    raise FrameError(f"invalid fields: {short_repr(found)}")


def _is_amount(number: Any) -> bool:
    return type(number) is int and 0 <= number < _MOST_NS


def _is_number(value: Any) -> bool:
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    return type(value) is int and -_MOST_NUMBER <= value < _MOST_NUMBER


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120
