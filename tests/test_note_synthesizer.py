import os

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from music import make_bank, note_sound

import NoteSynthesizer
from common.cli import UserError
from data import SAMPLE_RATE
from NoteSynthesizer import LEVEL, RELEASE, NoteBank, describe_placings, length, note_name, render
from synthesis import scores
from synthesis.rendering import write_piece


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="module")
def bank(folder):
    return NoteBank(folder, "keyboard_acoustic")


def test_a_split_is_found_where_downloads_nest_it(tmp_path):
    split = make_bank(tmp_path / "nsynth-train.jsonwav" / "nsynth-train", pitches=(60,))
    audio = split / "audio"
    if os.name != "nt":
        (tmp_path / "self").symlink_to("self")
    for folder in (audio, split, split.parent, tmp_path):
        found = NoteBank(folder, "keyboard_acoustic").paths
        assert set(found.values()) == set(audio.iterdir())
    make_bank(tmp_path / "nsynth-valid", pitches=(60,))
    with pytest.raises(UserError, match=r"several folders of notes; give one of .*valid$"):
        NoteBank(tmp_path, "keyboard_acoustic")


def test_notes_beside_folders_are_taken_themselves(tmp_path):
    split = make_bank(tmp_path / "other" / "nsynth-train", pitches=(60,))
    for path in (split / "audio").iterdir():
        path.rename(tmp_path / path.name)
    make_bank(tmp_path / "other" / "nsynth-train", pitches=(48,))
    assert {pitch for pitch, _ in NoteBank(tmp_path, "keyboard_acoustic").paths} == {60}


def score_of(*notes):
    """(onset, duration, pitch, velocity) ... -> a sorted score."""
    score = np.array(list(notes), scores.NOTE)
    return np.sort(score, order=("onset", "pitch", "velocity", "duration"))


def whole(score, bank, **kwargs):
    return np.concatenate(list(render(score, bank, bank.gain, **kwargs)))


def slow(score, bank):
    """The definition, in float64, one note after the other into the whole piece."""
    out = np.zeros(length(score))
    end = np.exp(-1 / 0.1875)
    for onset, duration, pitch, velocity in score.tolist():
        audio = bank.note(pitch, velocity).astype(float)
        released = np.arange(len(audio)) - round(duration * SAMPLE_RATE)  # samples since then
        t = released / (SAMPLE_RATE - 1)
        fading = (np.exp(-np.maximum(t, 0) / 0.1875) - end) / (1 - end)
        audio *= np.where(t <= 1, np.minimum(fading, 1), 0)
        start = round(onset * SAMPLE_RATE)
        stop = min(start + len(audio), len(out))
        assert not audio[stop - start :].any()
        out[start:stop] += audio[: stop - start]
    return out * bank.gain


notes_strategy = st.lists(
    st.tuples(
        st.floats(0, 4),
        st.floats(0, 2),
        st.sampled_from([21, 48, 55, 60, 61, 108]),
        st.integers(1, 127),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(notes_strategy, st.integers(1000, 200_000))
def test_rendering_is_the_slow_sum_whatever_the_block(bank, notes, block):
    score = score_of(*notes)
    audio = whole(score, bank)
    assert audio.dtype == np.float32
    assert len(audio) == length(score)
    np.testing.assert_allclose(audio, slow(score, bank), atol=3e-6)
    np.testing.assert_array_equal(audio, whole(score, bank, block=block))


def test_rendering_leaves_the_notes_as_they_are(bank):
    score = score_of((0, 0.1, 60, 100), (0.3, 1, 60, 100), (0.5, 0.2, 60, 100))
    before = bank.note(60, 100).copy()
    first = whole(score, bank)
    np.testing.assert_array_equal(first, whole(score, bank))
    np.testing.assert_array_equal(before, bank.note(60, 100))
    with pytest.raises(ValueError, match="read-only"):
        bank.note(60, 100)[0] = 1


def test_every_instrument_gives_a_piece_the_same_length(bank, tmp_path):
    short = NoteBank(make_bank(tmp_path, pitches=(60,), seconds=0.2), "keyboard_acoustic")
    score = score_of((0.25, 3, 60, 100), (1, 0.5, 61, 50))
    audio = whole(score, short)
    assert len(audio) == len(whole(score, bank)) == round(3.25 * SAMPLE_RATE) + RELEASE
    assert not audio[: SAMPLE_RATE // 4].any()
    assert audio[SAMPLE_RATE // 4 :][:50].any()


def test_a_note_ends_without_a_click(tmp_path):
    """The largest second difference of a sine is known; a step would exceed it by far.

    A note that is cut off at its file's end, too.
    """
    bank = NoteBank(make_bank(tmp_path, pitches=(60,), decay=0, seconds=0.75), "keyboard_acoustic")
    source = np.abs(np.diff(bank.note(60, 100)[1000:-1000], 2)).max() * bank.gain
    for duration in (0.2, 0.3, 5):
        audio = whole(score_of((0, duration, 60, 100)), bank)
        assert np.abs(np.diff(audio[1000:], 2)).max() < 1.3 * source
        assert abs(audio[-1]) < 1e-6


def test_a_zero_length_note_sounds(bank):
    audio = whole(score_of((0, 0, 60, 100)), bank)
    assert len(audio) == RELEASE
    assert np.abs(audio[:4000]).max() > 0.05


def test_release_has_the_methods_time_constant():
    envelope = NoteSynthesizer._ENVELOPE
    assert (envelope[0], envelope[-1], len(envelope)) == (1, 0, 44100)
    assert envelope[round(0.1875 * 44100)] == pytest.approx(np.exp(-1), abs=0.005)
    assert (np.diff(envelope) < 0).all()


@pytest.mark.parametrize(
    ("pitch", "velocity", "expected"),
    [
        (60, 100, (60, 100, "exact")),
        (60, 1, (60, 25, "exact")),
        (60, 87, (60, 75, "exact")),
        (60, 88, (60, 100, "exact")),
        (21, 127, (21, 127, "exact")),
        (108, 25, (108, 25, "exact")),
        (48, 100, (48, 75, "other velocity")),
        (48, 60, (48, 75, "other velocity")),
        (48, 76, (48, 75, "exact")),
        (54, 50, (60, 50, "shifted")),
        (53, 75, (48, 75, "shifted")),
        (120, 50, (108, 50, "shifted")),
        (9, 50, (21, 50, "shifted")),
        (121, 50, (108, 50, "lost")),
        (8, 50, (21, 50, "lost")),
        (84, 50, (61, 50, "lost")),
    ],
)
def test_placing(folder, pitch, velocity, expected):
    bank = NoteBank(folder, "keyboard_acoustic")
    bank.paths = {key: path for key, path in bank.paths.items() if key[0] != 48 or key[1] == 75}
    assert bank.place(pitch, velocity) == expected
    assert (len(bank.note(pitch, velocity)) == 0) == (expected[2] == "lost")


def test_placings_are_counted_and_described(bank):
    score = score_of((0, 1, 60, 100), (0, 1, 60, 99), (0, 1, 62, 100), (0, 1, 127, 100))
    assert (
        describe_placings(bank.count(score))
        == "4 notes: 2 exact, 0 other velocity, 1 shifted, 1 lost"
    )
    assert (
        describe_placings(bank.count(np.repeat(score[:1], 1546)))
        == "1,546 notes: 1,546 exact, 0 other velocity, 0 shifted, 0 lost"
    )


@pytest.mark.parametrize("shift", [-12, -5, 3, 12])
def test_a_shifted_note_has_the_pitch_that_was_asked_for(tmp_path, shift):
    bank = NoteBank(
        make_bank(tmp_path, pitches=(69,), velocities=(100,), decay=0), "keyboard_acoustic"
    )
    audio = bank.note(69 + shift, 100)
    assert len(audio) == pytest.approx(1.5 * SAMPLE_RATE / 2 ** (shift / 12), abs=2)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 4 * SAMPLE_RATE))
    assert np.argmax(spectrum) / 4 == pytest.approx(440 * 2 ** (shift / 12), abs=0.5)


@pytest.mark.parametrize(
    ("extension", "rate"), [("wav", 8000), ("flac", 44100), ("ogg", 48000), ("WAV", 22050)]
)
def test_notes_of_any_rate_and_format(tmp_path, extension, rate):
    soundfile.write(
        tmp_path / f"flute_synthetic_003-060-100.{extension}", note_sound(60, 1.0, rate), rate
    )
    audio = NoteBank(tmp_path, "flute_synthetic_003").note(60, 100)
    assert len(audio) == SAMPLE_RATE
    expected = note_sound(60, 1.0, SAMPLE_RATE)
    middle = slice(2000, -2000)
    assert np.abs(audio[middle] - expected[middle]).max() < 0.05 * np.abs(expected).max()


def test_presets_and_families_are_told_apart(tmp_path):
    make_bank(tmp_path, "keyboard_acoustic_000", pitches=(60,), velocities=(100,))
    make_bank(tmp_path, "keyboard_acoustic_001", pitches=(61,), velocities=(50,))
    make_bank(tmp_path, "bass_keyboard_acoustic_000", pitches=(62,), velocities=(75,))
    assert list(NoteBank(tmp_path, "keyboard_acoustic").paths) == [(60, 100)]
    assert list(NoteBank(tmp_path / "audio", "keyboard_acoustic_001").paths) == [(61, 50)]


def test_the_gain_brings_notes_of_any_level_to_one(tmp_path):
    for name, amplitude in (("quiet", 0.05), ("loud", 0.9)):
        bank = NoteBank(
            make_bank(tmp_path / name, amplitude=amplitude, decay=0), "keyboard_acoustic"
        )
        assert bank.gain * np.abs(bank.note(60, 100)).max() == pytest.approx(LEVEL, rel=0.02)


def test_only_a_piece_that_would_clip_is_made_lower(bank, tmp_path):
    soft = score_of((0, 0.5, 60, 100))
    loud = score_of(*[(0, 0.5, 60, 127)] * 9)
    assert not write_piece(tmp_path / "soft.wav", soft, bank)
    assert write_piece(tmp_path / "loud.wav", loud, bank)
    info = soundfile.info(tmp_path / "loud.wav")
    assert (info.samplerate, info.channels, info.subtype) == (44100, 1, "PCM_16")
    assert info.frames == length(loud)
    audio, _ = soundfile.read(tmp_path / "loud.wav")
    assert 0.99 < np.abs(audio).max() < 1
    raw = whole(loud, bank)
    np.testing.assert_allclose(audio, raw * 0.999 / np.abs(raw).max(), atol=1e-4)
    audio, _ = soundfile.read(tmp_path / "soft.wav")
    np.testing.assert_allclose(audio, whole(soft, bank), atol=1e-4)


def test_fingerprint_tells_banks_apart(folder, tmp_path):
    same = NoteBank(make_bank(tmp_path / "same"), "keyboard_acoustic")
    other = NoteBank(make_bank(tmp_path / "other", decay=1.1), "keyboard_acoustic")
    here = NoteBank(folder, "keyboard_acoustic").fingerprint()
    assert same.fingerprint() == here != other.fingerprint()


def test_what_is_wrong_with_a_bank_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        NoteBank(tmp_path / "nowhere", "keyboard_acoustic")
    with pytest.raises(
        UserError, match="no note of 'organ_electronic_000'; found no notes with NSynth's"
    ):
        NoteBank(tmp_path, "organ_electronic")
    make_bank(tmp_path, pitches=(60,))
    with pytest.raises(
        UserError, match="no note of 'organ_electronic_003'; found keyboard_acoustic_000"
    ):
        NoteBank(tmp_path, "organ_electronic_003")
    make_bank(tmp_path, "organ_electronic_007", pitches=(60,))
    most_like_it_first = "found organ_electronic_007, keyboard_acoustic_000"
    with pytest.raises(UserError, match=most_like_it_first):
        NoteBank(tmp_path, "organ_electronic_003")
    for name in ("Keyboard", "keyboard", "../x_y", "a_b\n", "a__b"):
        with pytest.raises(UserError, match="no such name"):
            note_name(name, 60, 100)
    path = tmp_path / "audio" / "keyboard_acoustic_000-060-100.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(UserError, match=r"060-100\.wav: has no samples"):
        NoteBank(tmp_path, "keyboard_acoustic").note(60, 100)
    path.write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"060-100\.wav: cannot be read as audio"):
        NoteBank(tmp_path, "keyboard_acoustic").note(60, 100)
