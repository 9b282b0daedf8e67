import random
import struct
import time

import numpy as np
import pretty_midi
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from music import midi_bytes, note, tempo

from common.cli import UserError
from synthesis import scores
from synthesis.scores import change_score, read_repaired, read_score


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """read(bytes of a MIDI file) -> its score."""
    path = tmp_path_factory.mktemp("midi") / "a file.mid"

    def read(data, **kwargs):
        path.write_bytes(data)
        return read_score(path, **kwargs)

    return read


@pytest.fixture(scope="module")
def repair(tmp_path_factory):
    """repair(bytes of a MIDI file) -> (rows of its score, what was repaired)."""
    path = tmp_path_factory.mktemp("midi") / "a file.mid"

    def repair(data):
        path.write_bytes(data)
        score, repairs = read_repaired(path)
        return rows(score), repairs

    return repair


def rows(score):
    """[(onset, duration, pitch, velocity)] in numbers that compare equal."""
    out = []
    for onset, duration, pitch, velocity in score.tolist():
        out.append((round(onset, 6), round(duration, 6), pitch, velocity))
    return out


def chunk(name, body, length=None):
    """A chunk of a MIDI file, whose length may be a lie."""
    return name + struct.pack(">I", len(body) if length is None else length) + body


def header(form=1, tracks=1, division=480):
    return chunk(b"MThd", struct.pack(">HHh", form, tracks, division))


END = b"\0\xff\x2f\0"
A_NOTE = b"\0\x90\x3c\x64\x83\x60\x80\x3c\0"  # pitch 60 for 480 ticks
IT = (0.0, 0.5, 60, 100)  # its row


def test_a_note(read):
    score = read(midi_bytes(note(480, 720, 60, 90)))
    assert score.dtype == scores.NOTE
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
    on_then_off = b"\0\x90\x3c\x64" + b"\x83\x60\x3c\x00" + END
    assert rows(read(header(form=0) + chunk(b"MTrk", on_then_off))) == [IT]


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
    """Off tick of each (on, off, pitch), tick by tick."""
    ends = []
    for on, off, pitch in notes:
        before = [is_down for tick, is_down in presses if tick <= off]
        end = off
        if before and before[-1]:
            end = next_time_up(off, presses, last)
            for strike, _, other_pitch in notes:
                if other_pitch == pitch and strike > on:
                    end = max(off, min(end, strike))
        ends.append(end)
    return ends


def next_time_up(off, presses, last):
    for tick in range(off + 1, last + 1):
        if (tick, False) in presses:
            return tick
    return max(off, last)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(60, 62)),
        min_size=1,
        max_size=12,
    ),
    st.dictionaries(st.integers(0, 60), st.booleans(), min_size=1, max_size=8),
)
def test_pedal_against_the_slow_way(raw, presses):
    notes = np.array([(on, on + held, pitch) for on, held, pitch in raw])
    presses = sorted(presses.items())
    last = int(notes[:, 1].max())
    ends = scores._apply_pedal(*notes.T, presses, last)
    assert ends.tolist() == slow_pedal(notes.tolist(), presses, max(last, presses[-1][0]))


@settings(max_examples=30)
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
    kept = []
    for instrument in pretty_midi.PrettyMIDI(str(path)).instruments:
        if not instrument.is_drum:
            kept += instrument.notes
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


# Damage


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (b"\0\xff\x59\x02\xee\x01", "skipped malformed meta event"),  # a key of 18 flats
        (b"\0\xff\x59\x02\x01\x07", "skipped malformed meta event"),  # neither major nor minor
        (b"\0\xff\x20\x00", "skipped malformed meta event"),  # a channel prefix without a channel
        (b"\0\xff\x51\x02\x07\xa1", "skipped malformed meta event"),  # a tempo of two bytes
        (b"\0\xff\x51\x03\0\0\0", "skipped tempo of 0"),
        (b"\0\xb0\x07\xc8", "data byte above 127"),
        (b"\0\xff\x01\x03\xff\xfe\xfd", ""),  # text of any bytes is in order
        (b"\0\xff\x7d\x01\x00", ""),  # so is a kind of event that nobody knows
        (b"\0\xf0\x03\x7d\x01\xf7", ""),
        (b"\0\xf8", ""),
    ],
)
def test_an_event_of_no_interest_is_passed_over_whatever_it_holds(repair, event, word):
    data = header() + chunk(b"MTrk", event + A_NOTE + END)
    notes, repairs = repair(data)
    assert notes == [IT]
    assert repairs.startswith(word)
    assert bool(repairs) == bool(word)


def test_a_velocity_above_127_is_the_loudest_and_a_pitch_above_127_is_none(repair):
    events = [(0, 0x90, 60, 200), (480, 0x80, 60, 0), (0, 0x90, 200, 90)]
    notes, repairs = repair(midi_bytes(events))
    assert notes == [(0.0, 0.5, 60, 127)]
    assert repairs == "data byte above 127: 2"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (
            header(tracks=5) + chunk(b"MTrk", A_NOTE + END),
            "tracks found, not 5 as in the header: 1",
        ),
        (
            header(tracks=0) + chunk(b"MTrk", A_NOTE + END),
            "tracks found, not 0 as in the header: 1",
        ),
        (header() + chunk(b"MTrk", A_NOTE + END, length=484), "track longer than the file"),
        (header() + chunk(b"MTrk", A_NOTE), "missing end of a track"),
        (header() + chunk(b"XFIH", b"abcd") + chunk(b"MTrk", A_NOTE + END), ""),
        (header() + b"junk!" + chunk(b"MTrk", A_NOTE + END), "bytes between chunks"),
        (header() + chunk(b"MTrk", A_NOTE + END) + bytes(50), ""),  # padding
        (b"MacBinary" + header() + chunk(b"MTrk", A_NOTE + END), "bytes before the header"),
        (header(form=7) + chunk(b"MTrk", A_NOTE + END), "unknown format"),
        (header(division=0) + chunk(b"MTrk", A_NOTE + END), "without ticks per beat"),
        (header() + chunk(b"MTrk", A_NOTE + b"\xff\xff\xff\xff\x60\x90"), "unreadable rest"),
        (header() + chunk(b"MTrk", A_NOTE + b"\x81" * 100_000), "unreadable rest"),
    ],
)
def test_wrong_counts_lengths_and_chunks(repair, data, word):
    notes, repairs = repair(data)
    assert notes == [IT]
    assert word in repairs
    assert bool(repairs) == bool(word)


@pytest.mark.parametrize("length", [0, 3, 9, 14, 30, 100_000, 2**32 - 1])
def test_both_tracks_are_read_whatever_length_the_first_claims(repair, length):
    second = b"\0\x90\x40\x64\x83\x60\x80\x40\0" + END
    data = header(tracks=2) + chunk(b"MTrk", A_NOTE + END, length) + chunk(b"MTrk", second)
    notes, repairs = repair(data)
    assert notes == [IT, (0.0, 0.5, 64, 100)]
    assert "wrong length of a track" in repairs


def test_a_length_that_takes_in_the_next_track(repair):
    second = chunk(b"MTrk", b"\0\x90\x40\x64\x83\x60\x80\x40\0" + END)
    first = A_NOTE + END
    notes, repairs = repair(
        header(tracks=2) + chunk(b"MTrk", first, len(first) + len(second)) + second
    )
    assert notes == [IT, (0.0, 0.5, 64, 100)]
    assert repairs == "wrong length of a track: 1"


def test_a_riff_wrapper_is_a_kind_of_file_and_no_damage(repair):
    inner = chunk(b"data", midi_bytes(note(0, 480)))
    inner = inner[:4] + inner[4:8][::-1] + inner[8:]  # RIFF's numbers are little endian
    data = b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"RMID" + inner
    assert repair(data) == ([IT], "")


def test_a_header_longer_than_today(repair):
    body = struct.pack(">HHh", 1, 1, 480) + b"more"
    assert repair(chunk(b"MThd", body) + chunk(b"MTrk", A_NOTE + END)) == ([IT], "")


def test_a_file_without_its_end_gives_the_notes_that_are_there(repair):
    tune = []
    for number in range(8):
        tune += note(number * 480, (number + 1) * 480, 60 + number)
    data = midi_bytes(tune)
    notes, repairs = repair(data[: len(data) // 2])
    assert 3 <= len(notes) < 8
    assert notes == [(n * 0.5, 0.5, 60 + n, 100) for n in range(len(notes))]
    assert "missing end of a track: 1" in repairs


def test_video_frames_instead_of_beats(repair):
    events = note(0, 1000)
    milliseconds = -25 * 256 + 40  # 25 frames a second, 40 ticks each
    assert repair(midi_bytes(tempo(0, 9) + events, division=milliseconds)) == (
        [(0.0, 1.0, 60, 100)],
        "",
    )
    drop_frame = -29 * 256 + 100
    notes, _ = repair(midi_bytes(note(0, 2997), division=drop_frame))
    assert notes[0][1] == pytest.approx(1.0, abs=1e-4)


def test_a_tempo_of_zero_leaves_the_tempo_before(repair):
    track = tempo(0, 1_000_000) + tempo(480, 0) + note(480, 960)
    assert repair(midi_bytes(track)) == ([(1.0, 1.0, 60, 100)], "skipped tempo of 0: 1")


def test_one_lost_note_off_harms_one_note(repair):
    """Five notes of a second's distance, each 0.125 s long; the end of one of them is lost."""
    for lost in range(5):
        track, expected = [], []
        for number in range(5):
            on = number * 960
            track += note(on, on + 120)
            expected.append((float(number), 0.125, 60, 100))
        del track[2 * lost + 1]
        until_the_next = 1.0 if lost < 4 else 0.0  # the last one: until the end of the file
        expected[lost] = (float(lost), until_the_next, 60, 100)
        assert repair(midi_bytes(track)) == (expected, "note never switched off: 1")


def test_a_lost_note_off_among_notes_that_overlap(repair):
    overlapping = note(960, 1200, velocity=1) + note(1080, 1440, velocity=2)
    notes, repairs = repair(midi_bytes([(0, 0x90, 60, 100), *overlapping]))
    assert notes == [(0.0, 1.0, 60, 100), (1.0, 0.25, 60, 1), (1.125, 0.375, 60, 2)]
    assert repairs == "note never switched off: 1"


END_OF_62 = (1.5, 0.0, 62, 100)


@pytest.mark.parametrize("controller", [120, 123, 124, 127])
@pytest.mark.parametrize("own_track", [True, False])
def test_controllers_that_end_notes(repair, controller, own_track):
    held = [(0, 0x90, 60, 100), (0, 0x91, 62, 100)]  # the second on another channel
    silence = [(480, 0xB0, controller, 0)]
    later = note(480, 960, 64) + note(960, 1440, 60)
    if own_track:
        data = midi_bytes(held + silence + later, note(1440, 1440, 62, channel=1))
    else:
        data = midi_bytes(held, silence, later, note(1440, 1440, 62, channel=1))
    notes, repairs = repair(data)
    assert notes == [IT, (0.0, 1.5, 62, 100), (0.5, 0.5, 64, 100), (1.0, 0.5, 60, 100), END_OF_62]
    assert repairs == "note never switched off: 1"  # of the other channel


def test_all_notes_off_leaves_the_pedals_notes_and_all_sound_off_does_not(repair):
    pedal = [(0, 0xB0, 64, 127), (960, 0xB0, 64, 0)]
    for controller, seconds in ((123, 1.0), (120, 0.5)):
        track = [(0, 0x90, 60, 100), *pedal, (480, 0xB0, controller, 0)]
        assert repair(midi_bytes(track)) == ([(0.0, seconds, 60, 100)], "")


def test_a_note_off_in_another_track_of_its_channel_ends_a_note(repair):
    ends = [(480, 0x80, 60, 0), (1440, 0x80, 60, 0)]
    strikes = [(0, 0x90, 60, 100), (960, 0x90, 60, 50)]
    assert repair(midi_bytes(strikes, ends)) == ([IT, (1.0, 0.5, 60, 50)], "")
    elsewhere = [(480, 0x81, 60, 0)]  # another channel: the note lasts on
    notes, repairs = repair(midi_bytes(strikes[:1], elsewhere))
    assert (notes, repairs) == ([IT], "note never switched off: 1")


def test_a_lost_note_off_is_not_replaced_by_one_of_minutes_later(repair):
    """Another track of the channel releases each of its notes twice."""
    other_hand = [*note(9600, 9840, velocity=50), (9900, 0x80, 60, 0)]
    track = [(0, 0x90, 60, 100), *note(480, 960)]
    notes, repairs = repair(midi_bytes(track, other_hand))
    assert notes == [IT, (0.5, 0.5, 60, 100), (10.0, 0.25, 60, 50)]
    assert repairs == "note never switched off: 1"


def test_a_note_offs_own_track_comes_first(repair):
    """Two hands on one channel strike the same key: each hand's release is its own."""
    assert repair(midi_bytes(note(0, 960), note(240, 480, velocity=50))) == (
        [(0.0, 1.0, 60, 100), (0.25, 0.25, 60, 50)],
        "",
    )


def test_the_patterns_of_type_2_are_played_one_after_the_other(repair):
    first = tempo(0, 1_000_000) + note(0, 480) + [(960, 0xB0, 1, 1)]
    second = [(0, 0x90, 62, 100), (480, 0xB0, 1, 1)]  # at the tempo of 120 again
    data = midi_bytes(first, second, note(0, 480, 64))
    data = data[:9] + b"\x02" + data[10:]
    notes, repairs = repair(data)
    assert notes == [(0.0, 1.0, 60, 100), (2.0, 0.5, 62, 100), (2.5, 0.5, 64, 100)]
    assert "patterns of a type 2 file played one after the other: 3" in repairs


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not a MIDI file"),
        (b"RIFF1234WAVE", "is not a MIDI file"),
        (midi_bytes([]), "has no notes"),
        (midi_bytes(note(0, 480, channel=9)), "drums only"),
        (GOOD[:10], "has no notes"),
        (midi_bytes([(0, 60, 100)]), r"has no notes \(unreadable rest of a track left out: 1\)"),
        (midi_bytes(note(0, 2 * 36_000 * 480)), "lasts 10.0 h"),
        (midi_bytes(note(0, 1) + note(2**28 - 1, 2**28 - 1), division=1), "the limit is"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_reason(read, data, reason):
    with pytest.raises(UserError, match=rf"a file\.mid: .*{reason}.*; leave this file out"):
        read(data)


def test_notes_that_are_never_switched_off_take_time_by_their_number_not_its_square(read):
    def seconds(count):
        """Processor time: the least of three."""
        strikes = [(tick, 0x90, 60, 1) for tick in range(count)]
        content = midi_bytes(strikes + [(count, 0x80, 60, 0)] * 5)
        times = []
        for _ in range(3):
            began = time.process_time()
            assert len(read(content)) == count
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(30_000) < 40 * seconds(3_000)  # the square would be 100 times as much


def test_limits(read, monkeypatch, tmp_path):
    monkeypatch.setattr(scores, "MAX_BYTES", 1 << 20)
    with pytest.raises(UserError, match="larger than 1 MB"):
        read(GOOD + bytes(1 << 20))
    with pytest.raises(UserError, match="the limit is 4 h"):
        change_score(read(GOOD), speed=1e-5)
    with pytest.raises(UserError, match=r"nowhere\.mid: cannot be read"):
        read_score(tmp_path / "nowhere.mid")
    with pytest.raises(UserError, match="cannot be read"):
        read_score(tmp_path)


def test_a_file_cut_anywhere_or_with_any_byte_changed_gives_a_score_or_a_reason(read):
    rng = random.Random(0)
    read_count = 0
    for cut in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[cut] = rng.randrange(256)
        for data in (GOOD[:cut], bytes(changed)):
            try:
                assert len(read(data)) > 0
                read_count += 1
            except UserError as error:
                assert "not a MIDI file" in str(error) or "no notes" in str(error)
    assert read_count > len(GOOD)  # of twice as many


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_give_a_score_or_a_reason(read, body, framed):
    data = b"MThd" + body
    if framed:
        data = header(division=96) + chunk(b"MTrk", body)
    try:
        score = read(data)
    except UserError:
        return
    assert np.isfinite(score["onset"]).all()
    assert (score["duration"] >= 0).all()


# Ports and drum parts


def port(number, tick=0):
    """A track's message: from here on its channels are this port's."""
    return [(tick, 0xFF, 0x21, 1, number)]


def sysex(tick, *content):
    """A system exclusive message with its last byte, 0xF7."""
    return [(tick, 0xF0, len(content) + 1, *content, 0xF7)]


def bank(tick, number, channel):
    """Bank select, upper half, and a program change, as a file chooses an instrument."""
    return [(tick, 0xB0 | channel, 0, number), (tick, 0xC0 | channel, 0)]


def test_a_port_has_channels_of_its_own(repair):
    """Its pedal, "all notes off" and note-offs are no other port's."""
    first = note(0, 480) + note(960, 1440, 62)
    pedal = [(0, 0xB0, 64, 127), (1920, 0xB0, 64, 0)]
    second = [*pedal, (240, 0x80, 60, 0), (1200, 0xB0, 123, 0), *note(1440, 1680, 64)]
    expected = [IT, (1.0, 0.5, 62, 100)]
    assert repair(midi_bytes(first, port(1) + second)) == ([*expected, (1.5, 0.5, 64, 100)], "")
    one_track = first + port(1, 1440) + [(1440, 0xB0, 64, 127)] + note(1440, 1680, 64)
    assert repair(midi_bytes(one_track))[0][:2] == expected


def test_channel_10_of_every_port_is_drums(read):
    drums = note(0, 480, 36, channel=9)
    assert rows(read(midi_bytes(note(0, 480), drums, port(1) + drums))) == [IT]


GM_ON = (0x7E, 0x7F, 9, 1)
GM2_ON = (0x7E, 0x7F, 9, 3)
GS_RESET = (0x41, 0x10, 0x42, 0x12, 0x40, 0, 0x7F, 0, 0x41)
XG_ON = (0x43, 0x10, 0x4C, 0, 0, 0x7E, 0)


def gs_rhythm(part, value):
    """GS's "use for rhythm part", with a check sum."""
    address = (0x40, 0x10 | part, 0x15, value)
    return (0x41, 0x10, 0x42, 0x12, *address, -sum(address) % 128)


def xg_part(part, value):
    """XG's "part mode"."""
    return (0x43, 0x10, 0x4C, 8, part, 7, value)


@pytest.mark.parametrize(
    ("setup", "channel", "is_drums"),
    [
        (sysex(0, *XG_ON) + bank(0, 127, 10), 10, True),
        (sysex(0, *XG_ON) + bank(0, 126, 10), 10, True),
        (sysex(0, *XG_ON) + bank(0, 64, 10), 10, False),  # effects as a melody
        (sysex(0, *XG_ON) + bank(0, 0, 9), 9, True),
        (sysex(0, *XG_ON, 0x7F) + bank(0, 127, 10), 10, True),  # more bytes than needed
        (bank(0, 127, 10), 10, True),  # no reset: a melody has no such bank
        (sysex(0, *XG_ON) + bank(0, 127, 10) + bank(1, 0, 10), 10, False),
        (sysex(0, *XG_ON) + sysex(0, *xg_part(10, 1)), 10, True),
        (sysex(0, *XG_ON) + sysex(0, *xg_part(10, 2)) + bank(0, 0, 10), 10, True),
        (sysex(0, *XG_ON) + sysex(0, *xg_part(9, 0)), 9, False),
        (sysex(0, *XG_ON) + sysex(0, *xg_part(3, 1)), 10, False),  # another channel
        (sysex(0, *GS_RESET) + sysex(0, *gs_rhythm(11, 1)), 11, True),
        (sysex(0, *gs_rhythm(11, 2)), 11, True),
        (sysex(0, *gs_rhythm(4, 1)), 3, True),
        (sysex(0, *gs_rhythm(0, 0)), 9, False),
        (sysex(0, *gs_rhythm(11, 1)) + sysex(1, *gs_rhythm(11, 0)), 11, False),
        (sysex(0, *gs_rhythm(11, 1)) + bank(1, 8, 11), 11, True),
        (sysex(0, *GS_RESET) + bank(0, 127, 10), 10, False),  # there, an MT-32's melodies
        (sysex(0, *GM2_ON) + bank(0, 120, 10), 10, True),
        (sysex(0, *GM2_ON) + bank(0, 121, 9), 9, False),
        (sysex(0, *XG_ON) + bank(0, 121, 9), 9, True),
        (sysex(0, *gs_rhythm(11, 1)) + sysex(1, *GS_RESET), 11, False),
        (sysex(0, *xg_part(10, 1)) + sysex(1, *XG_ON), 10, False),
        (sysex(0, *GM2_ON) + bank(0, 120, 10) + sysex(1, *GM_ON), 10, False),
        (sysex(0, *GS_RESET) + sysex(1, *GS_RESET[:-3], 0x7F, 0x7F) + bank(2, 127, 10), 10, True),
        (sysex(0, *XG_ON[:4]) + sysex(0, 0x41) + sysex(0, 0x43) + [(0, 0xF0, 0)], 10, False),
        (port(1) + sysex(0, *xg_part(10, 1)) + port(0), 10, False),
        (port(1) + bank(0, 127, 10) + sysex(0, *gs_rhythm(11, 1)) + port(0), 10, False),
    ],
)
@pytest.mark.parametrize("own_track", [True, False])
def test_what_makes_a_part_drums(read, setup, channel, is_drums, own_track):
    piano = note(0, 480)
    part = note(10, 490, 40, channel=channel)
    tracks = [piano, setup + part] if own_track else [piano, part, setup]
    assert len(read(midi_bytes(*tracks))) == (1 if is_drums else 2)


def test_a_part_is_drums_from_then_on(read):
    part = note(0, 480, 40, channel=10) + note(1440, 1920, 40, channel=10)
    switch = bank(960, 127, 10)
    assert rows(read(midi_bytes(part, switch))) == [(0.0, 0.5, 40, 100)]
    held = note(0, 1440, 40, channel=10)  # the key comes up when the part is drums already
    assert rows(read(midi_bytes(held, switch))) == [(0.0, 1.5, 40, 100)]


# Notes struck more often than released


LATER = note(48_000, 48_480, 64)  # 50 s on: a pitch that is left sounding would last until then
FIFTY = (50.0, 0.5, 64, 100)
PEDAL = [(0, 0xB0, 64, 127), (960, 0xB0, 64, 0)]
SHORT, LONG = (0.0, 0.25, 60, 100), (0.0, 1.0, 60, 100)


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        # At one tick: the release ends both, as pretty_midi has it
        ([[(0, 0x90, 60, 100), *note(0, 480)]], [IT, IT]),
        ([[(0, 0x90, 60, 100), *note(0, 480), *note(960, 1440)]], [IT, IT, (1.0, 0.5, 60, 100)]),
        # Struck again before its release: the second strike ends the first, as FluidSynth has it
        ([[(0, 0x90, 60, 100), *note(240, 480)]], [(0.0, 0.25, 60, 100), (0.25, 0.25, 60, 100)]),
        # In two tracks of one channel
        ([[(0, 0x90, 60, 100)], note(0, 480)], [IT, IT]),
        ([[(240, 0x90, 60, 100)], note(0, 480)], [IT, (0.25, 0.25, 60, 100)]),
        ([[(0, 0x90, 60, 100)], [(0, 0x90, 60, 100)], [(480, 0x80, 60, 0)]], [IT, IT]),
        # On another port than 0; with a note-on of velocity 0 as release
        ([[(0, 0xFF, 0x21, 1, 1), (0, 0x90, 60, 100), *note(0, 480)]], [IT, IT]),
        ([[(0, 0x90, 60, 100), (0, 0x90, 60, 100), (480, 0x90, 60, 0)]], [IT, IT]),
        # Notes of the pitch on another channel or port are no release
        ([[(0, 0x90, 60, 100), *note(0, 480)], note(0, 960, channel=1)], [IT, IT, LONG]),
        (
            [[(0, 0x90, 60, 100), *note(0, 480)], [(0, 0xFF, 0x21, 1, 1), *note(0, 960)]],
            [IT, IT, LONG],
        ),
        # Held by the pedal: both end with it
        ([[*PEDAL, (0, 0x90, 60, 100), *note(0, 480)]], [LONG, LONG]),
        ([[*PEDAL, (0, 0x90, 60, 100), *note(240, 480)]], [SHORT, (0.25, 0.75, 60, 100)]),
    ],
)
def test_one_release_of_two_strikes_leaves_nothing_sounding(repair, tracks, expected):
    notes, repairs = repair(midi_bytes(*tracks, LATER))
    assert notes == [*expected, FIFTY]
    assert repairs == "note never switched off: 1"


def test_running_status_in_type_0_leaves_nothing_sounding(repair):
    strikes = b"\0\x90\x3c\x64\0\x3c\x64" + b"\x83\x60\x3c\0"  # the last: velocity 0
    later = b"\x82\xf3\x20\x40\x64" + b"\x83\x60\x40\0"
    notes, repairs = repair(header(form=0) + chunk(b"MTrk", strikes + later + END))
    assert (notes[:2], repairs) == ([IT, IT], "note never switched off: 1")
    assert len(notes) == 3


def test_two_strikes_with_two_releases_keep_both(repair):
    both = note(0, 480) + note(0, 960)
    assert repair(midi_bytes(both, LATER)) == ([IT, (0.0, 1.0, 60, 100), FIFTY], "")
    assert repair(midi_bytes(note(0, 480), note(0, 960), LATER))[0][:2] == [
        IT,
        (0.0, 1.0, 60, 100),
    ]


# Whole files


PIECES = sorted((ROOT / "demo/midi").glob("*.mid"))


@pytest.mark.parametrize("path", PIECES, ids=lambda path: path.stem)
def test_real_pieces_give_the_same_notes_as_pretty_midi(path):
    """But for notes of one pitch that overlap: it ends them all at the first end."""
    score, repairs = read_repaired(path, pedal=False)
    assert repairs == ""
    ours = sort_notes(score.tolist())
    theirs = []
    for instrument in pretty_midi.PrettyMIDI(str(path)).instruments:
        theirs += [(n.start, n.end - n.start, n.pitch, n.velocity) for n in instrument.notes]
    theirs = sort_notes(theirs)
    ends = ours[:, 0] + ours[:, 1]
    for row in np.flatnonzero(~np.isclose(ours[:, 1], theirs[:, 1], rtol=0, atol=1e-5)):
        onset, _, pitch, _ = ours[row]
        ends_of_pitch = ends[ours[:, 2] == pitch]
        ours[row, 1] = ends_of_pitch[ends_of_pitch > onset + 1e-5].min() - onset
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def sort_notes(rows):
    """Rows of onset, duration, pitch, velocity -> an array in one order for both readers."""
    notes = np.array(rows)
    return notes[np.lexsort((notes[:, 3], notes[:, 0].round(4), notes[:, 2]))]
