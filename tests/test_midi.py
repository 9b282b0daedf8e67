import random
import struct

import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from music import midi_bytes, note, tempo

import midi
from cli import UserError
from midi import change_score, read_score


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    path = tmp_path_factory.mktemp("midi") / "a file.mid"

    def read(data, **kwargs):
        path.write_bytes(data)
        return read_score(path, **kwargs)

    return read


def rows(score):
    return [
        (
            round(float(n["onset"]), 6),
            round(float(n["duration"]), 6),
            int(n["pitch"]),
            int(n["velocity"]),
        )
        for n in score
    ]


def test_a_note(read):
    score = read(midi_bytes(note(480, 720, 60, 90)))
    assert score.dtype == midi.NOTE
    assert rows(score) == [(0.5, 0.25, 60, 90)]


def test_all_tracks_sorted_by_onset_without_drums(read):
    drums = note(0, 240, 36, channel=9)
    score = read(
        midi_bytes(note(480, 960, 40), note(0, 960, 70, channel=3) + drums, tempo(0, 250_000))
    )
    assert rows(score) == [(0.0, 0.5, 70, 100), (0.25, 0.25, 40, 100)]


def test_tempo_changes_count_from_their_tick_on_and_in_any_track(read):
    score = read(
        midi_bytes(note(0, 1440), tempo(480, 1_000_000) + tempo(960, 9) + tempo(960, 250_000))
    )
    assert rows(score) == [(0.0, 0.5 + 1.0 + 0.25, 60, 100)]


def test_zero_length_and_endless_notes_are_kept(read):
    assert rows(read(midi_bytes(note(480, 480)))) == [(0.5, 0.0, 60, 100)]
    endless = [(0, 0x90, 64, 50)]
    assert rows(read(midi_bytes(endless + note(480, 960)))) == [
        (0.0, 1.0, 64, 50),
        (0.5, 0.5, 60, 100),
    ]


def test_overlapping_notes_of_one_pitch_end_in_their_order(read):
    assert rows(read(midi_bytes(note(0, 480) + note(240, 960, velocity=50)))) == [
        (0.0, 0.5, 60, 100),
        (0.25, 0.75, 60, 50),
    ]


def test_running_status_and_note_on_of_velocity_zero(read):
    body = (
        b"\0\x90\x3c\x64" + b"\x83\x60\x3c\x00" + b"\0\xff\x2f\0"
    )  # on, then 480 ticks later the same status, velocity 0
    assert rows(
        read(
            midi_bytes()[:8]
            + struct.pack(">HHh", 0, 1, 480)
            + struct.pack(">4sI", b"MTrk", len(body))
            + body
        )
    ) == [(0.0, 0.5, 60, 100)]


def test_pedal_holds_until_it_comes_up_or_the_pitch_is_struck_again(read):
    down, up = [(0, 0xB0, 64, 64)], [(1920, 0xB0, 64, 63)]
    notes = note(0, 240, 60) + note(480, 720, 60) + note(0, 240, 72) + note(0, 240, 50, channel=1)
    score = read(midi_bytes(notes, down + up))
    assert rows(score) == [
        (0.0, 0.25, 50, 100),
        (0.0, 0.5, 60, 100),
        (0.0, 2.0, 72, 100),
        (0.5, 1.5, 60, 100),
    ]
    assert [n[1] for n in rows(read(midi_bytes(notes, down + up), pedal=False))] == [0.25] * 4


def test_a_key_held_through_another_strike_decides_for_itself(read):
    assert rows(
        read(midi_bytes(note(0, 960), note(480, 600), [(0, 0xB0, 64, 127), (1920, 0xB0, 64, 0)]))
    ) == [
        (0.0, 1.0, 60, 100),
        (0.5, 1.5, 60, 100),
    ]


def slow_pedal(notes, presses, last):
    """Off tick of each (on, off, pitch), event by event."""
    ends = []
    for on, off, pitch in notes:
        down = [state for tick, state in presses if tick <= off]
        end = off
        if down and down[-1]:
            for tick in range(off + 1, last + 1):
                end = tick
                if any(t == tick and not state for t, state in presses):
                    break
            for other, _, same in notes:
                if same == pitch and other > on:
                    end = max(off, min(end, other))
        ends.append(end)
    return ends


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(60, 62)),
        min_size=1,
        max_size=12,
    ),
    st.dictionaries(st.integers(0, 60), st.booleans(), max_size=8),
)
def test_pedal_against_the_slow_way(raw, presses):
    notes = np.array([(on, on + held, 0, pitch, 64) for on, held, pitch in raw])
    presses = sorted(presses.items())
    last = int(max(notes[:, 1].max(), presses[-1][0] if presses else 0))
    expected = slow_pedal(
        [(on, off, pitch) for on, off, _, pitch, _ in notes.tolist()], presses, last
    )
    score = midi._timed(notes.copy(), {0: presses} if presses else {}, [(0, 1_000_000)], 1)
    assert (score["onset"] + score["duration"]).tolist() == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_agrees_with_pretty_midi(tmp_path_factory, seed):
    rng = random.Random(seed)
    out = pretty_midi.PrettyMIDI(
        initial_tempo=rng.uniform(20, 300), resolution=rng.choice([24, 220, 480])
    )
    for program in range(rng.randint(1, 4)):
        out.instruments.append(pretty_midi.Instrument(program, is_drum=rng.random() < 0.2))
        for pitch in rng.sample(range(128), 5):
            times = sorted(
                {rng.randrange(60) for _ in range(8)}
            )  # whole seconds: none is shorter than a tick
            for start, end in zip(times[::2], times[1::2]):
                out.instruments[-1].notes.append(
                    pretty_midi.Note(rng.randint(1, 127), pitch, start, end)
                )
    out.instruments.append(pretty_midi.Instrument(0))
    out.instruments[-1].notes.append(pretty_midi.Note(64, 0, 0.5, 1))
    path = tmp_path_factory.mktemp("pretty") / "random.mid"
    out.write(str(path))
    kept = [
        n for i in pretty_midi.PrettyMIDI(str(path)).instruments if not i.is_drum for n in i.notes
    ]
    expected = sorted((round(n.start, 6), n.pitch, n.velocity, n.end - n.start) for n in kept)
    score = read_score(path, pedal=False)
    columns = (
        score["onset"].round(6),
        score["pitch"],
        score["velocity"],
        score["duration"],
    )  # rounded: one order for both
    got = sorted(zip(*(column.tolist() for column in columns)))
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_changes_do_one_thing_each(read):
    score = read(midi_bytes(note(480, 960, 60) + note(960, 1200, 62)))
    before = score.copy()
    assert rows(change_score(score, speed=2)) == [(0.25, 0.25, 60, 100), (0.5, 0.125, 62, 100)]
    assert rows(change_score(score, duration_rate=0.5)) == [
        (0.5, 0.25, 60, 100),
        (1.0, 0.125, 62, 100),
    ]
    assert rows(change_score(score, transpose=-3)) == [(0.5, 0.5, 57, 100), (1.0, 0.25, 59, 100)]
    np.testing.assert_array_equal(score, before)


GOOD = midi_bytes(
    tempo(0, 400_000) + note(0, 480),
    [*note(0, 480, 64), (9, 0xC0, 1), (11, 0xF0, 1, 0xF7), (12, 0xB0, 64, 127)],
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends in the middle"),
        (b"RIFF1234WAVE", "no MIDI file"),
        (midi_bytes([]), "has no notes"),
        (midi_bytes(note(0, 480, channel=9)), "drums only"),
        (GOOD[:10], "ends in the middle"),
        (GOOD[:-9], "ends in the middle"),
        (midi_bytes(note(0, 480), division=0), "no ticks in a beat"),
        (midi_bytes(note(0, 480), division=-6360), "video frames"),
        (midi_bytes([(0, 0x90, 60, 200)]), "data byte must be in range 0..127"),
        (midi_bytes([(0, 60, 100)]), "running status without last_status"),
        (
            midi_bytes(note(0, 480)).replace(b"\x83\x60", b"\xff\xff\xff\xff\x60"),
            "ends in the middle",
        ),
        (midi_bytes(note(0, 480)).replace(b"\x83\x60", b"\x81" * 100_000 + b"\x60"), "damaged"),
        (midi_bytes(note(0, 1 << 60)), "more ticks than any music"),
        (midi_bytes(note(0, 2 * 36_000 * 480)), "lasts 10.0 h"),
        (midi_bytes(note(0, 1) + note(2**28 - 1, 2**28 - 1), division=1), "longest allowed"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_reason(read, data, reason):
    with pytest.raises(UserError, match=rf"a file\.mid: .*{reason}.*; leave this file out"):
        read(data)


def test_limits(read, monkeypatch, tmp_path):
    monkeypatch.setattr(midi, "MAX_BYTES", 1 << 20)
    with pytest.raises(UserError, match="larger than 1 MB"):
        read(GOOD + bytes(1 << 20))
    with pytest.raises(UserError, match="the longest allowed is 4 h"):
        change_score(read(GOOD), speed=1e-5)
    with pytest.raises(UserError, match=r"nowhere\.mid: cannot be read"):
        read_score(tmp_path / "nowhere.mid")
    with pytest.raises(UserError, match="cannot be read"):
        read_score(tmp_path)


def test_a_file_cut_anywhere_or_with_any_byte_changed_gives_a_score_or_a_reason(read):
    rng = random.Random(0)
    outcomes = set()
    for cut in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[cut] = rng.randrange(256)
        for data in (GOOD[:cut], bytes(changed)):
            try:
                outcomes.add(len(read(data)) > 0)
            except UserError:
                outcomes.add("refused")
    assert outcomes == {True, "refused"}


@settings(deadline=2000, max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_give_a_score_or_a_reason(read, body, framed):
    data = (
        struct.pack(">4sIHHh4sI", b"MThd", 6, 1, 1, 96, b"MTrk", len(body)) + body
        if framed
        else b"MThd" + body
    )
    try:
        score = read(data)
    except UserError:
        return
    assert np.isfinite(score["onset"]).all()
    assert (score["duration"] >= 0).all()
