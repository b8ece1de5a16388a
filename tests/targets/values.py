"""Hands out values of every kind, named as Python would write them."""

import dataclasses
import datetime
import decimal
import enum
import typing
import uuid

try:
    import numpy as np
except ImportError:  # this is a target for any Python
    np = None


class Kind(enum.Enum):
    RED = 1


class Text(str, enum.Enum):  # noqa: UP042 - for Python 3.8
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(typing.NamedTuple):
    left: int
    right: int


class Model:
    """Looks like a model of pydantic."""

    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Model({self.x!r})"

    def model_dump(self, mode="python"):
        assert mode == "json"
        return {"x": self.x}


class Own:
    def __repr__(self):
        return "Own()"

    def __eq__(self, other):
        return type(other) is type(self)

    def __hash__(self):
        return 5


NAMES = {**vars(datetime), **vars(decimal), **vars(uuid), "nan": float("nan"), "inf": float("inf")}
NAMES.update({kind.__name__: kind for kind in (Kind, Text, Point, Pair, Model, Own)}, np=np)


def value(text):
    return eval(text, dict(NAMES))


def values(text):
    yield value(text)


def echo(anything):
    return anything


def seen(anything):
    return repr(anything)
