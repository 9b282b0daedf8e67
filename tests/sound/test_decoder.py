"""What FFmpeg decodes: time stamps, odd channels, wrong headers, and a decoder that dies."""

import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.signal
import soundfile
from sounds import encode, tone, uniform_noise

from common.cli import UserError
from sound import recordings
from sound.recordings import open_sound, read_blocks

RATE = 48_000
SECONDS = 2


def read_all(path):
    """(float32 (channels, n), the closed `recordings.Sound`)."""
    with open_sound(path) as sound:
        whole = np.concatenate(list(read_blocks(sound)), axis=1)
    return whole, sound


def film(path, codec, picture=None, start=0.0, pause=0.0, options=None):
    """Write noise of 2 s that begins ``start`` s after the picture and rests in its middle.

    The pause is one of time stamps only, as when a browser's recording was paused. Returns the
    noise, (n,).
    """
    sound = uniform_noise(SECONDS * RATE)
    low = scipy.signal.butter(2, 4000, fs=RATE)
    sound = scipy.signal.lfilter(*low, sound).astype(np.float32)  # what every codec keeps
    with av.open(path, "w", options=options or {}) as container:
        track = container.add_stream(codec, rate=RATE, layout="mono")
        track.bit_rate = 128_000
        if picture:
            add_pictures(container, picture, start + SECONDS + pause)
        size = min(track.codec_context.frame_size or 1024, 4608)
        for first in range(0, len(sound), size):
            part = sound[np.newaxis, first : first + size]
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = first + round(start * RATE)
            if first >= len(sound) // 2:
                frame.pts += round(pause * RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return sound


def add_pictures(container, codec, seconds):
    """Grey pictures, from the time stamp 0 on."""
    track = container.add_stream(codec, rate=10)
    track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
    for number in range(round(seconds * 10)):
        picture = np.full((64, 64, 3), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        container.mux(track.encode(frame))
    container.mux(track.encode())


def find(part, whole):
    """The sample of ``whole`` at which ``part`` lies."""
    match = scipy.signal.correlate(whole, part, "valid", method="fft")
    return np.argmax(match)


def check_end(name, codec, whole, seconds):
    """Check a length; of AAC in Matroska nothing tells where in its last packet it ends."""
    padding = 1024 if "mk" in name and codec == "aac" else 0
    assert -0.001 * RATE <= len(whole) - seconds * RATE <= 0.001 * RATE + padding


FILMS = [
    ("x.mp4", "aac", "mpeg4"),
    ("x.mov", "alac", "mpeg4"),
    ("x.mkv", "aac", "mpeg4"),
    ("x.mkv", "libmp3lame", "mpeg4"),
    ("x.webm", "libopus", "libvpx"),
]


@pytest.mark.parametrize(("name", "codec", "picture"), FILMS)
def test_sound_that_begins_after_the_picture_begins_with_silence(tmp_path, name, codec, picture):
    noise = film(tmp_path / name, codec, picture, start=0.5)
    (whole,), sound = read_all(tmp_path / name)
    assert find(noise[4800:48000], whole) == pytest.approx(4800 + 0.5 * RATE, abs=0.001 * RATE)
    assert np.abs(whole[: RATE // 3]).max() == 0
    check_end(name, codec, whole, 2.5)
    assert sound.remarks == []


@pytest.mark.parametrize(("name", "codec", "picture"), [*FILMS, ("x.webm", "libopus", None)])
def test_a_pause_is_silence(tmp_path, name, codec, picture):
    noise = film(tmp_path / name, codec, picture, pause=3.0)
    (whole,), sound = read_all(tmp_path / name)
    middle = len(noise) // 2
    assert find(noise[4800:24000], whole) == pytest.approx(4800, abs=0.001 * RATE)
    second = find(noise[middle + 9600 : middle + 33600], whole)
    assert second == pytest.approx(middle + 9600 + 3 * RATE, abs=0.001 * RATE)
    assert np.abs(whole[round(1.2 * RATE) : round(3.8 * RATE)]).max() == 0
    check_end(name, codec, whole, 5)
    assert sound.remarks == []


SHORT_CLUSTERS = {"cluster_time_limit": "300", "write_crc32": "0"}  # ms


def move_clusters(path, seconds):
    """Falsify the time stamps of a Matroska file's clusters, all but the first: ``seconds`` each.

    A cluster is its name, its size of one to eight bytes, then its time in ms.
    """
    content = bytearray(path.read_bytes())
    name = b"\x1f\x43\xb6\x75"
    starts = [at for at in range(len(content)) if content.startswith(name, at)][1:]
    for start, moved in zip(starts, seconds):
        place = start + 4 + 9 - content[start + 4].bit_length()
        assert content[place : place + 2] == b"\xe7\x82"  # a time of two bytes
        time = int.from_bytes(content[place + 2 : place + 4], "big") + round(1000 * moved)
        content[place + 2 : place + 4] = time.to_bytes(2, "big")
    path.write_bytes(content)
    return len(starts)


@pytest.mark.parametrize("picture", [None, "mpeg4"])
@pytest.mark.parametrize("moved", [[0, 0, 50, 50, 50, 50, 50, 50, 50], [0, 0, 50]])
def test_a_false_time_stamp_adds_no_silence(tmp_path, moved, picture):
    """Of all blocks from the middle on, and of one; the header tells of the right length."""
    noise = film(tmp_path / "x.mkv", "aac", picture, options=SHORT_CLUSTERS)
    if picture:  # whose own stamps are right at the end
        moved = moved[:3]
    assert move_clusters(tmp_path / "x.mkv", moved) in range(4, 9)
    (whole,), sound = read_all(tmp_path / "x.mkv")
    check_end("x.mkv", "aac", whole, SECONDS)
    assert find(noise[4800 : RATE + 24000], whole) == pytest.approx(4800, abs=1)
    assert len(sound.remarks) == 1
    assert "tell of 50 s more of silence than the file has room for" in sound.remarks[0]


def test_false_time_stamps_throughout_add_little_silence(tmp_path):
    film(tmp_path / "x.mkv", "aac", options=SHORT_CLUSTERS)
    move_clusters(tmp_path / "x.mkv", [9, 18, 27, 36, 45, 54])
    (whole,), sound = read_all(tmp_path / "x.mkv")
    assert SECONDS < len(whole) / RATE < SECONDS + 10.5
    assert "than the file has room for" in sound.remarks[0]


@pytest.mark.parametrize(
    ("name", "codec", "picture", "options", "pause"),
    [
        ("x.mp4", "aac", "mpeg4", None, 15),
        ("x.webm", "libopus", "libvpx", None, 15),
        ("x.webm", "libopus", "libvpx", {"live": "1"}, 15),  # which tells no length
        ("x.webm", "libopus", None, {"live": "1"}, 9),
        ("x.mp4", "aac", None, {"movflags": "frag_keyframe+empty_moov"}, 9),
    ],
)
def test_a_long_pause_is_believed_where_the_file_bears_it_out(
    tmp_path, name, codec, picture, options, pause
):
    film(tmp_path / name, codec, picture, pause=pause, options=options)
    (whole,), sound = read_all(tmp_path / name)
    assert len(whole) == pytest.approx((SECONDS + pause) * RATE, abs=1100)
    assert np.abs(whole[round(1.2 * RATE) : round((0.8 + pause) * RATE)]).max() == 0
    assert sound.remarks == []


def test_a_sound_that_begins_long_after_the_picture_begins_with_silence(tmp_path):
    film(tmp_path / "x.mkv", "aac", "mpeg4", start=20)
    (whole,), sound = read_all(tmp_path / "x.mkv")
    check_end("x.mkv", "aac", whole, SECONDS + 20)
    assert sound.remarks == []


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.m4a", "aac"), ("x.mka", "aac"), ("x.mka", "libmp3lame"), ("x.webm", "libopus")],
)
def test_an_encoders_run_up_is_left_out(tmp_path, name, codec):
    noise = film(tmp_path / name, codec)
    (whole,), _ = read_all(tmp_path / name)
    assert find(noise[4800:48000], whole) == pytest.approx(4800, abs=1)
    check_end(name, codec, whole, SECONDS)
    assert name != "x.m4a" or len(whole) == len(noise)


def test_wavering_time_stamps_tear_nothing_apart(tmp_path):
    """FFmpeg's for Vorbis do where a loud onset makes the blocks short."""
    sound = tone(seconds=3, rate=RATE, level=0.01)
    sound[:: RATE // 3] = 0.9
    soundfile.write(tmp_path / "part.ogg", sound, RATE)
    part = (tmp_path / "part.ogg").read_bytes()
    (tmp_path / "x.ogg").write_bytes(part + part)  # of two parts, which FFmpeg reads
    (whole,), _ = read_all(tmp_path / "x.ogg")
    onsets = np.flatnonzero(np.abs(whole) > 0.4)
    onsets = onsets[np.diff(onsets, prepend=-RATE) > 1000]
    assert np.diff(onsets[1:8]) == pytest.approx(RATE // 3, abs=2)


def quicktime(path, channels, order):
    """A QuickTime file of as many tones as channels, 200 Hz apart, with this `chan` atom."""
    layout = {2: "stereo", 6: "5.1", 7: "6.1", 8: "7.1"}[channels]
    tones = [tone(200 * (k + 1), seconds=0.5, rate=RATE) for k in range(channels)]
    samples = (np.stack(tones, 1).reshape(1, -1) * 32767).astype(np.int16)
    with av.open(path, "w") as container:
        track = container.add_stream("pcm_s16le", rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(track.encode(frame))
        container.mux(track.encode())
    content = bytearray(path.read_bytes())
    start = content.rindex(b"chan") - 4
    size = int.from_bytes(content[start : start + 4], "big")
    atom = struct.pack(">I4sI", 12 + len(order), b"chan", 0) + order
    content[start : start + size] = atom
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"):
        at = content.rindex(name, 0, start) - 4  # each holds the next one
        old = int.from_bytes(content[at : at + 4], "big")
        content[at : at + 4] = (old + len(atom) - size).to_bytes(4, "big")
    path.write_bytes(content)


def by_tag(number, channels):
    """Content of a `chan` atom: one of Apple's orders by its number."""
    return struct.pack(">III", number << 16 | channels, 0, 0)


def by_labels(*labels):
    """Content of a `chan` atom: the label of each channel, such as 1 for left and 2 for right."""
    content = struct.pack(">III", 0, 0, len(labels))
    for label in labels:
        content += struct.pack(">II3f", label, 0, 0, 0, 0)
    return content


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        (6, by_tag(121, 6)),
        (6, by_tag(124, 6)),  # 5.1 of films: C L R Ls Rs LFE
        (7, by_tag(125, 7)),  # 6.1
        (8, by_tag(127, 8)),  # 7.1: C Lc Rc L R Ls Rs LFE
        (8, by_tag(128, 8)),
        (2, by_labels(2, 1)),  # R L
        (6, by_labels(3, 1, 2, 5, 6, 4)),
    ],
)
def test_channels_of_any_order_end_no_process(tmp_path, channels, order):
    """PyAV 17.1 - 18.1 frees the memory of such an order more than once."""
    quicktime(tmp_path / "x.mov", channels, order)
    for _ in range(3):
        whole, _ = read_all(tmp_path / "x.mov")
        assert whole.shape == (channels, RATE // 2)
        loudest = np.abs(np.fft.rfft(whole)).argmax(axis=1) * 2  # Hz
        assert list(loudest) == [200 * (k + 1) for k in range(channels)]


@pytest.mark.parametrize("name", ["x.mov", "x.mkv"])
def test_of_two_tracks_the_one_of_a_known_codec_is_taken(tmp_path, name):
    with av.open(tmp_path / name, "w") as container:
        unknown = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        known = container.add_stream("aac", rate=RATE, layout="mono")
        samples = np.zeros((1, 2 * RATE), np.int16)
        for track, part, form, layout in (
            (unknown, samples, "s16", "stereo"),
            (known, tone(seconds=1, rate=RATE)[np.newaxis], "fltp", "mono"),
        ):
            frame = av.AudioFrame.from_ndarray(part, format=form, layout=layout)
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(track.encode(frame))
            container.mux(track.encode())
    content = (tmp_path / name).read_bytes()
    for codec, other in ((b"sowt", b"apac"), (b"A_PCM/INT/LIT", b"A_APAC/SPACE\0")):
        content = content.replace(codec, other)
    (tmp_path / name).write_bytes(content)
    whole, _ = read_all(tmp_path / name)
    assert np.sqrt((whole**2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.1)


def test_flv_that_lacks_its_end_is_told(tmp_path):
    path = tmp_path / "x.flv"
    film(path, "libmp3lame", "flv", pause=1.0)
    _, sound = read_all(path)
    assert sound.remarks == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    whole, sound = read_all(path)
    assert whole.shape[1] > RATE // 2
    assert "its end is missing" in " ".join(sound.remarks)


def test_a_picture_that_outlasts_the_sound_is_no_missing_end(tmp_path):
    path = tmp_path / "x.flv"
    with av.open(path, "w") as container:
        track = container.add_stream("libmp3lame", rate=44100, layout="mono")
        add_pictures(container, "flv", 5)
        part = tone(seconds=2)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(track.encode(frame))
        container.mux(track.encode())
    assert read_all(path)[1].remarks == []


def set_flac_length(path, samples):
    """Overwrite the number of samples in STREAMINFO (36 bits)."""
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("told", "remark"),
    [(0.4, "longer than its header"), (1.0, None), (2.0, "its end is missing")],
)
def test_flac_whose_header_is_wrong_is_read_to_its_end(tmp_path, told, remark):
    path = tmp_path / "x.flac"
    noise = uniform_noise(5 * RATE)
    soundfile.write(path, noise, RATE, "PCM_24")
    set_flac_length(path, round(told * len(noise)))
    (whole,), sound = read_all(path)
    np.testing.assert_allclose(whole, noise, atol=2**-23)
    assert sound.bits == 24
    assert len(sound.remarks) == (remark is not None)
    assert remark is None or remark in sound.remarks[0]


def test_half_a_flac_is_read_and_told(tmp_path):
    path = tmp_path / "x.flac"
    noise = uniform_noise(5 * RATE)
    soundfile.write(path, noise, RATE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (whole,), sound = read_all(path)
    assert len(whole) == pytest.approx(2.5 * RATE, abs=0.2 * RATE)
    np.testing.assert_allclose(whole[: 2 * RATE], noise[: 2 * RATE], atol=1e-4)
    assert "its end is missing" in " ".join(sound.remarks)


@pytest.mark.parametrize(("name", "codec"), [("x.aac", "aac"), ("x.mp3", "libmp3lame")])
def test_a_length_that_is_a_guess_is_none(tmp_path, name, codec):
    """FFmpeg's of this is 0.3 s: by its size and the bit rate of its loud beginning."""
    sound = np.concatenate([uniform_noise(RATE // 4), np.zeros(5 * RATE, np.float32)])
    options = {"write_xing": "0", "id3v2_version": "0"} if name == "x.mp3" else None
    path = encode(tmp_path / name, sound, codec, RATE, options=options)
    with open_sound(path) as opened:
        assert opened.frames is None
    assert read_all(path)[0].shape[1] == pytest.approx(len(sound), abs=0.05 * RATE)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("number", "told"),
    [("SIGABRT", "crashed on it .SIGABRT.*another program"), ("SIGKILL", "out of memory")],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_decoder_that_dies_costs_one_file(tmp_path, monkeypatch, number, told, begun):
    header = '{"samplerate": 44100, "channels": 1, "bits": 16}' if begun else ""
    size = len(header) if begun else 1000
    dying = (
        "import os, signal, struct, sys;"
        f"sys.stdout.buffer.write(struct.pack('<cI', b'J', {size}) + b'''{header}''');"
        f"sys.stdout.flush(); os.kill(os.getpid(), signal.{number})"
    )
    encode(tmp_path / "x.m4a", tone(), "aac")
    with monkeypatch.context() as patch:
        patch.setattr(recordings, "_DECODER", dying)
        with pytest.raises(UserError, match=rf"x\.m4a: .*{told}"):
            read_all(tmp_path / "x.m4a")
    assert read_all(tmp_path / "x.m4a")[0].any()


def test_a_decoder_ends_with_its_reader(tmp_path):
    encode(tmp_path / "x.m4a", tone(seconds=20), "aac")
    with open_sound(tmp_path / "x.m4a") as sound:
        sound.read(100)
        process = sound._process
        assert process.poll() is None  # the rest does not fit into the pipe
    assert process.poll() is not None


def decode_pipe(path, monkeypatch, patience):
    """Have the real decoder open a pipe that nobody writes to, which takes for ever."""
    os.mkfifo(path)
    monkeypatch.setattr(recordings, "PATIENCE", patience)
    recordings._DecodedSound(path, stale=False)


@pytest.mark.skipif(os.name != "posix", reason="pipes have names there")
def test_a_decoder_that_hangs_is_stopped(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"x\.m4a: the decoder gave nothing for 1 s .*as wav with"):
        decode_pipe(tmp_path / "x.m4a", monkeypatch, patience=1)


def test_a_decoder_that_hangs_midway_is_stopped(tmp_path, monkeypatch):
    header = '{"samplerate": 44100, "channels": 1, "bits": 16}'
    hanging = (
        "import struct, sys, time;"
        f"sys.stdout.buffer.write(struct.pack('<cI', b'J', {len(header)}) + b'{header}');"
        "sys.stdout.flush(); time.sleep(1000)"
    )
    encode(tmp_path / "x.m4a", tone(), "aac")
    monkeypatch.setattr(recordings, "_DECODER", hanging)
    with open_sound(tmp_path / "x.m4a") as sound:
        monkeypatch.setattr(recordings, "PATIENCE", 0.1)
        with pytest.raises(UserError, match=r"x\.m4a: the decoder gave nothing"):
            sound.read(1)
    assert sound._process.poll() is not None


@pytest.mark.skipif(os.name != "posix", reason="pipes have names there")
def test_a_decoder_that_hangs_ends_with_its_reader_that_was_killed(tmp_path):
    """As when the page's Stop kills the process that listens."""
    os.mkfifo(tmp_path / "pipe")
    project = str(Path(recordings.__file__).parents[1])
    command = [sys.executable, "-c", recordings._DECODER, project, str(tmp_path / "pipe")]
    decoder = subprocess.Popen(command, stdin=subprocess.PIPE)
    decoder.stdin.close()
    decoder.wait(timeout=60)


@pytest.mark.skipif(os.name != "posix", reason="pipes have names there")
def test_a_pipe_is_refused_with_what_to_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: is a pipe .* write it to a file"):
        open_sound(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a folder"):
        open_sound(tmp_path)


@pytest.mark.parametrize("extension", ["wav", "aiff", "flac", "ogg", "mp3"])
def test_a_recording_without_samples_is_refused(tmp_path, extension):
    soundfile.write(tmp_path / f"x.{extension}", np.zeros(0), 44100)
    with pytest.raises(
        UserError, match=rf"x\.{extension}: (has no samples|has no sound|.*not a recording)"
    ):
        read_all(tmp_path / f"x.{extension}")
