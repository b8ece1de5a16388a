"""Prometheus protobuf: messages ``io.prometheus.client.MetricFamily``, each after its length.

This format is needed for native histograms, which the text formats cannot express. Our buckets are those of native
histograms already (schema 5, see `pool_monitor.metrics.histogram`). Each histogram also has its classic buckets.

The encoder is written by hand because there are only five small messages. The protobuf package would be another
dependency with generated code, and would make an object for each of about a hundred buckets per histogram. Here the
buckets of all histograms are encoded at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from pool_monitor.export.family import BOUNDS, Family, Histograms, Labels
from pool_monitor.metrics.histogram import FIRST_INDEX, SCALE, Ints

_COUNTER, _GAUGE, _HISTOGRAM = 0, 1, 4
"""MetricType."""
_ZERO_THRESHOLD = 2.0 ** ((FIRST_INDEX + 1) / 2**SCALE)
"""Our first bucket begins at 0, so it becomes the zero bucket of a native histogram."""


def encode(families: Iterable[Family | Histograms]) -> bytes:
    """The whole page."""
    packed = _LabelBytes()
    parts: list[bytes] = []
    for family in families:
        if isinstance(family, Histograms):
            kind, metrics = _HISTOGRAM, list(_histograms(family, packed))
        else:
            kind, metrics = _COUNTER if family.is_counter else _GAUGE, list(_samples(family, packed))
        if metrics:
            head = _text(1, family.name) + _text(2, family.help) + _number(3, kind)
            tail = _text(5, family.unit) if family.unit else b""
            body = head + b"".join(_message(4, metric) for metric in metrics) + tail
            parts.append(_varint(len(body)) + body)
    return b"".join(parts)


class _LabelBytes(dict[Labels, bytes]):
    """Labels as fields of a Metric, each made once: most are used by several metrics."""

    def __missing__(self, labels: Labels) -> bytes:
        packed = self[labels] = b"".join(_label(name, value) for name, value in labels)
        return packed


def _label(name: str, value: str) -> bytes:
    return _message(1, _text(1, name) + _text(2, value))


def _samples(family: Family, bytes_of: dict[Labels, bytes]) -> Iterator[bytes]:
    last = [_label(family.label, value) if family.label else b"" for value in family.values]
    field = 3 if family.is_counter else 2  # Metric.counter, Metric.gauge: both hold their value in field 1
    created = _created(3, family.created, len(family.series))
    for (labels, numbers), since in zip(family.series, created, strict=True):
        for label, number in zip(last, numbers, strict=True):
            if number is not None:
                yield bytes_of[labels] + label + _message(field, _double(1, number) + since)


def _created(field: int, times: Sequence[float], count: int) -> list[bytes]:
    """When each of *count* series began at 0, as a Timestamp field; empty when it is not known."""
    return [_timestamp(field, seconds) for seconds in times] or [b""] * count


def _histograms(family: Histograms, bytes_of: dict[Labels, bytes]) -> Iterator[bytes]:
    bounds = [_double(2, bound) for bound in BOUNDS]
    shared = _number(5, SCALE << 1) + _double(6, _ZERO_THRESHOLD)
    zeros, native = _native(family)
    created = _created(15, family.created, len(family.labels))
    for labels, counts, total, size, zero, sparse, since in zip(
        family.labels, family.cumulative(), family.sums, family.sizes(), zeros, native, created, strict=True
    ):
        classic = b"".join(_message(3, _number(1, count) + bound) for count, bound in zip(counts, bounds, strict=True))
        histogram = _number(1, size) + _double(2, total) + classic + shared + _number(7, zero) + sparse + since
        yield bytes_of[labels] + _message(7, histogram)


def _native(family: Histograms) -> tuple[list[int], list[bytes]]:
    """The count of the zero bucket of each histogram, and the encoded fields of all its other buckets."""
    counts, index = family.counts, FIRST_INDEX + family.first + 1  # our index k is Prometheus's k + 1
    zeros = [0] * len(counts)
    if family.first == 0 and counts.shape[1]:
        zeros, counts, index = counts[:, 0].tolist(), counts[:, 1:], index + 1

    # Comparing first, in one dimension, is four times as fast as np.nonzero of numbers.
    series, buckets = np.divmod(np.flatnonzero(counts != 0), max(counts.shape[1], 1))
    values = counts[series, buckets]
    is_first = np.diff(series, prepend=-1) != 0  # whether a bucket is the first of its series
    deltas = np.where(is_first, values, np.diff(values, prepend=0))

    spans = np.flatnonzero(is_first | (np.diff(buckets, prepend=0) != 1))
    lengths = np.diff(spans, append=len(series))
    begins = buckets[spans]
    gaps = begins - np.concatenate(([0], (begins + lengths)[:-1]))
    offsets = _zigzag(np.where(is_first[spans], begins + index, gaps))
    # Field positive_span (12): size of the message, offset (1), length (2). A tag below 128 is a varint of one byte.
    fields = (12 << 3 | 2, 2 + _sizes(offsets) + _sizes(lengths), 1 << 3, offsets, 2 << 3, lengths)
    numbers = np.stack(np.broadcast_arrays(*fields), axis=1).reshape(-1)
    span_bytes = _varints(numbers, np.repeat(series[spans], len(fields)), len(counts))
    delta_bytes = _varints(_zigzag(deltas), series, len(counts))
    return zeros, [
        of_spans + _message(13, of_deltas) for of_spans, of_deltas in zip(span_bytes, delta_bytes, strict=True)
    ]


def _zigzag(numbers: Ints) -> Ints:
    return (numbers << 1) ^ (numbers >> 63)


def _sizes(numbers: Ints) -> Ints:
    """The size of each number as a varint, in bytes."""
    return 1 + np.searchsorted(1 << np.arange(7, 63, 7), numbers, side="right")


def _varints(numbers: Ints, owners: Ints, count: int) -> list[bytes]:
    """The varints of each of *count* owners. *owners* has the owner of each number, in ascending order."""
    ends = np.concatenate(([0], np.cumsum(_sizes(numbers))))
    packed = np.empty(ends[-1], np.uint8)
    places = ends[:-1]
    while len(numbers):
        more = numbers > 127
        packed[places] = numbers & 127 | more << 7
        numbers, places = numbers[more] >> 7, places[more] + 1
    whole = packed.tobytes()
    cuts = ends[np.searchsorted(owners, np.arange(count + 1))].tolist()
    return [whole[start:end] for start, end in pairwise(cuts)]


# -- fields -----------------------------------------------------------------------------------------------------------


@lru_cache(1024)
def _varint(number: int) -> bytes:
    """The varint of *number*, which must not be negative."""
    packed = bytearray()
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)
    return bytes(packed)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


@lru_cache(1024)
def _timestamp(field: int, seconds: float) -> bytes:
    """A field of type google.protobuf.Timestamp."""
    whole = int(seconds)
    return _message(field, _number(1, whole) + _number(2, int((seconds - whole) * 1e9)))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
