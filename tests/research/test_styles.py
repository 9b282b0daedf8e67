"""Several targets by a style: what training sees, and what converting does."""

import shutil

import numpy as np
import pytest
from conftest import ORIGIN, TARGET
from files import all_batches

import data
import train_generator
from common import dataset
from common.cli import UserError
from common.names import piece_of
from conversion import model_files
from research import registry, styles

THIRD = "string_acoustic"
NAMES = ["bach/one", "bach/two", "four", "four~t+2", "three"]  # a version is no other piece


@pytest.fixture(scope="module")
def three(features, tmp_path_factory):
    """`features` with a third instrument, and one piece in two versions."""
    copy = shutil.copytree(features, tmp_path_factory.mktemp("three") / "f")
    for instrument in (ORIGIN, TARGET):
        shutil.copy(copy / instrument / "four.npy", copy / instrument / "four~t+2.npy")
    third = shutil.copytree(copy / TARGET, copy / THIRD)
    for path in third.rglob("*.npy"):
        np.save(path, 1 - np.load(path))
    return copy


@pytest.fixture(scope="module")
def owners(three):
    """{bytes of a tile: (instrument, piece)}."""
    owner = {}
    for instrument in (ORIGIN, TARGET, THIRD):
        for name in NAMES:
            for tile in np.load(three / instrument / f"{name}.npy"):
                owner[tile.tobytes()] = instrument, piece_of(name)
    return owner


def owner_of(picture, owners):
    return owners[((picture + 1) / 2).astype(np.float16).tobytes()]


@pytest.mark.parametrize("seed", [None, 3])
def test_styles_are_tiles_of_the_same_target_from_another_piece(three, owners, seed):
    pairs = styles.StylePairs(
        three, [ORIGIN], [TARGET, THIRD], NAMES, dataset.Batching(5, seed=seed)
    )
    assert len(pairs.index) == 2 * 3 * len(NAMES)
    x, y = all_batches(pairs)
    assert x.shape[1:] == (256, 256, 2)
    for content, style, truth in zip(x[..., 0], x[..., 1], y[..., 0]):
        content, style, truth = (owner_of(p, owners) for p in (content, style, truth))
        assert content[0] == ORIGIN
        assert content[1] == truth[1] != style[1]
        assert style[0] == truth[0] != ORIGIN


def test_any_to_any_pairs_each_origin_with_each_other_instrument(three, owners):
    both = [ORIGIN, TARGET]
    pairs = styles.StylePairs(three, both, [*both, THIRD], NAMES, dataset.Batching(5))
    assert len(pairs.index) == 4 * 3 * len(NAMES)
    seen = set()
    x, y = all_batches(pairs)
    for content, truth in zip(x[..., 0], y[..., 0]):
        content, truth = owner_of(content, owners), owner_of(truth, owners)
        assert content[1] == truth[1]
        seen.add((content[0], truth[0]))
    assert seen == {(ORIGIN, TARGET), (ORIGIN, THIRD), (TARGET, ORIGIN), (TARGET, THIRD)}


def test_styles_follow_from_seed_and_epoch(three):
    pairs = styles.StylePairs(three, [ORIGIN], [TARGET, THIRD], NAMES, dataset.Batching(5, seed=3))
    pairs.set_epoch(2)
    x, y = pairs[0]
    pairs.set_epoch(3)
    assert not np.array_equal(pairs[0][0], x)
    pairs.set_epoch(2)
    np.testing.assert_array_equal(pairs[0][0], x)
    np.testing.assert_array_equal(pairs[0][1], y)


@pytest.mark.parametrize(("seed", "reason"), [(None, "piece held out.*raise"), (1, "lower")])
def test_a_style_takes_a_second_piece(three, seed, reason):
    with pytest.raises(UserError, match=reason):
        styles.StylePairs(
            three, [ORIGIN], [TARGET, THIRD], ["four", "four~t+2"], dataset.Batching(5, seed=seed)
        )


def test_the_loudest_tile_is_the_style():
    class Echo:
        def predict_on_batch(self, x):
            return x[..., 1:]

    picture = np.zeros((256, 600), np.float32)
    picture[:, 256:512] = 0.75
    convert = styles.with_style(Echo(), picture)
    found = convert(np.zeros((2, 256, 256, 1), np.float32))
    np.testing.assert_array_equal(found, data.to_network(np.full((2, 256, 256, 1), 0.75)))


@pytest.mark.parametrize("conditioning", ["film", "tile"])
def test_one_model_is_trained_for_several_targets(three, tmp_path, conditioning):
    flags = ["--dataset_path", three, "--origin", ORIGIN, "--target", TARGET, THIRD]
    flags += ["--conditioning", conditioning, "--runs_path", tmp_path, "--epochs", 1]
    flags += ["--filters", 1, "--batch_size", 3, "--epoch_tiles", 3, "--validation_split", 0.5]
    flags += ["--gpu", "cpu", "--seed", 2]  # which holds out two of four pieces
    assert train_generator.main([str(flag) for flag in flags]) == 0
    run = tmp_path / f"{ORIGIN}_2_any_generator"
    model = model_files.load_generator(run)
    assert model.kind.takes_style and model.kind is registry.find_kind("magnitude", conditioning)
    assert (run / "previews/epoch_001/spectrogram.png").exists()
    tile = np.zeros((1, 256, 256, 1), np.float32)
    noise = np.random.default_rng(0).uniform(0, 1, (256, 256)).astype(np.float32)
    loud, soft = (styles.with_style(model, level * noise)(tile) for level in (1, 0.1))
    assert loud.shape == tile.shape
    assert not np.array_equal(loud, soft)
