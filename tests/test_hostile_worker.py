"""Workers that lie cost themselves and their calls, and the service nothing. See tests/hostile/."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.pool.transport.child.codec import CODECS
from pool_monitor.pool.transport.child.framing import FrameReader
from tests.hostile.__main__ import run
from tests.hostile.encoding import Payload, decode, encode
from tests.hostile.grammar import STAGES, THEMES, Session
from tests.hostile.messages import KINDS, Move

SEED = 1
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the ways workers are hostile here are those of Linux")
OFFER = {"codecs": ["msgpack", "json"], "frame_limit": 256 << 10}


def conversation(number: int, codecs: tuple[str, ...] = ("msgpack", "json")) -> list[Move]:
    """What a session does when it is asked for a few things, whatever it answers."""
    session = Session(SEED, number)
    moves = session.hello({**OFFER, "codecs": list(codecs)}, True)
    moves += session.ready()
    for call_id in itertools.count(1):
        packed = encode("pickle", [[call_id], {}]) if session.codec == "pickle" else [[call_id], {}]
        moves += session.react(["call", call_id, "echo", packed, call_id % 2 == 0, ["s1", {}]])
        moves += session.react(["ping", call_id])
        moves += session.react(["cancel", call_id])
        if session.ended:
            return moves
    raise AssertionError


# -- the grammar --------------------------------------------------------------------------------------------------


def test_a_session_is_the_same_whenever_it_is_played() -> None:
    assert [conversation(number) for number in range(40)] == [conversation(number) for number in range(40)]
    assert len({str(conversation(number)) for number in range(40)}) == 40


def test_sessions_send_every_kind_of_message_both_right_and_twisted_at_every_stage() -> None:
    right, twisted, stages, themes = Counter[str](), Counter[str](), set(), set()
    for number in range(600):
        session = Session(SEED, number)
        stages.add(session.stage)
        themes.update(session.themes)
        for move in conversation(number):
            (twisted if move.twisted else right)[move.kind] += move.count
    assert (stages, themes) == (set(STAGES), set(THEMES))
    assert {kind for kind in KINDS if not twisted[kind]} == set()
    assert {"hello", "ready", "reply", "item", "end", "error", "pong"} <= set(right)


@pytest.mark.parametrize("codec", CODECS)
def test_a_right_message_is_what_the_service_reads(codec: str) -> None:
    theirs, session = CODECS[codec](), Session(SEED, 3)
    session.took_over(codec, 1 << 18, shared=True)
    for kind in KINDS:
        tree = session.right(kind)
        packed = [theirs.pack(part.value) if isinstance(part, Payload) else part for part in tree]
        assert theirs.decode(encode(codec, tree)) == (packed if isinstance(tree, list) else tree)
        assert decode(codec, theirs.encode(packed)) == packed


def test_what_is_right_is_sent_in_whole_frames() -> None:
    reader = FrameReader(1 << 20)
    for number in range(40):
        for move in conversation(number):
            if move.act == "write" and not move.twisted:
                reader.space()[: len(move.data)] = move.data
                assert len(reader.received(len(move.data))) == 1


# -- the service --------------------------------------------------------------------------------------------------


def bears(directory: Path, sessions: int, layouts: list[int] | None = None, timeout: float = 50.0) -> dict[str, Any]:
    report = run(directory, SEED, sessions, layouts=layouts, timeout=timeout)
    print(json.dumps(report, indent=2))
    again = f"python -m tests.hostile --seed {SEED} --session NUMBER has one session played again"
    assert not report["found"], "\n".join([*report["found"], again])
    return report


@LINUX
def test_a_service_bears_a_few_hostile_workers(tmp_path: Path) -> None:
    report = bears(tmp_path, 400, layouts=[1])
    assert report["sessions"] >= 40


@LINUX
@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(200)
def test_a_service_bears_hostile_workers_of_every_kind(tmp_path: Path) -> None:
    report = bears(tmp_path, 1_500, timeout=150)
    assert report["twisted"] > 5_000


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_service_bears_very_many_hostile_workers(tmp_path: Path) -> None:
    report = bears(tmp_path, 21_000, timeout=2700)
    assert report["sessions"] >= 20_000
    assert report["twisted"] >= 100_000
