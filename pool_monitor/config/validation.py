"""Describes an invalid setting in words: the field, the value, and what the annotation of the field requires."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

FOREVER = 1e9
"""The largest number of seconds. Infinity is refused, because no timer can be set to it."""


class Wording(NamedTuple):
    """The words for values and types in the language that the value was written in."""

    show: Callable[[Any], str]
    sequence: str
    mapping: str
    simple: Mapping[Any, str]


PYTHON = Wording(
    repr,
    "a sequence",
    "a dict",
    {int: "a whole number", float: "a number", str: "a string", bool: "True or False", NoneType: "None"},
)
TOML = Wording(
    partial(json.dumps, ensure_ascii=False, default=str),
    "an array",
    "a table",
    {int: "a whole number", float: "a number", str: "a string", bool: "true or false"},
)


def problem_with(kind: type[Struct], values: Mapping[str, Any], wording: Wording = PYTHON) -> str | None:
    """Return what is wrong with the first of *values* that does not fit its field of *kind*; None if all fit."""
    known = hints(kind)
    problems = (_problem(name, value, known[name], wording) for name, value in values.items())
    return next(filter(None, problems), None)


@cache
def hints(kind: type) -> dict[str, Any]:
    """Return the annotation of each field of *kind*."""
    return get_type_hints(kind, include_extras=True)


def _problem(place: str, value: Any, hint: Any, wording: Wording) -> str | None:
    """Return what is wrong with the innermost value that does not fit, such as one string of a sequence; else None."""
    kind, inner = get_origin(hint), get_args(hint)
    inside: list[str | None] = []
    if kind is tuple and isinstance(value, list | tuple) and inner[-1] is not ... and len(value) != len(inner):
        return f"{place}={wording.show(value):.80}: needs {wording.sequence} of {len(inner)} values"
    if kind is tuple and isinstance(value, list | tuple):
        inside = [_problem(f"{place}[{index}]", item, inner[0], wording) for index, item in enumerate(value)]
    elif kind is dict and isinstance(value, dict):
        inside = [_problem(f"a key of {place}", key, inner[0], wording) for key in value]
        inside += [_problem(f"{place}[{key!r}]", item, inner[1], wording) for key, item in value.items()]
    elif not _fits(value, hint):
        return f"{place}={wording.show(value):.80}: needs {_needs(value, hint, wording)}"
    return next(filter(None, inside), None)


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(hint, type) and issubclass(hint, Struct):  # msgspec would accept a dict
        return isinstance(value, hint)
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _needs(value: Any, hint: Any, wording: Wording) -> str:
    """Return what *hint* requires, in words, with an example if *value* suggests one."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _bounded(value, inner[1], _needs(value, inner[0], wording))
    if kind in (Union, UnionType):  # TOML has no null
        return ", or ".join(
            _needs(value, one, wording) for one in inner if one is not NoneType or one in wording.simple
        )
    if kind is Literal:
        return f"one of {', '.join(map(wording.show, inner))}"
    if kind is tuple:
        example = f", such as {wording.show(tuple(value.split()))}" if isinstance(value, str) and value.split() else ""
        return wording.sequence + (" of strings" if inner[0] is str else "") + example
    if kind is dict:
        return f"{wording.mapping} with strings as keys" + (" and values" if inner[1] is str else "")
    if hasattr(hint, "_fields"):
        return f"{wording.sequence} of {' and '.join(hint._fields)}"
    if wording is TOML and isinstance(hint, type) and issubclass(hint, Struct):
        return wording.mapping
    return wording.simple.get(hint) or f"a {hint.__name__}"


def _bounded(value: Any, meta: Meta, noun: str) -> str:
    """Return *noun* with the bounds of *meta*."""
    if meta.pattern is not None:
        return meta.description or f"{noun} that matches {meta.pattern}"
    if meta.min_length is not None:
        return noun.replace("a ", "a non-empty ")
    most = meta.le
    if most == FOREVER and not (isinstance(value, float | int) and value > most):
        most = None  # a bound so high is worth no words unless it was exceeded
    if meta.ge is not None and most is not None:
        return f"{noun} from {meta.ge:.12g} to {most:.12g}"
    bounds = [f"above {meta.gt:.12g}"] if meta.gt is not None else []
    bounds += [f"at least {meta.ge:.12g}"] if meta.ge is not None else []
    bounds += [f"at most {most:.12g}"] if most is not None else []
    return f"{noun}{', ' if meta.gt is None else ' '}{', '.join(bounds)}"
