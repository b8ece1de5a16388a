"""Recorded evaluations: what is played is what was recorded, to the last bit, whatever the file holds."""

from __future__ import annotations

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts import recording
from pool_monitor.alerts.inputs import Input, Inputs, Sample
from pool_monitor.alerts.recording import Player, Recorder, decode_transitions, encode_transition
from pool_monitor.config import HistoryConfig
from pool_monitor.snapshot import AlertTransition
from pool_monitor.storage import evaluations
from pool_monitor.storage.history import History
from pool_monitor.storage.reader import Reader

INPUTS = [Input(metric=f"pool.m{n}", window="1m" if n % 2 else None, back=60.0 * (n == 3)) for n in range(5)]

numbers = st.none() | st.floats(allow_nan=False)
samples = st.builds(
    Sample,
    st.sampled_from([(), (("pool", "p"),), (("operation", "a b"), ("pool", "p\N{SNOWMAN}"))]),
    numbers,
    st.none() | st.integers(0, 2**40),
    st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
    st.text(max_size=5),
)
evaluated = st.builds(
    Inputs,
    st.floats(0, 2e9),
    st.floats(0, 100),
    st.dictionaries(st.sampled_from(INPUTS), st.lists(samples, max_size=3).map(tuple), max_size=5),
    st.floats(0, 1e6),
    st.dictionaries(st.sampled_from(INPUTS), st.text(max_size=5), max_size=2),
)


@settings(max_examples=40)
@given(st.lists(evaluated, max_size=5))
def test_what_is_played_is_what_was_recorded(all_inputs):
    recorder, player = Recorder(5.0, keeps_state=True), Player()
    played = list(player.play([recorder.encode(inputs) for inputs in all_inputs]))
    assert [found.inputs for found in played] == all_inputs
    assert [found.restarted for found in played] == [number == 0 for number in range(len(all_inputs))]
    assert not player.damaged


@settings(max_examples=30)
@given(st.lists(evaluated, min_size=3, max_size=5), st.integers(0, 4), st.binary(max_size=20))
def test_a_damaged_record_costs_those_up_to_the_next_whole_one(all_inputs, where, junk):
    where %= len(all_inputs)
    recorder, player = Recorder(5.0, keeps_state=True), Player()
    bodies = [recorder.encode(inputs) for inputs in all_inputs]
    second = Recorder(5.0, keeps_state=True)
    bodies = [*bodies[:where], junk, *bodies[where + 1 :], *map(second.encode, all_inputs)]
    played = [found.inputs for found in player.play(bodies)]
    assert played == [*all_inputs[:where], *all_inputs]
    assert player.damaged == len(all_inputs) - where


def test_a_record_that_expands_beyond_its_bound_is_damaged(monkeypatch):
    monkeypatch.setattr(recording, "ROOM_MAX", 1000)
    player = Player()
    assert list(player.play([zlib.compress(bytes(10_000))])) == []
    assert player.damaged == 1


def test_a_calm_evaluation_takes_few_bytes():
    labels = [(("pool", "p"), ("worker", f"p-{n}")) for n in range(64)]
    inputs = Inputs(1e9, 5.0, {one: tuple(Sample(found, 0.5) for found in labels) for one in INPUTS}, 600.0)
    recorder = Recorder(5.0, keeps_state=True)
    whole, calm = len(recorder.encode(inputs)), len(recorder.encode(inputs._replace(at=1e9 + 5)))
    assert calm < 100 < whole


async def test_evaluations_and_changes_are_read_back_from_the_file(tmp_path):
    history = await History.open(tmp_path / "h.db")
    change = AlertTransition(
        seq=1, at=5.0, alert="A", labels={"pool": "p"}, fingerprint="0" * 16, from_state="inactive",
        to_state="firing", severity="warning", value=0.25,
    )  # fmt: skip
    history.put_evaluation(5.0, b"one", [encode_transition(change)])
    history.put_evaluation(10.0, b"two")
    await history.close()
    with Reader(tmp_path / "h.db") as reader:
        assert list(reader.evaluations()) == [(5.0, b"one"), (10.0, b"two")]
        assert list(reader.evaluations(until=7)) == [(5.0, b"one")]
        [(at, body)] = reader.transitions(0, 10)
        assert reader.transitions(6, 10) == []
    assert (at, decode_transitions([body, b"junk"])) == (5.0, ([change], 1))


async def test_the_evaluations_in_a_file_are_bounded_by_number_and_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "EVALUATIONS_MAX", 100)
    config = HistoryConfig(path=str(tmp_path / "h.db"), size_limit=8 * 2**20)
    for size, most in ((10, 100), (2**16, 8 * 2**20 // evaluations.SHARE // 2**16)):
        history = await History.open(tmp_path / "h.db", config)
        for number in range(300):
            history.put_evaluation(float(number), bytes(size))
        await history.flush()
        await history.close()
        with Reader(tmp_path / "h.db") as reader:
            kept = [at for at, _body in reader.evaluations()]
        assert most - 64 <= len(kept) <= most
        assert kept[-1] == 299.0
