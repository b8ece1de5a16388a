"""Frames: however the bytes are cut, the same frames come out; what cannot be trusted is refused."""

from __future__ import annotations

import errno
import mmap
import resource
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.transport.child.framing import HEADER, FrameError, FrameReader, frame

LIMIT = 300_000


def feed(reader: FrameReader, data: bytes, *, at_most: int = 1 << 30) -> list[bytes]:
    """Put *data* into the reader as a socket would, and copy the frames as a decoder would."""
    frames: list[bytes] = []
    while data:
        space = reader.space()
        assert len(space) > 0
        count = min(len(space), len(data), at_most)
        space[:count] = data[:count]
        frames += map(bytes, reader.received(count))
        data = data[count:]
    return frames


def body(size: int) -> bytes:
    return (b"%d." % size * (size // 2 + 1))[:size]


BODIES = st.lists(st.one_of(st.integers(1, 20), st.sampled_from([65_531, 65_532, 65_533, 65_536, 200_000])), max_size=8)


@given(BODIES, st.lists(st.integers(700, 100_000), min_size=1, max_size=20))
def test_any_way_to_cut_the_bytes_gives_the_same_frames(sizes: list[int], cuts: list[int]) -> None:
    bodies = [body(size) for size in sizes]
    stream = b"".join(map(frame, bodies))
    reader, got, turn = FrameReader(LIMIT), [], 0
    while stream:
        cut = cuts[turn % len(cuts)]
        got += feed(reader, stream[:cut])
        stream, turn = stream[cut:], turn + 1
    assert got == bodies


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6))
def test_one_byte_at_a_time_gives_the_same_frames(bodies: list[bytes]) -> None:
    assert feed(FrameReader(LIMIT), b"".join(map(frame, bodies)), at_most=1) == bodies


def test_many_small_frames_pass_the_end_of_the_buffer_unharmed() -> None:
    bodies = [body(size) for size in range(1, 400)] * 3
    reader, got = FrameReader(LIMIT), []
    stream = b"".join(map(frame, bodies))
    for start in range(0, len(stream), 7_919):
        got += feed(reader, stream[start : start + 7_919])
    assert got == bodies


def test_a_frame_of_just_the_limit_passes_and_one_byte_more_is_refused() -> None:
    assert feed(FrameReader(1024), frame(body(1024))) == [body(1024)]
    with pytest.raises(FrameError, match="1025 bytes is over the limit of 1024"):
        feed(FrameReader(1024), frame(body(1025)))


def test_a_length_over_the_limit_is_refused_before_any_memory_is_taken_for_it() -> None:
    reader = FrameReader(1024)
    with pytest.raises(FrameError):
        feed(reader, struct.pack(">I", 2**32 - 1))
    assert len(reader._view) == 64 * 1024


def test_a_frame_without_a_body_is_refused() -> None:
    with pytest.raises(FrameError, match="without a body"):
        feed(FrameReader(1024), frame(b"good") + struct.pack(">I", 0))


def test_large_frames_use_the_same_memory_again() -> None:
    reader = FrameReader(1 << 24)
    feed(reader, frame(body(1 << 20)))
    view = reader._view
    for size in (1 << 20, 1000, 1 << 19, 1 << 20):
        assert feed(reader, frame(body(size))) == [body(size)]
        assert reader._view is view


def test_the_memory_of_a_large_frame_is_given_back_when_it_is_not_needed() -> None:
    reader = FrameReader(1 << 24)
    assert feed(reader, frame(body(1 << 23))) == [body(1 << 23)]
    assert reader.oversized
    for _ in range(100):
        assert feed(reader, frame(b"small")) == [b"small"]
    assert not reader.oversized
    feed(reader, frame(body(1 << 20)))
    reader.space()
    reader.trim()
    assert not reader.oversized
    assert feed(reader, frame(body(1 << 20))) == [body(1 << 20)]


def test_what_has_been_received_of_a_frame_is_never_given_back() -> None:
    reader = FrameReader(1 << 24)
    data = frame(body(1 << 20))
    assert feed(reader, data[:-10]) == []
    reader.trim()
    assert feed(reader, data[-10:]) == [body(1 << 20)]


def test_a_reader_holds_no_more_than_a_frame_of_the_limit_and_a_little() -> None:
    reader = FrameReader(LIMIT)
    for size in (70_000, 150_000, LIMIT - 1, LIMIT):
        feed(reader, frame(body(size)))
        assert len(reader._view) <= LIMIT + HEADER


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_reader_takes_memory_only_for_what_it_receives() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    readers = [FrameReader(LIMIT) for _ in range(1000)]
    for reader in readers:
        assert feed(reader, frame(b"small")) == [b"small"]
    assert resident() - before < 16 << 20


def test_a_reader_needs_no_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "too many mappings")

    monkeypatch.setattr(mmap, "mmap", none_left)
    assert feed(FrameReader(LIMIT), frame(body(LIMIT))) == [body(LIMIT)]
