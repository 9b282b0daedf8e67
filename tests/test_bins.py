"""The height of pictures: 256 bins, or 512 for the full band, from features to a converted file."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import ORIGIN, TARGET
from scripts import error_lines
from sounds import identity, music, noise, tone, write

import compute_features
import data
import models
import predict
import train_generator
from common import dataset, devices, kinds
from common.cli import UserError
from conversion import convert, model_files, packed_weights
from measuring import rows as measured_rows
from report import pictures
from research.learned_phase import PHASE
from sound import phase, survey
from sound.augment import BLEND, Conditions
from sound.recordings import read_audio

FULL = data.FULL_BINS
FULL_PARAMETERS = {**data.FEATURE_PARAMETERS, "bins": FULL}
FLAGS = ("--origin", ORIGIN, "--target", TARGET, "--filters", "1", "--batch_size", "2")


def bright(samples=5 * data.SAMPLE_RATE, seed=0):
    """Music, and noise over the whole band up to the Nyquist frequency."""
    return music(samples, seed=seed) + noise(samples, seed=seed) / 20


@pytest.fixture(scope="module")
def bright_audios(tmp_path_factory):
    """<audios>/<instrument>/<piece>.wav: four pieces of two tiles that fill the band."""
    folder = tmp_path_factory.mktemp("bright")
    for number, piece in enumerate(("one", "two", "three", "four")):
        sound = bright(seed=number)
        write(folder / ORIGIN / f"{piece}.wav", sound)
        write(folder / TARGET / f"{piece}.wav", sound / 2)
    return folder


@pytest.fixture(scope="module")
def full_features(bright_audios, tmp_path_factory):
    """Features of 512 bins, which compute_features.py chooses by itself."""
    folder = tmp_path_factory.mktemp("full")
    flags = "--audios", str(bright_audios), "--features", str(folder), "--workers", "1"
    assert compute_features.main(flags) == 0
    return folder


@pytest.fixture(scope="module")
def full_run(full_features, tmp_path_factory):
    """A run of one short epoch on them."""
    runs = tmp_path_factory.mktemp("runs")
    flags = "--dataset_path", str(full_features), "--runs_path", str(runs), "--gpu", "cpu"
    epoch = "--epochs", "1", "--epoch_tiles", "2", "--name", "full"
    train_generator.main([*flags, *FLAGS, *epoch])
    return runs / "full"


# The signal side


def test_full_band_keeps_all_but_the_nyquist_frequency():
    assert data.HEIGHTS == (256, 512)
    assert [data.band_edge(bins) for bins in data.HEIGHTS] == [11025, 22050]
    audio = noise(8 * data.N_FFT)
    frames = data.stft_frames(audio, bins=FULL)
    np.testing.assert_array_equal(frames[:, : data.BINS], data.stft_frames(audio))
    np.testing.assert_array_equal(
        data.spectrogram(audio, FULL)[: data.BINS], data.spectrogram(audio)
    )
    assert data.magnitude(data.stft(audio), FULL).shape == (FULL, 17)


@pytest.mark.parametrize("hop_length", [512, 256, 128])
def test_round_trip_in_the_full_band(hop_length):
    audio = np.stack([tone(15000, 0.7), tone(440, 0.7)])
    audio *= np.sin(np.linspace(0, np.pi, audio.shape[1], dtype=np.float32)) ** 2  # no click
    spectra = list(data.stft_stream([audio], hop_length, FULL))
    again = np.concatenate(list(convert.istft_stream(spectra, hop_length)), axis=1)
    np.testing.assert_allclose(again[:, : audio.shape[1]], audio, atol=2e-5)


def test_the_nyquist_frequency_is_silent():
    frames = data.stft_frames(noise(8 * data.N_FFT), bins=FULL + 1)
    silent = frames.copy()
    silent[:, FULL] = 0
    again = data.istft_frames(frames[:, :FULL])
    np.testing.assert_array_equal(again, data.istft_frames(silent))
    assert np.abs(again - data.istft_frames(frames)).max() > 1e-3


@pytest.mark.parametrize("name", phase.ESTIMATORS)
def test_phases_in_the_full_band(name):
    audio = bright(30 * data.HOP_LENGTH)
    spectrum = data.stft_frames(audio, bins=FULL).T
    mag = np.abs(spectrum)
    unit = phase.ESTIMATORS[name](mag, spectrum, iterations=2)
    assert unit.shape == (FULL, spectrum.shape[1])
    np.testing.assert_allclose(np.abs(unit), 1, atol=1e-5)
    if "griffinlim" in name and "random" not in name:  # the input's own phase already fits
        inner = np.s_[:, 8:-8]
        np.testing.assert_allclose((mag * unit)[inner], spectrum[inner], atol=1e-3)


def test_conversion_keeps_what_the_model_knows():
    audio = tone(15000)

    def full(tiles):
        assert tiles.shape[1:] == (FULL, data.TILE_FRAMES, 1)
        return tiles

    full.bins = FULL
    assert np.abs(convert.convert_audio(identity, audio, 44100)[4000:-4000]).max() < 1e-3
    kept = convert.convert_audio(full, audio, 44100, convert.Options("griffinlim_anchored", hops=2))
    np.testing.assert_allclose(kept, audio, atol=3e-3)


@pytest.mark.parametrize("bins", data.HEIGHTS)
def test_conditions_take_any_height(bins):
    tile = np.full((bins, 256), 0.4, np.float32)
    conditions = Conditions((BLEND, *Conditions().names, "detune"), probability=1)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for picture in conditions(tile, tile, rng, tile / 2):
            assert picture.shape == (bins, 256)
            assert np.isfinite(picture).all()


# Step 2


def test_height_follows_from_the_sound(full_features, features, capsys, bright_audios, tmp_path):
    for folder, bins in ((full_features, FULL), (features, data.BINS)):
        description = json.loads((folder / "features.json").read_text())
        assert description["parameters"] == {**data.FEATURE_PARAMETERS, "bins": bins}
        path = next(folder.glob(f"{ORIGIN}/**/*.npy"))
        assert dataset.Tiles(path).bins == bins
    flags = "--audios", str(bright_audios), "--features", str(tmp_path), "--workers", "1"
    capsys.readouterr()
    compute_features.main([*flags, "--bins", "256"])
    assert "pictures of" not in capsys.readouterr().out  # it was asked for
    compute_features.main(flags)  # keeps what is there, though the sound has more
    assert "0 files computed, 8 up to date" in capsys.readouterr().out
    assert compute_features.main([*flags, "--bins", "512"]) == 2
    assert error_lines(capsys.readouterr().err) == [
        f"compute_features.py: error: {tmp_path}/features.json: made with other parameters (bins); "
        "give another --features"
    ]
    compute_features.main([*flags, "--fresh"])
    assert "pictures of 512 bins: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "sound, full",
    [
        (bright(), True),
        (tone(440) + tone(15000, level=0.004), True),  # -40 dB
        (tone(440) + tone(15000, level=0.0004), False),  # -60 dB
        (music(2 * 44100 - 99), False),  # it is cut off, which clicks
        (np.zeros(44100), False),
        (np.zeros(0), False),
    ],
)
def test_what_counts_as_treble(sound, full):
    assert survey.has_treble(data.spectrogram(sound, FULL)) is full


def test_notes_at_16_khz_hold_no_treble(tmp_path):
    sound = music(32000, 16000) + noise(32000)
    path = write(tmp_path / "a.wav", np.clip(sound, -1, 1), 16000)
    part = survey.read_part(path, 0.5, 1.25)
    assert len(part) == 1.25 * data.SAMPLE_RATE
    assert not survey.has_treble(data.spectrogram(part, FULL))


def test_tiles_of_one_height(tmp_path):
    for name, bins in (("low", 256), ("high", 512)):
        for instrument in (ORIGIN, TARGET):
            (tmp_path / instrument).mkdir(exist_ok=True)
            tiles = np.zeros((1, bins, 256, 1), np.float16)
            np.save(tmp_path / instrument / f"{name}.npy", tiles)
    with pytest.raises(UserError, match=r"has tiles of 512 bins, .* of 256; "):
        dataset.TilePairs(tmp_path, [ORIGIN], TARGET, ["low", "high"], dataset.Batching(1))


# Models


def test_a_model_tells_its_height(tmp_path):
    generator = models.build_generator(1, bins=FULL)
    assert generator.output_shape == (None, FULL, 256, 1)
    whole = tmp_path / "whole.weights.h5"
    for path in (tmp_path / "a.keras", whole):
        model_files.save_generator(generator, path)
    packed_weights.pack(whole, tmp_path / "packed.weights.h5")
    generator.save(tmp_path / "plain.keras")  # Keras's own file, without what we add
    for name in ("a.keras", "whole.weights.h5", "packed.weights.h5", "plain.keras"):
        loaded = model_files.load_generator(tmp_path / name)
        assert (loaded.bins, loaded.input_shape[1]) == (FULL, FULL)
    generator.save_weights(tmp_path / "old.weights.h5")  # of a time when all were 256 high
    assert model_files.load_generator(tmp_path / "old.weights.h5").bins == data.BINS


def test_a_height_that_there_is_not(tmp_path):
    path = tmp_path / "a.keras"
    models.build_generator(1).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        entry = {**kinds.PLAIN.to_entry(), "bins": 300}
        archive.writestr(kinds.ENTRY, json.dumps(entry))
    with pytest.raises(UserError, match="300 bins"):
        model_files.load_generator(path)


def test_the_weights_are_the_same_for_any_height():
    low, high = models.build_generator(2), models.build_generator(2, bins=FULL)
    high.set_weights(low.get_weights())
    rng = np.random.default_rng(0)
    tile = rng.uniform(-1, 1, (1, FULL, 256, 1)).astype(np.float32)
    assert high.predict_on_batch(tile).shape == tile.shape
    judge = models.build_discriminator(2, bins=FULL)
    assert judge.predict_on_batch([tile, tile]).shape == (1, 32, 16, 1)


# Step 3 to 5


def test_full_band_end_to_end(full_run, full_features, bright_audios, tmp_path, capsys):
    config = json.loads((full_run / "config.json").read_text())
    assert config["bins"] == FULL
    assert np.load(full_run / "median.npy").shape == (FULL,)
    model = model_files.load_generator(full_run)
    assert model.bins == FULL
    source = bright_audios / ORIGIN / "one.wav"
    output = tmp_path / "out.wav"
    flags = "--model", str(full_run), "--input", str(source), "--output", str(output)
    assert predict.main([*flags, "--gpu", "cpu"]) == 0
    audio = read_audio(output)
    assert len(audio) == len(read_audio(source))
    mag = data.magnitude(data.stft(audio), FULL)
    assert mag[400:].sum() > 0.05 * mag.sum()  # a network that has not learned fills all


def test_a_run_keeps_its_height(full_run, bright_audios, tmp_path, capsys):
    folder = tmp_path / "features"
    flags = "--audios", str(bright_audios), "--features", str(folder), "--workers", "1"
    compute_features.main([*flags, "--bins", "256"])
    capsys.readouterr()
    assert train_generator.main(["--dataset_path", str(folder), "--resume", str(full_run)]) == 2
    assert error_lines(capsys.readouterr().err)[-1] == (
        f"train_generator.py: error: {full_run}: was trained on pictures of 512 bins, but these "
        f"have 256; give --name for another run, and --weights {full_run} to begin with its "
        "generator"
    )


def test_a_low_model_begins_a_full_one(full_features, tmp_path):
    low = models.build_generator(1)
    model_files.save_generator(low, tmp_path / "low.keras")
    flags = "--dataset_path", str(full_features), "--runs_path", str(tmp_path), "--gpu", "cpu"
    start = "--weights", str(tmp_path / "low.keras"), "--lr", "1e-9", "--name", "begun"
    assert not train_generator.main([*flags, *FLAGS, *start, "--epochs", "1"])
    begun = model_files.load_generator(tmp_path / "begun")
    assert begun.bins == FULL
    for old, new in zip(low.trainable_weights, begun.trainable_weights):
        np.testing.assert_allclose(old, new, atol=1e-5)


def test_models_of_both_heights_are_compared_in_the_full_band():
    def full(tiles):
        return tiles

    full.bins = FULL
    audio = tone(15000) + tone(440)
    settings = measured_rows.Settings(["input"], convert.Options(batch_size=2))
    rows = {}
    systems = measured_rows.Systems({"low": identity, "full": full}, None, settings)
    for row in measured_rows.make_rows(systems, audio, audio):
        assert len(row.asked) == FULL
        rows[row.name] = row
    target = measured_rows.MeasuredSound(audio, FULL)
    errors = {name: measured_rows.measure(row, target)["mae_db"] for name, row in rows.items()}
    assert errors["full (phase: input)"] < 0.01
    assert errors["low (phase: input)"] > 0.1  # silence above 11 kHz is told as an error
    np.testing.assert_array_equal(rows["low (phase: input)"].asked[data.BINS :], 0)
    systems = measured_rows.Systems({"low": identity}, None, settings)
    alone = measured_rows.make_rows(systems, audio, audio)
    assert {len(row.asked) for row in alone} == {data.BINS}


def test_pictures_show_the_treble_that_there_is():
    dull, treble = music(44100), bright(44100)
    assert {len(p) for p in pictures.make_pictures({"a": dull, "b": dull}).values()} == {256}
    assert {len(p) for p in pictures.make_pictures({"a": dull, "b": treble}).values()} == {512}
    stereo = np.stack([treble, treble], axis=1)
    assert len(pictures.make_pictures({"a": stereo})["a"]) == 512


def test_axes_reach_as_far_as_the_picture(tmp_path):
    from matplotlib.figure import Figure

    for bins, top, last in ((256, 11.025, 8), (512, 22.05, 16)):
        axis = Figure().add_subplot()
        pictures.draw_picture(axis, np.zeros((bins, 9)))
        assert axis.get_ylim() == (0, top)
        pictures.draw_mel(axis, np.zeros((bins, 9)))
        assert axis.get_yticklabels()[-1].get_text() == str(last)
    pictures.write_card_picture(np.zeros((512, 9)), tmp_path / "a.png")


def test_the_full_band_is_converted_in_bfloat16_where_the_processor_has_it(tmp_path, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends compute in float32")
    rng = np.random.default_rng(0)
    for bins in data.HEIGHTS:
        path = tmp_path / f"{bins}.keras"
        model_files.save_generator(models.build_generator(4, bins=bins), path)
        tile = rng.uniform(-1, 1, (1, bins, 256, 1)).astype(np.float32)
        monkeypatch.setattr(devices, "_bfloat16_is_faster", lambda: False)
        exact = model_files.load_generator(path, "auto").predict_on_batch(tile)
        monkeypatch.setattr(devices, "_bfloat16_is_faster", lambda: True)
        network = model_files.load_generator(path, "auto")
        assert keras.config.dtype_policy().name == "float32"
        found = network.predict_on_batch(tile)
        assert found.dtype == np.float32
        full = bins == FULL
        assert np.array_equal(found, exact) is not full  # others give the same bits as ever
        np.testing.assert_allclose(found, exact, atol=0.02)
        np.testing.assert_array_equal(
            model_files.load_generator(path, "float32").predict_on_batch(tile), exact
        )
        plain = model_files.load_generator(path)  # what is trained on is never rounded
        assert {layer.compute_dtype for layer in plain._flatten_layers()} == {"float32"}


def fill_memory():
    """Leave NaN in memory that the next arrays get."""
    for size in (1 << power for power in range(6, 21)):
        held = [np.full(size, np.nan, np.float32) for _ in range(32)]
        del held


def both_precisions():
    """The shipped guitar in float32, and in bfloat16 as it is trained."""
    exact = model_files.load_generator("many_2_guitar", "float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        rounded = models.build_generator(models.width_of(exact), bins=FULL)
    finally:
        keras.config.set_dtype_policy("float32")
    rounded.set_weights(exact.get_weights())
    return exact, rounded


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's convolutions")
def test_in_bfloat16_a_network_never_reads_memory_that_nobody_wrote():
    """With AMX it did: an error of 0.0203 instead of 0.0012, another in each process, or NaN."""
    tiles = np.random.default_rng(0).uniform(-1, 1, (4, FULL, 256, 1)).astype(np.float32)
    exact, rounded = both_precisions()
    expected = exact.predict_on_batch(tiles)
    for network in (rounded, models.fold_norms(rounded)):
        for _ in range(3):
            fill_memory()
            assert np.abs(network.predict_on_batch(tiles) - expected).mean() < 0.005


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's convolutions")
def test_in_bfloat16_gradients_are_those_of_float32():
    import tensorflow as tf

    tiles = np.random.default_rng(0).uniform(-1, 1, (4, FULL, 256, 1)).astype(np.float32)

    @tf.function
    def find_gradients(network):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(tiles, training=False) ** 2)
        return tape.gradient(loss, network.trainable_variables)

    exact, rounded = both_precisions()
    expected = find_gradients(exact)
    for _ in range(3):
        fill_memory()
        for found, wanted in zip(find_gradients(rounded), expected):
            assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", [kinds.PLAIN, PHASE])
def test_a_folded_network_computes_the_same(kind):
    generator = models.build_generator(2, kind)
    rng = np.random.default_rng(0)
    for weight in generator.weights:
        drawn = rng.uniform(0.5, 1.5, weight.shape)  # of norms; kernels are of either sign
        weight.assign(drawn if len(weight.shape) == 1 else rng.normal(0, 0.1, weight.shape))
    folded = models.fold_norms(generator)
    assert (folded.kind, folded.bins) == (kind, data.BINS)
    tiles = rng.uniform(-1, 1, (2, 256, 256, kind.inputs)).astype(np.float32)
    expected = generator.predict_on_batch(tiles)
    np.testing.assert_allclose(folded.predict_on_batch(tiles), expected, atol=1e-3)
    assert len(folded.weights) < len(generator.weights)
    assert expected.std() > 1e-3
