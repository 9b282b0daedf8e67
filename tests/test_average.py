"""average.py: the mean of several generators' weights."""

import keras
import numpy as np
import pytest
from keras import ops

import average
import models


@pytest.fixture
def epochs(tmp_path):
    """Files of three small generators, of different weights."""
    files = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        files.append(tmp_path / f"epoch_{seed}.keras")
        models.save_generator(models.build_generator(2), files[-1])
    return files


def test_each_model_counts_as_often_as_it_is_named(epochs, tmp_path, capsys):
    output = tmp_path / "mean.keras"
    named = [epochs[0], epochs[1], epochs[2], epochs[2]]
    assert average.main(["--models", *map(str, named), "--output", str(output)]) == 0
    assert "mean of 4 models" in capsys.readouterr().out
    mean = models.load_generator(output)
    each = [models.load_generator(path).get_weights() for path in named]
    for number, found in enumerate(mean.get_weights()):
        wanted = np.mean([weights[number] for weights in each], axis=0)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    tile = np.zeros((1, 256, 256, 1), np.float32)
    assert np.isfinite(ops.convert_to_numpy(mean(tile))).all()


def test_models_that_are_not_alike_are_refused(epochs, tmp_path, capsys):
    wider = tmp_path / "wider.keras"
    models.save_generator(models.build_generator(4), wider)
    output = tmp_path / "mean.keras"
    assert average.main(["--models", str(epochs[0]), str(wider), "--output", str(output)]) == 2
    assert f"--models {wider}: is of another kind or width" in capsys.readouterr().err
    assert not output.exists()
    assert average.main(["--models", str(epochs[0]), "--output", str(tmp_path / "mean.h5")]) == 2
    assert "is no .keras file" in capsys.readouterr().err
