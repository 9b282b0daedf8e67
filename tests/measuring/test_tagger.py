"""tagger.py: what an independent tagger gets to hear, and the distance of what it makes of it."""

import importlib.util
import runpy
from pathlib import Path

import librosa
import numpy as np
import pytest

from common.cli import UserError
from data import SAMPLE_RATE
from measuring import tagger


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20_000, 3))
    assert tagger.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert tagger.frechet(a, a + np.array([3, 0, 4])) == pytest.approx(25, abs=1e-6)
    wide = rng.normal(size=(20_000, 3)) * [1, 1, 3]  # (3 - 1)^2 for the one axis
    assert tagger.frechet(a, wide) == pytest.approx(4, abs=0.2)
    assert np.isnan(tagger.frechet(a[:1], a))


def test_patches_are_three_seconds_half_overlapping():
    seconds = np.zeros(10 * tagger.RATE, np.float32)
    patches = tagger._cut_patches(seconds)
    assert patches.shape == (1 + (626 - 187) // 93, 187, 96)
    assert patches.dtype == np.float32
    assert len(tagger._cut_patches(seconds[: 2 * tagger.RATE])) == 0


def test_a_tone_is_heard_at_its_pitch_and_for_its_length(monkeypatch):
    heard = []

    def run(patches):
        heard.append(patches)
        return np.zeros(50), np.zeros((len(patches), 200))

    monkeypatch.setattr(tagger, "_run", run)
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    tagger.Listener().hear("x", np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    (patches,) = heard
    assert len(patches) == 1 + (376 - 187) // 93  # 376 frames of 16 ms
    centres = librosa.mel_frequencies(98, fmax=tagger.RATE / 2)[1:-1]
    loudest = centres[patches.mean(axis=(0, 1)).argmax()]
    assert loudest == pytest.approx(1000, rel=0.05)


def test_systems_are_compared_over_all_pieces(monkeypatch):
    """The network is replaced: the embedding is the level of two bands, the tags are 0.1."""

    def run(patches):
        return np.full(50, 0.1), patches[:, :10].mean(axis=1)[:, :2]

    monkeypatch.setattr(tagger, "_run", run)
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * SAMPLE_RATE).astype(np.float32)
    listener = tagger.Listener()
    for _ in range(2):
        for row, gain in (("input", 0.1), ("model", 0.9), ("target", 1)):
            tags = listener.hear(row, gain * noise)
            assert tags["tag_piano"] == pytest.approx(0.1)
            assert set(tags) == {f"tag_{name}" for name in tagger.SHOWN}
    assert listener.hear("short", noise[:SAMPLE_RATE]) == {}
    distances = listener.distances("target")
    assert set(distances) == {"input", "model", "target"}
    assert distances["model"] < 0.1 * distances["input"]
    assert listener.distances("nobody") == {}
    assert listener.distance("model", "target") == distances["model"]
    assert np.isnan(listener.distance("nobody", "target"))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(tagger.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="--tagger: musicnn is not installed; pip install --no-deps"
    ):
        tagger.check_installed()


@pytest.fixture(scope="module")
def package():
    """Where musicnn lies; it is not imported, for it takes a TensorFlow and a librosa of 2019."""
    found = importlib.util.find_spec("musicnn")
    if found is None:
        pytest.skip("no musicnn")
    return Path(found.submodule_search_locations[0])


def test_the_tags_are_in_musicnns_order(package):
    labels = runpy.run_path(str(package / "configuration.py"))["MTT_LABELS"]
    assert [label.replace(" ", "_") for label in labels] == tagger.TAGS


@pytest.mark.usefixtures("package")
def test_musicnns_graph_gives_a_probability_of_each_tag():
    pytest.importorskip("tensorflow")
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    audio = 0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-time % 1)
    found = tagger.Listener().hear("x", audio.astype(np.float32))
    assert set(found) == {f"tag_{name}" for name in tagger.SHOWN}
    assert all(0 <= value <= 1 for value in found.values())
