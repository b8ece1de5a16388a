"""A reader of the protobuf form of Prometheus, for tests. It shares no code with the writer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import Any


def fields(body: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: a number, or the bytes of a double or of a field with a length."""
    at = 0
    while at < len(body):
        tag, at = varint(body, at)
        if tag & 7 == 0:
            value, at = varint(body, at)
            yield tag >> 3, value
        else:
            size, at = (8, at) if tag & 7 == 1 else varint(body, at)
            yield tag >> 3, body[at : at + size]
            at += size
    assert at == len(body)


def varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while body[at] > 127:
        number |= (body[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return number | body[at] << shift, at + 1


def signed(number: int) -> int:
    return -(number >> 1) - 1 if number & 1 else number >> 1


def double(body: bytes) -> float:
    return struct.unpack("<d", body)[0]


def metrics_of(page: bytes) -> Iterator[tuple[str, int, dict[str, str], dict[int, bytes]]]:
    """Yield, for each series, the name and type of its metric, its labels and its other fields."""
    at = 0
    while at < len(page):
        size, at = varint(page, at)
        family = list(fields(page[at : at + size]))
        at += size
        about = dict(family)
        for number, metric in family:
            if number == 4:
                found = list(fields(metric))
                pairs = [dict(fields(body)) for field, body in found if field == 1]
                labels = {pair[1].decode(): pair[2].decode() for pair in pairs}
                assert len(labels) == len(pairs)
                yield about[1].decode(), about[3], labels, {field: body for field, body in found if field != 1}


def read_protobuf(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all samples, with the names that Prometheus gives them, except those of native histograms."""
    read: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for name, kind, labels, values in metrics_of(page):
        if kind == 4:
            histogram = list(fields(values[7]))
            about = dict(histogram)
            for bucket in (dict(fields(body)) for field, body in histogram if field == 3):
                read[f"{name}_bucket", frozenset({**labels, "le": repr(double(bucket[2]))}.items())] = bucket[1]
            read[f"{name}_bucket", frozenset({**labels, "le": "+Inf"}.items())] = about[1]
            read[f"{name}_count", frozenset(labels.items())] = about[1]
            read[f"{name}_sum", frozenset(labels.items())] = double(about[2])
        else:
            assert kind == (0 if name.endswith("_total") else 1)
            value = dict(fields(values[3 if kind == 0 else 2]))
            read[name, frozenset(labels.items())] = double(value[1])
    return read


def created_of(kind: int, values: dict[int, bytes]) -> float | None:
    """Return the start of a series of that kind, in seconds since the epoch. None: it has no start."""
    field, place = {0: (3, 3), 1: (2, 3), 4: (7, 15)}[kind]
    stamp = dict(fields(values[field])).get(place)
    if stamp is None:
        return None
    about = dict(fields(stamp))
    return about[1] + about[2] / 1e9


def native_buckets(page: bytes, name: str, operation: str) -> tuple[int, list[tuple[float, float, int]]]:
    """Return the number of samples of a native histogram, and its buckets: lower bound, upper bound, count."""
    (histogram,) = (
        list(fields(values[7]))
        for found, _kind, labels, values in metrics_of(page)
        if found == f"pool_monitor_call_{name}_seconds" and labels["operation"] == operation
    )
    about = dict(histogram)
    assert signed(about[5]) == 5
    packed = about[13]
    deltas, at = [], 0
    while at < len(packed):
        delta, at = varint(packed, at)
        deltas.append(signed(delta))
    indices, index = [], 0
    for span in (dict(fields(body)) for field, body in histogram if field == 12):
        index += signed(span[1])
        indices += range(index, index + span[2])
        index += span[2]
    filled = zip(indices, accumulate(deltas), strict=True)
    zero = [(0.0, double(about[6]), about[7])] if about[7] else []
    return about[1], zero + [(2 ** ((index - 1) / 32), 2 ** (index / 32), count) for index, count in filled]
