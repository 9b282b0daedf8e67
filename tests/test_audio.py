"""Recordings in and out."""

import numpy as np
import pytest
import soundfile

from audio import find_audio, read_audio, write_audio
from cli import UserError


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_read_audio_of_any_kind(tmp_path, rate, extension):
    tone = 0.4 * np.sin(2 * np.pi * 440 / rate * np.arange(rate))
    soundfile.write(tmp_path / f"x.{extension}", np.stack([tone, tone], 1), rate)
    audio = read_audio(tmp_path / f"x.{extension}")
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(
        44100, abs=5000 if extension == "mp3" and rate == 8000 else 1500
    )  # mp3 frames
    spectrum = np.abs(np.fft.rfft(audio[10000:30000]))
    assert np.argmax(spectrum) * 44100 / 20000 == pytest.approx(440, abs=3)


def test_audio_is_found_in_any_format_by_its_whole_name(tmp_path):
    for name in ("a/[b] c.flac", "a/[b] c.d.wav", "a/[b] c.txt", "a/x c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path, "a/[b] c") == tmp_path / "a/[b] c.flac"
    assert find_audio(tmp_path, "a/[b] c.d") == tmp_path / "a/[b] c.d.wav"
    assert find_audio(tmp_path, "a/[b]") is None


def test_read_audio_refuses_what_is_no_sound(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF, but no more")
    with pytest.raises(UserError, match=r"x\.wav"):
        read_audio(tmp_path / "x.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 1]), 44100, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


def test_write_audio_never_clips(tmp_path):
    with pytest.raises(ValueError, match="exceeds"):
        write_audio(tmp_path / "x.wav", np.array([0, 1.01]))
    assert list(tmp_path.iterdir()) == []
    write_audio(tmp_path / "x.wav", np.array([0, -1.0, 1.0, 0.5]))
    np.testing.assert_allclose(soundfile.read(tmp_path / "x.wav")[0], [0, -1, 1, 0.5], atol=1e-4)
