import errno
import hashlib
import itertools
import json
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import losses
import models
from common import kinds
from common.cli import UserError
from common.run_facts import RunFacts
from conversion import known_models, model_files
from research import registry
from research.learned_phase import BOTH, PHASE

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="uses tf.GradientTape"
)


def tiles(n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 256, 256, 1)).astype(np.float32)


def test_sizes_at_width_64():
    generator, discriminator = models.build_generator(), models.build_discriminator()
    assert generator.count_params() == 54_419_713
    assert discriminator.count_params() == 2_766_337
    assert len(generator.layers) == 18
    assert discriminator.output_shape == (None, 16, 16, 1)


def test_losses_known_answers():
    logits = np.array([[-2.0, 0.0, 3.0], [1.0, 2.0, -4.0]], np.float32)
    sigmoid = 1 / (1 + np.exp(-logits))
    found = ops.convert_to_numpy(losses.adversarial_loss(logits, True))
    np.testing.assert_allclose(found, -np.log(sigmoid).mean(axis=1), rtol=1e-5)
    found = ops.convert_to_numpy(losses.adversarial_loss(logits, False))
    np.testing.assert_allclose(found, -np.log(1 - sigmoid).mean(axis=1), rtol=1e-5)
    zeros = np.zeros((4, 2, 2, 1), np.float32)
    found = ops.convert_to_numpy(losses.discriminator_loss(zeros, zeros))
    np.testing.assert_allclose(found, [2 * np.log(2)] * 4, rtol=1e-6)


def test_errors_known_answers():
    x = np.zeros((2, 4, 4, 3), np.float32)
    y = np.ones((2, 4, 4, 3), np.float32)
    y[1, ..., 1:] = 4  # a phase beside the picture
    np.testing.assert_array_equal(ops.convert_to_numpy(losses.l1_loss(x, y)), [1, 3])
    found = ops.convert_to_numpy(losses.mae_db(x, y))
    np.testing.assert_allclose(found, [96.3297 / 2, 3 * 96.3297 / 2], rtol=1e-5)
    found = ops.convert_to_numpy(losses.picture_mae_db(x, y))
    np.testing.assert_allclose(found, [96.3297 / 2] * 2, rtol=1e-5)


def test_error_of_the_change_from_frame_to_frame_known_answers():
    """An onset of 0.5 that is missed weighs 1 + 4; a change of 0.05 that is missed, 1."""
    steps = [[0.0, 0.5, 0.5], [0.0, 0.05, 0.05], [0.0, 0.0, 0.0]]
    x = np.array(steps, np.float32)[:, np.newaxis, :, np.newaxis]  # one bin, three frames
    flat = np.zeros_like(x)
    found = ops.convert_to_numpy(losses.delta_loss(x, flat))
    np.testing.assert_allclose(found, [5 * 0.5 / 2, 0.05 / 2, 0], rtol=1e-6)
    found = ops.convert_to_numpy(losses.delta_loss(x, x + 0.3))
    np.testing.assert_allclose(found, [0, 0, 0], atol=1e-6)  # the level is L1's
    found = ops.convert_to_numpy(losses.delta_loss(flat, x))  # of the target an onset
    np.testing.assert_allclose(found, [0.5 / 2, 0.05 / 2, 0], rtol=1e-6)
    found = ops.convert_to_numpy(losses.l1_and_delta_loss(2)(x, flat))
    np.testing.assert_allclose(found, [1 / 3 + 2.5, 0.1 / 3 + 0.05, 0], rtol=1e-6)


def test_a_mean_over_no_samples_is_0():
    assert float(losses.mean_of_batch(ops.zeros((0,)))) == 0
    assert float(losses.mean_of_batch(ops.convert_to_tensor([1.0, 2.0]))) == 1.5


@tensorflow_only
def test_joint_gradients_equal_those_of_two_tapes():
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = models.Pix2Pix(models.build_generator(4), models.build_discriminator(4))
    generator, discriminator = model.generator, model.discriminator
    x, y = (ops.convert_to_tensor(tiles(2, seed)) for seed in (0, 1))
    dropouts = [
        layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)
    ]
    assert len(dropouts) == models.DROPOUT_BLOCKS

    def reseed():
        for i, layer in enumerate(dropouts):
            layer.seed_generator.state.assign(np.array([i, 7], np.uint32))

    reseed()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), training=True)
    joint = tape.gradient(loss, [v.value for v in model.trainable_variables])

    reseed()
    with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
        output = generator(x, training=True)
        generated = discriminator([x, output], training=True)
        generator_loss = ops.mean(
            losses.adversarial_loss(generated, True) + 100 * losses.l1_loss(y, output)
        )
        discriminator_loss = ops.mean(
            losses.discriminator_loss(discriminator([x, y], training=True), generated)
        )
    separate = generator_tape.gradient(
        generator_loss, [v.value for v in generator.trainable_variables]
    )
    separate += discriminator_tape.gradient(
        discriminator_loss, [v.value for v in discriminator.trainable_variables]
    )

    assert len(joint) == len(separate) == 57
    assert all(float(ops.max(ops.abs(g))) > 0 for g in joint[:5])
    for ours, theirs in zip(joint, separate):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    assert float(loss) == pytest.approx(float(generator_loss + discriminator_loss), rel=1e-6)


def test_two_rates_equal_two_adams():
    values = [np.random.default_rng(i).normal(size=3).astype(np.float32) for i in range(2)]
    gradients = [
        ops.convert_to_tensor(np.random.default_rng(9 + i).normal(size=3).astype(np.float32))
        for i in range(2)
    ]
    together = [keras.Variable(v) for v in values]
    ours = models.TwoRateAdam(0.01, (1.0, 0.1), split=1)
    for _ in range(3):
        ours.apply(gradients, together)
    for value, gradient, rate, variable in zip(values, gradients, (0.01, 0.001), together):
        alone = keras.Variable(value)
        adam = keras.optimizers.Adam(rate, beta_1=0.5)
        for _ in range(3):
            adam.apply([gradient], [alone])
        np.testing.assert_allclose(
            ops.convert_to_numpy(variable), ops.convert_to_numpy(alone), rtol=1e-5
        )


def arrays(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_average_is_the_one_worked_out_by_hand(policy):
    """Of the weights that each step begins with, and of batch norm's statistics after it."""
    keras.utils.set_random_seed(4)  # by which all weights move, on one core and on two
    keras.config.set_dtype_policy(policy)
    try:
        networks = models.build_generator(1), models.build_discriminator(1)
        model = models.Pix2Pix(*networks, ema=0.6)
        models.compile_at_once(model, model.optimizer_for(1e-2))
    finally:
        keras.config.set_dtype_policy("float32")
    own = [
        weight.path.endswith(("moving_mean", "moving_variance")) for weight in networks[0].weights
    ]
    assert sum(own) == 28
    expected = 0
    for pace in (1, 2 / 3, 2 / 4, 2 / 5, 0.4):  # the last: 1 - ema, where 2 / 6 is less
        before = arrays(networks[0].weights)
        model.fit(tiles(2), -tiles(2), batch_size=2, shuffle=False, verbose=0)
        after = arrays(networks[0].weights)
        seen = [new if late else old for old, new, late in zip(before, after, own)]
        seen = np.array(seen, dtype=object)
        expected = expected + pace * (seen - expected)
    judging = arrays(networks[1].weights)
    with models.averaged(model):
        found = arrays(networks[0].weights)
        np.testing.assert_equal(arrays(networks[1].weights), judging)
    np.testing.assert_equal(arrays(networks[0].weights), after)
    for average, wanted, last in zip(found, expected, after):
        np.testing.assert_allclose(average, wanted, rtol=1e-4, atol=1e-6)
        assert np.abs(average - last).max() > 1e-5


def test_without_ema_nothing_is_kept():
    networks = models.build_generator(1), models.build_discriminator(1)
    model = models.Pix2Pix(*networks)
    assert len(model.weights) == len(networks[0].weights) + len(networks[1].weights)
    more = models.Pix2Pix(*networks, ema=0.5)
    assert len(more.weights) - len(model.weights) == len(networks[0].weights) + 1
    assert len(more.trainable_variables) == len(model.trainable_variables)


def test_fit_trains_both_networks():
    keras.utils.set_random_seed(0)
    model = models.Pix2Pix(models.build_generator(2), models.build_discriminator(2))
    models.compile_at_once(model, model.optimizer_for(1e-3, (1.0, 0.5)))
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    x = tiles(2)
    history = model.fit(x, -x, batch_size=2, epochs=4, verbose=0, shuffle=False).history
    assert set(history) == {"loss", "gan_loss", "disc_loss", "mae_db"}
    assert history["mae_db"][-1] < history["mae_db"][0]
    assert all(
        not np.array_equal(b, ops.convert_to_numpy(v))
        for b, v in zip(before, model.trainable_variables)
    )
    logs = model.evaluate(x, -x, verbose=0, return_dict=True)
    output = model.generator.predict(x, verbose=0)
    assert logs["mae_db"] == pytest.approx(np.abs(output + x).mean() * 96.3297 / 2, rel=1e-4)


@pytest.mark.parametrize("alone", [True, False])
def test_the_loss_takes_in_the_changes_from_frame_to_frame(alone):
    keras.utils.set_random_seed(0)
    if alone:
        model = models.compiled_generator(1, 1e-3, delta_weight=2.0, dropout=0)
        known = {"loss", "mae_db"}
        weight = 1
    else:
        networks = models.build_generator(1, dropout=0), models.build_discriminator(1)
        model = models.Pix2Pix(*networks, l1_weight=30, delta_weight=2.0)
        models.compile_at_once(model, model.optimizer_for(1e-3))
        known = {"loss", "gan_loss", "disc_loss", "delta_loss", "mae_db"}
        weight = 30
    x, y = tiles(2), tiles(2, 1)
    output = model.predict(x, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(logs) == known
    delta = float(ops.mean(losses.delta_loss(y, output)))
    expected = weight * (np.abs(y - output).mean() + 2 * delta)
    rest = logs.get("gan_loss", 0) + logs.get("disc_loss", 0)
    assert logs["loss"] == pytest.approx(expected + rest, rel=1e-4)
    assert logs.get("delta_loss", delta) == pytest.approx(delta, rel=1e-4)


def test_a_loss_without_a_weight_is_an_error():
    model = models.Pix2Pix(models.build_generator(1), models.build_discriminator(1))
    x = ops.convert_to_tensor(tiles(1))
    model.compute_loss(x, x, x)
    del model.loss_weights["l1_loss"]
    with pytest.raises(KeyError, match="l1_loss"):  # and does not silently go without
        model.compute_loss(x, x, x)


@tensorflow_only
@pytest.mark.parametrize("alone", [True, False])
def test_a_step_is_traced_once(alone, monkeypatch):
    """A second time, because variables were made the first time, would take seconds."""
    if alone:
        model = models.compiled_generator(1, 1e-3)
    else:
        model = models.Pix2Pix(models.build_generator(1), models.build_discriminator(1))
        models.compile_at_once(model, model.optimizer_for(1e-3))
    traced = []
    train_step = model.train_step

    def count(data):
        traced.append(data)
        return train_step(data)

    monkeypatch.setattr(model, "train_step", count)
    model.fit(tiles(1), tiles(1, 1), epochs=2, verbose=0)
    assert len(traced) == 1


@pytest.mark.parametrize(
    "layout",
    [
        {"filters": 3, "dropout": 0},
        {"filters": 2, "kind": BOTH},
        {"filters": 1, "kind": PHASE},
    ],
)
def test_saved_generators_load_with_their_layout_and_kind(tmp_path, layout):
    generator = models.build_generator(**layout)
    run = tmp_path / "run"
    run.mkdir()
    model_files.save_generator(generator, run / "generator.keras")
    model_files.save_generator(generator, tmp_path / "x.weights.h5")
    generator.save(tmp_path / "older.keras")  # which tells no kind
    x = np.repeat(tiles(1), generator.input_shape[-1], axis=-1)
    expected = generator.predict_on_batch(x)
    for path in (run, tmp_path / "x.weights.h5", tmp_path / "older.keras"):
        loaded = model_files.load_generator(path)
        np.testing.assert_array_equal(loaded.predict_on_batch(x), expected)
        assert loaded.kind is layout.get("kind", kinds.PLAIN)


@pytest.mark.parametrize("kind", ["both", "colour"])
def test_a_stored_kind_has_to_fit(tmp_path, kind):
    generator = models.build_generator(1, PHASE)
    model_files.save_generator(generator, tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5", "a") as file:
        file.attrs[kinds.ENTRY] = json.dumps({"kind": kind, "style": "none"})
    with pytest.raises(UserError, match="no generator of this layout"):
        model_files.load_generator(tmp_path / "x.weights.h5")


def test_what_the_system_refuses_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_files, "_read_generator", refuse)
    (tmp_path / "generator.keras").touch()
    with pytest.raises(OSError, match="No space left"):
        model_files.load_generator(tmp_path)


@pytest.mark.parametrize("kind", registry.list_kinds())
def test_kinds_are_told_by_channels_where_nothing_else_tells(kind):
    assert registry.infer_kind(kind.inputs, kind.outputs) is kind
    assert registry.from_entry(json.loads(json.dumps(kind.to_entry())), "x") is kind
    older = {**kind.to_entry(), "style": "none"}
    assert registry.from_entry(older, "x") is kind


def test_the_kind_of_a_run_is_told_by_its_configuration(tmp_path):
    def kind_of(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return registry.read_from_run(RunFacts(tmp_path))

    assert kind_of(flags={"target": "x"}, kind="both", style="none") is BOTH
    assert kind_of(flags={"target": ["x"]}, kind="both") is BOTH
    assert kind_of(flags={"target": "x"}) is kinds.PLAIN
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        kind_of(flags={"target": "x"}, kind="colour")
    for several in (
        {"flags": {"target": ["x", "y"], "learn": "magnitude"}},
        {"flags": {"target": ["x"]}, "kind": "magnitude", "style": "film"},
    ):
        with pytest.raises(UserError, match=r"config\.json: has several targets"):
            kind_of(**several)


def test_a_model_of_several_targets_is_refused(tmp_path):
    file = tmp_path / "x.weights.h5"
    model_files.save_generator(models.build_generator(1, PHASE), file)  # two inputs, as by a style
    with h5py.File(file, "a") as weights:
        weights.attrs[kinds.ENTRY] = json.dumps({"kind": "magnitude", "style": "tile"})
    with pytest.raises(UserError, match=r"x\.weights\.h5: has several targets, .* commit"):
        model_files.load_generator(file)


@pytest.mark.parametrize("channels", [(1, 2), (3, 1), (1, 4), (2, 5)])
def test_channels_of_no_kind(channels):
    with pytest.raises(ValueError, match="outputs"):
        registry.infer_kind(*channels)


def test_what_gives_no_kind_gives_magnitudes():
    assert kinds.kind_of(np.tanh) is kinds.PLAIN
    assert models.build_generator(1, PHASE).kind is PHASE


@pytest.mark.parametrize("alone", [True, False])
def test_the_error_of_a_network_of_both_is_its_pictures(alone):
    x = tiles(1)
    y = np.zeros((1, 256, 256, 3), np.float32)
    y[..., :1] = tiles(1, 1)
    if alone:
        model = generator = models.compiled_generator(1, 1e-3, kind=BOTH)
    else:
        generator = models.build_generator(1, BOTH)
        model = models.Pix2Pix(generator, models.build_discriminator(1, BOTH))
        models.compile_at_once(model, model.optimizer_for(1e-3))
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    difference = np.abs(generator.predict_on_batch(x) - y)
    assert logs["mae_db"] == pytest.approx(difference[..., 0].mean() * 96.3297 / 2, rel=1e-4)
    assert difference[..., 0].mean() != pytest.approx(difference.mean(), rel=0.1)


@pytest.mark.parametrize("rate", [0, 0.5])
def test_dropout_is_drawn_anew_unless_its_rate_is_0(rate):
    generator = models.build_generator(2, dropout=rate)
    first, second = (ops.convert_to_numpy(generator(tiles(1), training=True)) for _ in range(2))
    assert np.array_equal(first, second) == (rate == 0)


OLD_KERAS = """
import sys
import numpy as np
import tf_keras as keras
from tf_keras import layers

W = 8
OPTIONS = {"strides": 2, "padding": "same"}
OPTIONS["kernel_initializer"] = keras.initializers.RandomNormal(0.0, 0.02)

def down(filters, norm=True):
    block = keras.Sequential([layers.Conv2D(filters, 4, use_bias=False, **OPTIONS)])
    if norm:
        block.add(layers.BatchNormalization())
    block.add(layers.LeakyReLU())
    return block

def up(filters, dropout=False):
    block = keras.Sequential()
    block.add(layers.Conv2DTranspose(filters, 4, use_bias=False, **OPTIONS))
    block.add(layers.BatchNormalization())
    if dropout:
        block.add(layers.Dropout(0.5))
    block.add(layers.ReLU())
    return block

x = inputs = keras.Input((None, None, 1))
skips = []
for i, k in enumerate((1, 2, 4, 8, 8, 8, 8, 8)):
    x = down(k * W, i > 0)(x)
    skips.append(x)
concatenate = layers.Concatenate()
for i, (k, skip) in enumerate(zip((8, 8, 8, 8, 4, 2, 1), reversed(skips[:-1]))):
    x = concatenate([up(k * W, i < 3)(x), skip])
x = layers.Conv2DTranspose(1, 4, activation="tanh", **OPTIONS)(x)
model = keras.Model(inputs, x)
rng = np.random.default_rng(0)
for v in model.weights:  # as if trained: batch norm's statistics away from 0 and 1 too
    if "variance" in v.name or "gamma" in v.name:
        v.assign(rng.uniform(0.5, 1.5, v.shape))
    elif "kernel" not in v.name:
        v.assign(rng.normal(0, 0.1, v.shape))
assert [l.name for l in model.layers if l.weights][0] == "sequential"
assert model.layers[-1].name == "conv2d_transpose_7"
assert len(model.layers) == 18
model.save_weights(sys.argv[1] + "/weights.h5")
model.save(sys.argv[1] + "/whole.h5")
x = rng.uniform(-1, 1, (2, 256, 256, 1)).astype("float32")
np.savez(sys.argv[1] + "/xy.npz", x=x, y=model.predict(x, verbose=0))
"""


def test_weights_saved_by_older_keras_load_unchanged(tmp_path):
    pytest.importorskip("tf_keras", reason="older Keras is not installed")
    subprocess.run(
        [sys.executable, "-c", OLD_KERAS, str(tmp_path)], check=True, capture_output=True
    )
    stored = np.load(tmp_path / "xy.npz")
    for name in ("weights.h5", "whole.h5"):
        output = model_files.load_generator(tmp_path / name).predict_on_batch(stored["x"])
        assert np.abs(output - stored["y"]).max() <= 1e-6


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x89HDF\r\n\x1a\njunk"])
@pytest.mark.parametrize("name", ["x.keras", "x.h5", "x.txt"])
def test_files_that_are_no_model(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no generator of this layout"):
        model_files.load_generator(tmp_path / name)


def test_models_of_another_layout_and_missing_ones(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with pytest.raises(UserError, match="no generator of this layout"):
        model_files.load_generator(tmp_path / "dense.keras")
    models.build_discriminator(2).save(tmp_path / "discriminator.keras")
    with pytest.raises(UserError, match="no generator of this layout"):
        model_files.load_generator(tmp_path / "discriminator.keras")
    with pytest.raises(UserError, match="nowhere: no such model"):
        model_files.load_generator(tmp_path / "nowhere")


def test_pretrained_models_are_found_by_name_and_compared_with_their_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(known_models, "PRETRAINED", tmp_path)
    folder = tmp_path / "a_2_b"
    folder.mkdir()
    generator = models.build_generator(2)
    generator.save_weights(tmp_path / "x.weights.h5")
    content = (tmp_path / "x.weights.h5").read_bytes()
    (folder / "generator.weights.h5").write_bytes(content)
    (folder / "SHA256SUMS").write_text(
        f"{hashlib.sha256(content).hexdigest()}  generator.weights.h5\n"
    )
    x = tiles(1)
    np.testing.assert_array_equal(
        model_files.load_generator("a_2_b").predict_on_batch(x), generator.predict_on_batch(x)
    )
    assert (
        model_files.find_generator("B") == folder / "generator.weights.h5"
    )  # what it makes is enough
    (folder / "generator.weights.h5").write_bytes(content + b"more")
    with pytest.raises(
        UserError, match=r"generator\.weights\.h5: differs from the hash in SHA256SUMS"
    ):
        model_files.load_generator("a_2_b")
    with pytest.raises(UserError, match=r"b_2_a: no such model; .* \(b\)"):
        model_files.load_generator("b_2_a")


@pytest.mark.parametrize("compiled", [True, False])
def test_saved_generators_load_with_plain_keras(tmp_path, compiled):
    generator = models.build_generator(2)
    if compiled:
        generator = models.compiled_generator(2, 1e-3)
    model_files.save_generator(generator, tmp_path / "g.keras")
    with zipfile.ZipFile(tmp_path / "g.keras") as archive:
        assert b"timbre" not in archive.read("config.json")  # no class of ours is needed
    plain = keras.models.load_model(tmp_path / "g.keras")
    x = tiles(1)
    np.testing.assert_array_equal(plain.predict_on_batch(x), generator.predict_on_batch(x))


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kind", [kinds.PLAIN, PHASE])
def test_a_widened_network_computes_the_same_and_then_learns_apart(kind, width):
    keras.utils.set_random_seed(0)
    narrow, wide = models.build_generator(width, kind), models.build_generator(3, kind)
    for weight in narrow.weights:  # away from the zeros and ones that they begin with
        weight.assign(weight + 0.1 * keras.random.uniform(weight.shape, -1))
    models.widen(narrow, wide)
    x = np.concatenate([tiles(2, seed) for seed in range(narrow.input_shape[-1])], axis=-1)
    expected = ops.convert_to_numpy(narrow(x))
    np.testing.assert_allclose(ops.convert_to_numpy(wide(x)), expected, atol=1e-5)
    assert expected.std() > 1e-3
    weights = wide.trainable_weights
    kernels = [w for w in weights if w.path.endswith("kernel") and len(w.shape) == 4]
    wide.compile(models.TwoRateAdam(1e-2), loss="mae", run_eagerly=True)  # to trace takes longer
    wide.train_on_batch(x, np.repeat(tiles(2, 9), narrow.output_shape[-1], -1))
    for kernel in kernels[:-1]:  # the last one's outputs are not copies
        made = 2 if "transpose" in kernel.path else 3  # axis of channels of which these were alike
        copies = np.moveaxis(ops.convert_to_numpy(kernel), made, 0)[: 4 - width]
        for one, another in itertools.pairwise(copies):
            assert np.abs(one - another).max() > 1e-3


def test_code_in_a_model_file_is_never_run(tmp_path):
    generator = models.build_generator(2)
    generator.save(tmp_path / "g.keras")
    evil = (
        '{"module": "os", "class_name": "system", "config": {"command": "touch '
        + str(tmp_path / "owned")
        + '"}}'
    )
    with (
        zipfile.ZipFile(tmp_path / "g.keras") as old,
        zipfile.ZipFile(tmp_path / "evil.keras", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, evil if name == "config.json" else old.read(name))
    x = tiles(1)
    loaded = model_files.load_generator(tmp_path / "evil.keras")  # only weights are read
    np.testing.assert_array_equal(loaded.predict_on_batch(x), generator.predict_on_batch(x))
    assert not (tmp_path / "owned").exists()
