"""Recordings in and out: every format, wrong headers, what is written, and what is refused."""

import os
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
from sounds import encode, tone

from common.cli import UserError
from sound import recordings
from sound.recordings import find_audio, open_sound, read_audio, read_blocks, write_audio

RATE = 44100
SECONDS = 2.0


def frequency_of(sound, rate=RATE):
    """The loudest frequency in the second quarter, Hz."""
    part = sound[len(sound) // 4 : len(sound) // 2]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
    return np.argmax(spectrum) * rate / len(part)


def read_all(path, size=recordings.READ_SIZE):
    """(float32 (channels, n), the closed `recordings.Sound`)."""
    with open_sound(path) as sound:
        blocks = list(read_blocks(sound, size))
    whole = np.concatenate(blocks, axis=1)
    assert sound.tell() == whole.shape[1]
    return whole, sound


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_what_libsndfile_writes_is_read(tmp_path, rate, extension):
    path = tmp_path / f"x.{extension}"
    sound = tone(rate=rate)
    soundfile.write(path, np.stack([sound, sound], 1), rate)
    whole = read_audio(path)
    assert whole.dtype == np.float32
    assert len(whole) == pytest.approx(SECONDS * RATE, abs=100)
    assert frequency_of(whole) == pytest.approx(440, abs=3)
    assert np.abs(whole[RATE // 2 : RATE]).max() == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "video"),
    [
        ("phone.m4a", "aac", None),
        ("lossless.m4a", "alac", None),
        ("stream.aac", "aac", None),
        ("mac.aiff", "pcm_s16be", None),
        ("voice.opus", "libopus", None),
        ("windows.wma", "wmav2", None),
        ("old.mp2", "mp2", None),
        ("sound.mka", "flac", None),
        ("film.mp4", "aac", "mpeg4"),
        ("film.mov", "pcm_s16le", "mpeg4"),
        ("film.mkv", "ac3", "mpeg4"),
        ("FILM.AVI", "libmp3lame", "mpeg4"),
        ("film.webm", "libopus", "libvpx"),
    ],
)
def test_what_people_have_is_read(tmp_path, name, codec, video):
    assert os.path.splitext(name)[1].lower() in recordings.AUDIO_EXTENSIONS
    rate = 48000 if codec == "libopus" else RATE
    path = encode(tmp_path / name, tone(rate=rate), codec, rate, video)
    whole = read_audio(path)
    assert len(whole) == pytest.approx(SECONDS * RATE, abs=0.1 * RATE)
    assert frequency_of(whole) == pytest.approx(440, abs=3)


def test_the_name_does_not_decide_what_a_file_is(tmp_path):
    encode(tmp_path / "x.m4a", tone(), "aac")
    os.rename(tmp_path / "x.m4a", tmp_path / "x.wav")
    assert frequency_of(read_audio(tmp_path / "x.wav")) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_blocks_of_any_size_hold_the_whole(tmp_path, extension):
    path = tmp_path / f"x.{extension}"
    soundfile.write(path, np.stack([tone(440), tone(660)], 1), RATE)
    expected, _ = soundfile.read(path, dtype="float32")
    assert expected.shape[0] == pytest.approx(SECONDS * RATE, abs=1)
    for size in (1000, len(expected), 2**18):
        whole, sound = read_all(path, size)
        assert (sound.channels, sound.samplerate, sound.remarks) == (2, RATE, [])
        assert sound.frames in (None, len(expected))
        np.testing.assert_allclose(whole.T, expected, atol=1e-5)


def test_a_long_mp3_is_never_held_whole(tmp_path):
    soundfile.write(tmp_path / "x.mp3", tone(seconds=60), RATE)
    tracemalloc.start()
    with open_sound(tmp_path / "x.mp3") as sound:
        for _ in read_blocks(sound, 2**14):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sound.tell() > 59 * RATE
    assert peak < 4 * 60 * RATE / 4  # bytes: a quarter of the whole


def test_mp3_of_variable_rate_without_its_length_is_read_to_its_end(tmp_path):
    options = {"write_xing": "0", "id3v2_version": "0"}
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)
    encode(tmp_path / "1.mp3", noise, "libmp3lame", bit_rate=320_000, options=options)
    encode(tmp_path / "2.mp3", tone(seconds=12), "libmp3lame", bit_rate=32_000, options=options)
    path = tmp_path / "x.mp3"
    path.write_bytes((tmp_path / "1.mp3").read_bytes() + (tmp_path / "2.mp3").read_bytes())
    assert len(soundfile.read(path)[0]) < 6 * RATE  # what it looks like to libsndfile
    whole, _ = read_all(path)
    assert whole.shape[1] == pytest.approx(14 * RATE, abs=0.2 * RATE)
    assert frequency_of(whole[0, 4 * RATE :]) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("extension", ["ogg", "mp3"])
def test_files_one_behind_the_other_are_read_to_the_last(tmp_path, extension):
    content = b""
    for frequency in (440, 660):
        soundfile.write(tmp_path / f"part.{extension}", tone(frequency), RATE)
        content += (tmp_path / f"part.{extension}").read_bytes()
    (tmp_path / f"x.{extension}").write_bytes(content)
    whole, _ = read_all(tmp_path / f"x.{extension}")
    assert whole.shape[1] == pytest.approx(2 * SECONDS * RATE, abs=0.1 * RATE)
    middle = whole.shape[1] // 2
    assert frequency_of(whole[0, :middle]) == pytest.approx(440, abs=3)
    assert frequency_of(whole[0, middle:]) == pytest.approx(660, abs=3)


def test_parts_of_another_form_are_not_left_out_in_silence(tmp_path):
    soundfile.write(tmp_path / "1.ogg", tone(440), RATE)
    both = np.stack([tone(660, rate=48000)] * 2, 1)
    soundfile.write(tmp_path / "2.ogg", both, 48000)
    path = tmp_path / "x.ogg"
    path.write_bytes((tmp_path / "1.ogg").read_bytes() + (tmp_path / "2.ogg").read_bytes())
    if int(av.__version__.split(".")[0]) < 16:  # with FFmpeg 7, which brings them to the first form
        whole, _ = read_all(path)
        assert whole.shape[1] == pytest.approx(2 * SECONDS * RATE, abs=0.1 * RATE)
        assert frequency_of(whole[0, whole.shape[1] // 2 :]) == pytest.approx(660, abs=3)
        return
    with pytest.raises(UserError, match="changes its rate or channels"):
        read_all(path)


def set_wav_sizes(path, riff, samples):
    """Overwrite the two sizes in the header of a plain WAV file."""
    content = bytearray(path.read_bytes())
    content[4:8] = riff.to_bytes(4, "little")
    at = content.index(b"data") + 4
    content[at : at + 4] = samples.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("riff", "samples"), [(36, 0), (0, 0), (2 * RATE * 2 + 36, 0), (1036, 1000)]
)
def test_wav_whose_header_was_never_finished_is_read_to_its_end(tmp_path, riff, samples):
    soundfile.write(tmp_path / "x.wav", tone(), RATE)
    set_wav_sizes(tmp_path / "x.wav", riff, samples)
    whole, sound = read_all(tmp_path / "x.wav")
    np.testing.assert_allclose(whole[0], tone(), atol=1e-4)
    assert len(sound.remarks) == 1
    assert "header" in sound.remarks[0]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, size):
    soundfile.write(tmp_path / "x.wav", tone(), RATE)
    set_wav_sizes(tmp_path / "x.wav", size, size - 36)
    whole, sound = read_all(tmp_path / "x.wav")
    assert whole.shape[1] == len(tone())
    assert sound.remarks == []


def check_cut_is_told(path, tags=0):
    """``path`` whole is read without a remark, and the first 60 % behind its tags with one."""
    whole, sound = read_all(path)
    assert sound.remarks == []
    content = path.read_bytes()
    path.write_bytes(content[: tags + (len(content) - tags) * 6 // 10])
    part, sound = read_all(path)
    assert 0.3 < part.shape[1] / whole.shape[1] < 0.7
    assert "its end is missing" in " ".join(sound.remarks)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("x.wav", {}),
        ("x.aiff", {}),
        ("x.au", {}),
        ("x.caf", {}),
        ("x.w64", {"format": "W64"}),
        ("x.rf64", {"format": "RF64"}),
        ("x.mp3", {}),
        ("x.ogg", {}),
        ("x.opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_a_file_that_lacks_its_end_is_read_and_told(tmp_path, name, form):
    path = tmp_path / name
    soundfile.write(path, tone(seconds=6, rate=48_000), 48_000, **form)
    check_cut_is_told(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("x.mp3", "libmp3lame", None),
        ("x.oga", "libopus", None),
        ("x.webm", "libopus", None),
        ("x.mka", "aac", None),
        ("x.avi", "libmp3lame", None),
        ("x.wma", "wmav2", None),
        ("x.wv", "wavpack", None),
        ("x.m4a", "aac", {"movflags": "faststart"}),
    ],
)
def test_what_ffmpeg_reads_without_its_end_is_told(tmp_path, name, codec, options):
    path = tmp_path / name
    encode(path, tone(seconds=6, rate=48_000), codec, rate=48_000, options=options)
    check_cut_is_told(path)


def test_the_end_is_missed_behind_an_mp3s_large_tags(tmp_path):
    path = encode(tmp_path / "x.mp3", tone(seconds=6), "libmp3lame")
    content = path.read_bytes()
    assert content.startswith(b"ID3")
    size = 2**17  # a picture of the cover, say
    tags = b"ID3\x04\x00\x00" + bytes([0, size >> 14 & 127, size >> 7 & 127, size & 127])
    first = 10 + content[9] + (content[8] << 7)
    path.write_bytes(tags + bytes(size) + content[first:])
    check_cut_is_told(path, tags=size)


@pytest.mark.parametrize(("extension", "codec"), [("mka", "aac"), ("m4a", "aac"), ("wma", "wmav2")])
def test_a_title_of_any_bytes_is_no_reason_to_refuse(tmp_path, extension, codec):
    path = encode(tmp_path / f"x.{extension}", tone(), codec)
    content = path.read_bytes()
    before, after = b"Chanson", b"Chans\xf4n"  # as Latin-1 has it
    if extension == "wma":
        before, after = (
            "Chanson".encode("utf-16-le"),
            "Chans\ud800n".encode("utf-16-le", "surrogatepass"),
        )
    assert before in content
    path.write_bytes(content.replace(before, after))
    assert frequency_of(read_audio(path)) == pytest.approx(440, abs=1)


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that tell the number of samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    whole, _ = read_all(path)
    np.testing.assert_allclose(whole[0], tone(), atol=1e-4)


def test_damaged_packets_are_passed_over_and_told(tmp_path, capsys):
    path = tmp_path / "x.m4a"
    encode(path, tone(seconds=4), "aac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(content)
    assert len(read_audio(path)) > 3 * RATE
    err = capsys.readouterr().err
    assert err.startswith(f"note: {path}: ")
    assert "packets are damaged" in err


@pytest.mark.parametrize("name", ["x.wav", "x.mp3", "x.m4a", "x.ogg"])
@pytest.mark.parametrize(
    "content", [b"", b"RIFF, but no more", b"OggS", b"ID3", bytes(5000), b"#EXTM3U\nsecret.wav\n"]
)
def test_what_is_no_sound_is_refused(tmp_path, name, content):
    write_audio(tmp_path / "secret.wav", tone())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_audio(tmp_path / name)


def test_playlists_are_not_followed(tmp_path):
    write_audio(tmp_path / "secret.wav", tone())
    (tmp_path / "x.mp3").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(UserError, match="cannot be read as audio"):
        open_sound(tmp_path / "x.mp3")


def test_a_film_without_sound_is_refused(tmp_path):
    with av.open(tmp_path / "x.mp4", "w") as container:
        pictures = container.add_stream("mpeg4", rate=5)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
    with pytest.raises(UserError, match="no sound"):
        open_sound(tmp_path / "x.mp4")


def test_samples_that_no_recording_has_are_refused(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 1]), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
@pytest.mark.parametrize("extension", ["wav", "mp3"])
def test_names_that_are_not_utf_8(tmp_path, extension):
    try:
        path = tmp_path / os.fsdecode(b"caf\xe9." + extension.encode())
        write_audio(path, tone())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert len(read_audio(path)) == len(tone())


def stereo(left, right):
    return np.stack([left, right], axis=1)


def test_channels_are_averaged(tmp_path):
    for right in (tone(440), 0.5 * tone(660), 0 * tone(), -0.3 * tone(440)):
        soundfile.write(tmp_path / "x.wav", stereo(tone(440), right), RATE)
        expected = (tone(440) + right) / 2
        np.testing.assert_allclose(read_audio(tmp_path / "x.wav"), expected, atol=1e-4)


def test_channels_of_opposite_polarity_do_not_become_silence(tmp_path, capsys):
    path = tmp_path / "x.wav"
    soundfile.write(path, stereo(-0.8 * tone(), tone()), RATE)
    np.testing.assert_allclose(read_audio(path), tone(), atol=1e-4)
    err = capsys.readouterr().err
    assert "opposite polarity" in err
    assert "channel 2" in err
    assert len(err.splitlines()) == 1


def test_mixed_down_a_block_does_not_become_silence():
    sound = tone()
    np.testing.assert_array_equal(recordings.mix_down(np.stack([sound, -0.9 * sound])), sound[None])
    both = np.stack([sound, 0.5 * sound])
    np.testing.assert_allclose(recordings.mix_down(both)[0], 0.75 * sound, atol=1e-6)


def test_silence_in_all_channels_is_silence(tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", np.zeros((1000, 2)), RATE)
    assert not read_audio(tmp_path / "x.wav").any()
    assert capsys.readouterr().err == ""


def test_audio_is_found_in_any_format_by_its_whole_name(tmp_path):
    for name in ("a/[b] c.m4a", "a/[b] c.d.wav", "a/[b] c.txt", "a/x c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path, "a/[b] c") == tmp_path / "a/[b] c.m4a"
    assert find_audio(tmp_path, "a/[b] c.d") == tmp_path / "a/[b] c.d.wav"
    assert find_audio(tmp_path, "a/[b]") is None


def test_write_audio_never_clips(tmp_path):
    with pytest.raises(ValueError, match="exceeds"):
        write_audio(tmp_path / "x.wav", np.array([0, 1.01]))
    assert list(tmp_path.iterdir()) == []
    write_audio(tmp_path / "x.wav", np.array([0, -1.0, 1.0, 0.5]))
    np.testing.assert_allclose(soundfile.read(tmp_path / "x.wav")[0], [0, -1, 1, 0.5], atol=1e-4)


@pytest.mark.parametrize("extension", recordings.WRITTEN_EXTENSIONS)
def test_long_sounds_are_written_in_every_format(tmp_path, extension):
    sound = tone(seconds=15)
    write_audio(tmp_path / f"x{extension}", sound)
    assert len(read_audio(tmp_path / f"x{extension}")) == len(sound)


@pytest.mark.parametrize(
    ("name", "channels", "rate"),
    [
        ("x.ogg", 1, 200_001),  # libvorbis ends the process
        ("x.ogg", 2, 400_000),
        ("x.flac", 1, 65_537),  # FLAC tells at the first sample only
        ("x.flac", 9, 44_100),
        ("x.mp3", 1, 12_345),
        ("x.mp3", 3, 44_100),
        ("x.m4a", 1, 44_100),
        ("x", 1, 44_100),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, name, channels, rate):
    with pytest.raises(UserError, match=name):
        recordings.check_writable(tmp_path / name, channels, rate)
    with pytest.raises(UserError, match=name):
        recordings.create_sound(tmp_path / name, tmp_path / "part", channels, rate)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "channels", "rate"),
    [("x.ogg", 32, 200_000), ("x.flac", 8, 65_535), ("x.WAV", 32, 400_000), ("x.mp3", 2, 8000)],
)
def test_what_can_be_written_at_the_limits(tmp_path, name, channels, rate):
    recordings.check_writable(tmp_path / name, channels, rate)
    sound = np.zeros((rate // 10, channels), np.float32)
    write_audio(tmp_path / name, sound, rate)
    assert read_all(tmp_path / name)[0].shape[0] == channels


@pytest.mark.parametrize(("hours", "kind"), [(6, b"RIFF"), (7, b"RF64")])
def test_wav_beyond_4_gib_is_rf64(tmp_path, hours, kind):
    path = tmp_path / "x.wav"
    with recordings.create_sound(path, path, 2, RATE, hours * 3600) as output:
        output.write(stereo(tone(), tone()))
    assert path.read_bytes()[:4] == kind
    np.testing.assert_allclose(read_audio(path), tone(), atol=1e-4)


@pytest.mark.skipif(os.name != "posix", reason="limits")
@pytest.mark.parametrize("extension", recordings.WRITTEN_EXTENSIONS)
def test_a_disk_that_fills_with_the_last_block_is_an_error(tmp_path, extension):
    import resource

    path = tmp_path / f"x{extension}"
    write_audio(path, tone(seconds=10))
    size = path.stat().st_size
    path.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        with pytest.raises((OSError, UserError), match=rf"x\{extension}"):
            write_audio(path, tone(seconds=10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
