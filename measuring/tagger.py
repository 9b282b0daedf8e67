"""Instrument tags and Fréchet distance by a music tagger, musicnn, if it is installed.

    pip install --no-deps musicnn

musicnn (Pons & Serra 2019) was trained on MagnaTagATune; its package contains the weights. It reads
patches of 3 s that overlap by half, and gives the probabilities of 50 tags and an embedding of 200
numbers. The Fréchet distance between the embeddings of two sets of recordings (Kilgour et al. 2019)
measures how differently they sound. It has no unit and depends on the number of patches, so compare
only distances for the same pieces and seconds. The distance between two halves of one set is the
value for "no difference".
"""

import functools
import importlib.util
import warnings
from pathlib import Path

import librosa
import numpy as np
import scipy  # whose parts load when they are first used

from common.cli import UserError
from measuring import metrics
from measuring.metrics import Measure

OUTPUTS = """guitar classical slow techno strings drums electronic rock fast piano ambient beat
violin vocal synth female indian opera male singing vocals no_vocals harpsichord loud quiet flute
woman male_vocal no_vocal pop soft sitar solo man classic choir voice new_age dance male_voice
female_vocal beats harp cello no_voice weird country metal female_voice choral"""
TAGS = OUTPUTS.split()  # in the order of the network's outputs
SHOWN = ("piano", "guitar", "strings", "synth", "harpsichord")
DISTANCE = "distance"
PATCH, HOP = 187, 93  # frames of 256 samples at 16 kHz
RATE = metrics.RATE  # 16 kHz, musicnn's rate


def check_installed(flag="--tagger"):
    """Raise UserError if a required package is missing; the text names ``flag``."""
    for package in ("musicnn", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            how = "--no-deps musicnn" if package == "musicnn" else package
            raise UserError(f"{flag}: {package} is not installed; pip install {how}")


class Listener:
    """Tags the sounds of every system in a group of pieces, and compares the systems at the end."""

    def __init__(self):
        self._embeddings = {}  # {row: list of embeddings (patches, 200)}

    def hear(self, row, audio):
        """Tag one piece of one row: {key: probability} of the tags in `SHOWN`.

        Empty for a sound shorter than a patch, 3 s.

        Args:
            row: the row's name.
            audio: float32 (n,) at 44.1 kHz.
        """
        patches = _cut_patches(metrics.resample(audio))
        if not len(patches):
            return {}
        tags, embeddings = _run(patches)
        self._embeddings.setdefault(row, []).append(embeddings)
        return {f"tag_{name}": float(tags[TAGS.index(name)]) for name in SHOWN}

    def distances(self, target):
        """Fréchet distances from the row ``target``, {row: distance}; its own: between its halves.

        Empty without a target.
        """
        if target not in self._embeddings:
            return {}
        return {row: self.distance(row, target) for row in self._embeddings}

    def distance(self, row, target):
        """Fréchet distance of one row from the row ``target``; NaN for an unknown row."""
        if row not in self._embeddings or target not in self._embeddings:
            return float("nan")
        wanted = np.concatenate(self._embeddings[target])
        if row == target:
            return frechet(wanted[::2], wanted[1::2])
        return frechet(np.concatenate(self._embeddings[row]), wanted)


def _cut_patches(audio):
    """Compute musicnn's log-mel patches, float32 (n, 187, 96), of audio at 16 kHz."""
    mel = librosa.feature.melspectrogram(y=audio, sr=RATE, n_fft=512, hop_length=256, n_mels=96).T
    mel = np.log10(1e4 * mel + 1).astype(np.float32)
    starts = range(0, len(mel) - PATCH + 1, HOP)
    return np.array([mel[start : start + PATCH] for start in starts])


def _run(patches):
    """Run musicnn: mean probabilities of the tags (50,), embedding of each patch (n, 200)."""
    session = _load()
    given = {"model/Placeholder:0": patches, "model/Placeholder_2:0": False}
    wanted = ["model/Sigmoid:0", "model/dense/BiasAdd:0"]
    tags, embeddings = session.run(wanted, given)
    return tags.mean(axis=0), embeddings


@functools.cache
def _load():
    """Open a session with musicnn's TensorFlow 1 graph."""
    import tensorflow

    old = tensorflow.compat.v1
    package = importlib.util.find_spec("musicnn").submodule_search_locations[0]
    folder = Path(package) / "MTT_musicnn"
    stored = old.MetaGraphDef()
    stored.ParseFromString((folder / ".meta").read_bytes())
    for node in stored.graph_def.node:  # shapes of the training part, which new TensorFlow rejects
        node.attr.pop("_output_shapes", None)
    graph = tensorflow.Graph()
    with graph.as_default():
        session = old.Session(graph=graph)
        old.train.import_meta_graph(stored).restore(session, f"{folder}/")
    return session


def frechet(a, b):
    """Fréchet distance of two sets of embeddings (n, d), each modelled as a Gaussian.

    |mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)), A and B the covariances (Dowson & Landau
    1982). NaN if a set has fewer than two.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    covariances = [np.cov(each.T) for each in (a, b)]
    with warnings.catch_warnings():
        # with few patches the product is singular; sqrtm still works
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        root = np.real(scipy.linalg.sqrtm(covariances[0] @ covariances[1]))
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root))


def _tag_column(name):
    meaning = f"How sure the tagger musicnn is to hear “{name}”, 0 to 1."
    return Measure(f"tag_{name}", f"tag {name}", 2, None, (), meaning)


COLUMNS = [
    *[_tag_column(name) for name in SHOWN],
    Measure(
        DISTANCE,
        "distance",
        0,
        None,
        (),
        "Fréchet distance of the tagger's embeddings from those of the true targets, all pieces "
        "together; in the target's own row that of its two halves, which is “no difference”.",
    ),
]
