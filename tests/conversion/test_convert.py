import itertools
import os
import signal
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pyloudnorm
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import identity, louder, music, noise, tone, uneven, write

import data
from conversion import convert
from conversion.convert import Options, Output
from sound import loudness, phase, recordings
from sound.survey import Survey

TILE = data.TILE_FRAMES * data.HOP_LENGTH  # samples
SHIFT_TOLERANCE = 0.1  # how much of the output may change when a recording is shifted
LENGTHS = [0, 1, 511, 512, 513, 40000, TILE, TILE + 1, 3 * TILE - 512, 3 * TILE, 3 * TILE + 1]


def smear(tiles, reach=12):
    """A network whose tiles are worst at their edges: a blur that knows nothing beyond the tile."""
    padded = np.pad(tiles, ((0, 0), (0, 0), (reach, reach), (0, 0)), constant_values=-1)
    return np.mean([padded[:, :, k : k + data.TILE_FRAMES] for k in range(2 * reach + 1)], axis=0)


def slow_reference(audio, hop_length):
    """What an identity network gives: the lower half of the STFT's bins, by librosa.

    With silence around, so that every sample is covered by as many frames as in the middle.
    """
    transform = {"hop_length": hop_length, "window": data.WINDOW, "n_fft": data.N_FFT}
    padded = np.pad(audio, 2 * data.N_FFT)
    spectrum = librosa.stft(padded, pad_mode="constant", **transform)
    spectrum[data.BINS :] = 0
    rebuilt = librosa.istft(spectrum, length=len(padded), **transform)
    return rebuilt[2 * data.N_FFT :][: len(audio)]


@pytest.mark.parametrize(
    ("length", "hops"),
    [*itertools.product(LENGTHS, [1]), *itertools.product(LENGTHS[:7], [2, 4])],
)
@pytest.mark.parametrize("overlap", [0, 0.5])
def test_an_identity_network_gives_the_input_back(length, hops, overlap):
    audio = noise(length)
    audio -= audio.sum() / max(1, length)  # an offset would be removed
    options = Options(overlap=overlap, hops=hops)
    converted = convert.convert_audio(identity, audio, data.SAMPLE_RATE, options)
    assert converted.shape == audio.shape
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, slow_reference(audio, 512 // hops), atol=2e-5)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_an_offset_does_not_click(tmp_path, rate):
    """It began and ended with a step, of which a network made a click near full scale."""
    audio = np.stack([music(rate, rate), music(rate, rate, seed=1)], 1)
    offset = np.float32([0.3, -0.2])
    silence = np.zeros((rate // 2, 2), np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([audio, silence, audio]), rate, "FLOAT")
    moved = np.concatenate([audio + offset, silence, audio + offset])
    soundfile.write(tmp_path / "moved.wav", moved, rate, "FLOAT")
    for name in ("a", "moved"):
        source, target = tmp_path / f"{name}.wav", tmp_path / f"{name}.out.wav"
        convert.convert_file(louder, source, target, output=Output(level="network"))
    expected, _ = soundfile.read(tmp_path / "a.out.wav")
    converted, _ = soundfile.read(tmp_path / "moved.out.wav")
    np.testing.assert_allclose(converted, expected, atol=0.01)
    middle = slice(round(1.1 * rate), round(1.4 * rate))
    assert not converted[middle].any()
    in_memory = [convert.convert_audio(louder, sound, rate) for sound in (audio, audio + offset)]
    np.testing.assert_allclose(*in_memory, atol=0.01)


@pytest.mark.parametrize(
    "rate", [1000, 8000, 16000, 22050, 32000, 44100, 48000, 96000, 192000, 11111]
)
def test_any_rate_comes_back_at_full_length(rate):
    for length in (0, 1, 2, 777, rate + 1):
        assert convert.convert_audio(identity, noise(length, 2), rate).shape == (length, 2)
    audio = (
        music(2 * rate, rate)
        if rate > 4000
        else np.sin(np.arange(2 * rate) * 0.3).astype(np.float32) * 0.1
    )
    converted = convert.convert_audio(identity, audio, rate)
    middle = slice(rate // 4, -rate // 4)
    assert np.abs(converted - audio)[middle].max() < 2e-3 * np.abs(audio).max()


@pytest.mark.parametrize("hops", convert.HOPS)
@pytest.mark.parametrize("name", phase.ESTIMATORS)
@pytest.mark.parametrize("length", [0, 1, 5000])
def test_every_phase_keeps_length_and_channels(name, length, hops):
    options = Options(phase=name, phase_iterations=2, hops=hops)
    converted = convert.convert_audio(identity, noise(length, 3), data.SAMPLE_RATE, options)
    assert converted.shape == (length, 3)
    assert np.isfinite(converted).all()


@settings(max_examples=20)
@given(
    st.integers(1, 900),
    st.integers(1, 5),
    st.floats(0, 0.95),
    st.sampled_from([identity, uneven, smear]),
)
def test_blending_equals_the_slow_sum_over_tiles(frames, batch_size, overlap, network):
    picture = np.random.default_rng(frames).random((256, frames), dtype=np.float32)
    stride = max(1, round(256 * (1 - overlap)))
    total, weight = np.zeros((256, frames + 512)), np.zeros(frames + 512)
    for start in range(0, max(1, frames - 256 + stride), stride):
        tile = np.zeros((256, 256), np.float32)
        tile[:, : max(0, frames - start)] = picture[:, start : start + 256]
        output = data.from_network(network(data.to_network(tile)[np.newaxis, ..., np.newaxis]))[
            0, ..., 0
        ]
        total[:, start : start + 256] += output * convert.tile_weights()
        weight[start : start + 256] += convert.tile_weights()
    options = Options(overlap=overlap, batch_size=batch_size)
    converted = convert.convert_picture(network, picture, options)[..., 0]
    assert converted.shape == picture.shape
    np.testing.assert_allclose(converted, (total / np.maximum(weight, 1e-9))[:, :frames], atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.9])
def test_edges_count_fully(overlap):
    picture = np.full((256, 700), 0.25, np.float32)
    options = Options(overlap=overlap)
    converted = convert.convert_picture(lambda tiles: np.full_like(tiles, 0.5), picture, options)
    np.testing.assert_allclose(converted, 0.75, atol=1e-6)


def test_weights_favour_the_middle():
    weights = convert.tile_weights()
    assert weights.shape == (256,)
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (np.diff(weights[:128]) > 0).all()
    assert weights.min() > 0


def shift_error(shift, overlap):
    """RMS of the change that ``shift`` samples of silence in front make, relative to the output."""
    audio = music(3 * TILE)
    options = Options(overlap=overlap)
    plain = convert.convert_audio(smear, audio, data.SAMPLE_RATE, options)
    later = np.concatenate([np.zeros(shift, np.float32), audio])
    moved = convert.convert_audio(smear, later, data.SAMPLE_RATE, options)
    inner = slice(
        TILE // 2, -TILE // 2
    )  # the first and last half tile have no second tile to blend with
    return np.linalg.norm((moved[shift:] - plain)[inner]) / np.linalg.norm(plain[inner])


@pytest.mark.parametrize("shift", [TILE // 2, TILE // 4, 77 * data.HOP_LENGTH])
def test_shifting_the_recording_hardly_changes_the_output(shift):
    assert shift_error(shift, convert.OVERLAP) < SHIFT_TOLERANCE < shift_error(shift, overlap=0)


@pytest.mark.parametrize("bins, batch_size, tiles", [(256, 4, 4), (512, 4, 2), (512, 1, 1)])
def test_the_network_always_gets_one_batch_size(bins, batch_size, tiles):
    """Memory is what limits it, so taller tiles come fewer at a time."""
    shapes = set()

    def network(tiles):
        shapes.add((tiles.shape, tiles.dtype.name, tiles.min() >= -1 and tiles.max() <= 1))
        return tiles

    network.bins = bins
    audio = 30 * noise(3 * TILE, 2)
    convert.convert_audio(network, audio, data.SAMPLE_RATE, Options(batch_size=batch_size))
    assert shapes == {((tiles, bins, 256, 1), "float32", True)}


def test_a_stream_is_computed_one_block_ahead_in_another_thread():
    begun = []

    def work():
        for k in range(4):
            begun.append((k, threading.get_ident()))
            yield np.full(3, k)

    stream = convert.ahead(work())
    first = next(stream)
    for _ in range(1000):  # the thread may need a moment
        if len(begun) > 1:
            break
        time.sleep(0.01)
    assert [k for k, _ in begun] == [0, 1]  # and no further
    assert [block[0] for block in [first, *stream]] == [0, 1, 2, 3]
    threads = {thread for _, thread in begun}
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_what_fails_ahead_is_told_in_its_turn():
    def work():
        yield np.zeros(1)
        raise ValueError("damaged")

    stream = convert.ahead(work())
    next(stream)
    with pytest.raises(ValueError, match="damaged"):
        next(stream)


HEADER = '{"samplerate": 44100, "channels": 1, "bits": 16}'
HANGING = f"""
import struct, sys, time
sys.stdout.buffer.write(struct.pack("<cI", b"J", {len(HEADER)}) + b'{HEADER}')
sys.stdout.flush()
time.sleep(1000)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_does_not_wait_for_a_decoder_that_hangs(tmp_path, monkeypatch):
    source = write(tmp_path / "song.mp3", tone())
    is_reading = threading.Event()
    gave_up = []  # the decoder's patience: Ctrl-C came to nothing until then
    read = recordings._DecodedSound._read

    def note_and_read(sound, size):
        is_reading.set()
        return read(sound, size)

    def press_ctrl_c():
        is_reading.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def give_up(sound):
        gave_up.append(sound)
        sound._process.kill()

    monkeypatch.setattr(recordings, "_DECODER", HANGING)
    monkeypatch.setattr(recordings, "PATIENCE", 60)
    monkeypatch.setattr(recordings._DecodedSound, "_read", note_and_read)
    monkeypatch.setattr(recordings._DecodedSound, "_give_up", give_up)
    survey = Survey(0.0, 2.0, -20.0, "", -20.0, (0.0,))
    threading.Thread(target=press_ctrl_c).start()
    with pytest.raises(KeyboardInterrupt):
        convert.convert_file(identity, source, tmp_path / "out.wav", survey=survey)
    assert gave_up == []
    assert [path.name for path in tmp_path.iterdir()] == ["song.mp3"]


def test_a_recording_is_closed_after_the_block_that_is_read(tmp_path, monkeypatch):
    """libsndfile crashes otherwise."""
    source = write(tmp_path / "song.wav", tone())
    is_reading, may_end = threading.Event(), threading.Event()
    with recordings.open_sound(source) as sound:
        file = sound._file
        read = file.read

        def wait_and_read(size, **options):
            is_reading.set()
            may_end.wait()
            assert not file.closed
            return read(size, **options)

        monkeypatch.setattr(file, "read", wait_and_read)
        with ThreadPoolExecutor() as threads:
            block = threads.submit(sound.read, 1000)
            is_reading.wait()
            threads.submit(sound.close)
            may_end.set()
            assert block.result().shape == (1, 1000)


def test_silence_stays_silence():
    options = Options("griffinlim_random")
    assert not convert.convert_audio(louder, np.zeros((TILE, 2)), data.SAMPLE_RATE, options).any()
    audio = np.concatenate([np.zeros(TILE), music(TILE), np.zeros(TILE)])
    converted = convert.convert_audio(louder, audio, data.SAMPLE_RATE)
    assert np.abs(converted[TILE : 2 * TILE]).max() > 0.1
    assert not converted[: TILE - data.N_FFT].any()
    assert not converted[2 * TILE + data.N_FFT :].any()


@pytest.mark.parametrize("hops", convert.HOPS)
@pytest.mark.parametrize("name", phase.ESTIMATORS)
def test_the_streams_blocks_do_not_show(name, hops, monkeypatch):
    audio = music(TILE + TILE // 2 + 99)[np.newaxis]
    options = Options(phase=name, phase_iterations=3, overlap=0.4, hops=hops)
    stream = convert.convert_stream(uneven, [audio], 48000, options=options)
    whole = np.concatenate(list(stream), axis=1)
    monkeypatch.setattr(data, "BLOCK_FRAMES", 50)
    blocks = [audio[:, start : start + 7001] for start in range(0, audio.shape[1], 7001)]
    options = options._replace(batch_size=1)
    streamed = list(convert.convert_stream(uneven, blocks, 48000, options=options))
    assert len(streamed) > 6
    np.testing.assert_allclose(np.concatenate(streamed, axis=1), whole, atol=1e-4)


def test_memory_does_not_grow_with_length(monkeypatch):
    monkeypatch.setattr(data, "BLOCK_FRAMES", 64)

    def peak(tiles, hops):
        blocks = (noise(2, TILE) for _ in range(tiles))
        options = Options("griffinlim", phase_iterations=1, batch_size=2, hops=hops)
        tracemalloc.start()
        for _ in convert.convert_stream(identity, blocks, 48000, options=options):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1, 1)  # what is allocated once
    assert peak(20, 1) < 1.15 * peak(7, 1)
    assert peak(9, 4) < 1.15 * peak(4, 4)


def test_phase_estimators_see_the_networks_magnitude():
    audio = music(TILE)
    converted = convert.convert_audio(uneven, audio, data.SAMPLE_RATE, Options("griffinlim"))
    wanted = convert.convert_picture(uneven, data.spectrogram(audio))[..., 0]
    error = {
        name: np.abs(data.spectrogram(sound) - wanted)[:, 1:-1].mean()
        for name, sound in (("converted", converted), ("untouched", audio))
    }
    assert error["converted"] < error["untouched"] / 3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        convert.convert_audio(identity, np.array([0, np.nan]), data.SAMPLE_RATE)
    with pytest.raises(KeyError):
        convert.convert_audio(identity, np.zeros(9), data.SAMPLE_RATE, Options("none"))


@pytest.mark.parametrize("hops", convert.HOPS)
def test_finer_hops_are_the_network_on_the_audio_moved(hops):
    """Picture j of the interleaved ones is what the network makes of the audio j / hops later."""
    audio = music(TILE + 5000)
    moved = []
    for j in range(hops):
        lead = data.N_FFT - (j + 1) * data.HOP_LENGTH // hops
        padded = np.concatenate([np.zeros(lead, np.float32), audio, np.zeros(4096, np.float32)])
        spectrum = data.stft_frames(padded)
        moved.append(convert.convert_picture(uneven, convert.spectrum_to_db(spectrum).T))
    fine = np.concatenate(
        list(data.stft_stream([audio[np.newaxis]], data.HOP_LENGTH // hops)), axis=1
    )
    picture = convert.spectrum_to_db(fine)[0].T
    interleaved = convert.convert_picture(uneven, picture, Options(hops=hops))
    assert interleaved.shape == (256, picture.shape[1], 1)
    for j in range(hops):
        count = interleaved[:, j::hops].shape[1]
        np.testing.assert_allclose(interleaved[:, j::hops], moved[j][:, :count], atol=1e-4)


def test_splitting_and_joining_hops_are_inverse():
    frames = noise(3, 11, 256, 2)
    rows = convert.split_hops(frames, 4)
    assert rows.shape == (12, 3, 256, 2)
    np.testing.assert_array_equal(rows[5, 1], frames[1, 5])
    joined = convert.join_hops(rows, 4)
    np.testing.assert_array_equal(joined[:, :11], frames)
    assert not joined[:, 11:].any()


@pytest.mark.parametrize("seconds", [0.4, 1.23, 6])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_pyloudnorms(seconds, channels):
    samples = int(seconds * data.SAMPLE_RATE)
    audio = np.stack([music(samples, seed=seed) for seed in range(channels)])
    audio *= np.linspace(0, 1, samples)  # so that the gates have something to do
    meter = loudness.Meter()
    for start in range(0, samples, 30011):
        meter.add(audio[:, start : start + 30011])
    expected = pyloudnorm.Meter(data.SAMPLE_RATE).integrated_loudness(audio.T)
    assert meter.integrated() == pytest.approx(expected, abs=0.1)


def test_loudness_of_silence_and_of_the_shortest_sounds():
    meter = loudness.Meter()
    assert meter.integrated() == -np.inf
    meter.add(np.zeros((2, 100_000), np.float32))
    assert meter.integrated() == -np.inf
    short, long = loudness.Meter(), loudness.Meter()
    tone = np.sin(np.arange(data.SAMPLE_RATE) * 0.15).astype(np.float32)[np.newaxis]
    short.add(tone[:, :5000])
    long.add(tone)
    assert short.integrated() == pytest.approx(long.integrated(), abs=0.5)


def test_the_meter_hands_the_stream_through():
    blocks = [noise(1, 5000), noise(1, 3)]
    meter = loudness.Meter()
    assert all(a is b for a, b in zip(blocks, meter.watch(iter(blocks)), strict=True))
    assert np.isfinite(meter.integrated())


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("level", convert.LEVELS)
def test_a_mix_holds_both_in_their_shares(tmp_path, rate, level):
    """Either alone, and their sum: the conversion as loud as it would be alone."""
    source = write(tmp_path / "in.wav", music(3 * rate, rate), rate)
    target = tmp_path / "out.wav"

    def run(mix, model=identity):
        output = convert.Output(bits="float", level=level, mix=mix)
        convert.convert_file(model, source, target, output=output)
        return soundfile.read(target)[0]

    original = soundfile.read(source)[0]
    wet = run(1.0)
    np.testing.assert_allclose(run(0.0), original, atol=1e-3)
    mixed = run(0.25)
    assert len(mixed) == len(original)
    expected = 0.25 * wet + 0.75 * original
    gain = (mixed @ expected) / (expected @ expected)  # "match" makes the mix as loud as the input
    assert gain == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(mixed, gain * expected, atol=2e-3)


def test_a_transposed_conversion_is_an_octave_higher_and_as_long(tmp_path):
    source = write(tmp_path / "in.wav", tone(440, 3.017, 48000), 48000)
    target = tmp_path / "out.wav"
    convert.convert_file(identity, source, target, convert.Options(transpose=12))
    moved, rate = soundfile.read(target)
    assert (len(moved), rate) == (round(3.017 * 48000), 48000)
    middle = moved[rate : 2 * rate] * np.hanning(rate)
    assert np.abs(np.fft.rfft(middle)).argmax() == pytest.approx(880, abs=2)
