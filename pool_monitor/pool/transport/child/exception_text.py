"""Describes exceptions as text that every codec can carry."""

from __future__ import annotations

import os

from .codec import PayloadError

_HERE = os.path.dirname(os.path.abspath(__file__))
_NAME = type.__dict__["__name__"]  # not overridden by a metaclass of the target
_TEXT_LIMIT = 64 * 1024  # characters of a message or a traceback that are sent


def describe_exception(error: BaseException) -> list[str]:
    """Return type name, message and traceback of an exception, without the frames of this package."""
    if isinstance(error, PayloadError):
        return [_name_of(error.__cause__ or error), error_message(error), ""]
    trace = error.__traceback__
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _HERE:
        trace = trace.tb_next
    import traceback  # most calls never need it

    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        lines = ""
    return [_name_of(error), error_message(error), _clean(lines[-_TEXT_LIMIT:])]


def _name_of(error: BaseException) -> str:
    return str(_NAME.__get__(type(error)))


def error_message(error: BaseException) -> str:
    """Return the message of *error*. Never raises."""
    try:
        return _clean(str(error)[:_TEXT_LIMIT])
    except BaseException:
        return "(its __str__ failed)"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates have no UTF-8 form
