"""Note F1 by a transcriber, Basic Pitch, if its packages are installed.

    pip install --no-deps basic-pitch resampy && pip install onnxruntime mir_eval

Basic Pitch (Bittner et al. 2022; its package contains the weights) transcribes the recording, and
mir_eval (Raffel et al. 2014) compares the notes with the score. Compare the F1 with that of the
target recording: about 0.70 for a guitar, 0.73 for a synth lead, 0.30 for slow strings. An output
that keeps a piano's clearer onsets has a higher F1 than the target.
"""

import contextlib
import functools
import importlib.util
import io
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np

import data
from measuring.metrics import Measure
from sound.recordings import write_audio
from synthesis import scores

PACKAGES = ("basic_pitch", "mir_eval", "onnxruntime")
INSTALL = "pip install --no-deps basic-pitch resampy && pip install onnxruntime mir_eval"
LAST = 0.5  # s: notes that start in this time before the end are left out, on both sides


def is_installed():
    """Whether all packages of the note judge are installed."""
    return all(importlib.util.find_spec(name) for name in PACKAGES)


def score_notes(path, seconds):
    """Read a score's notes that start in the first seconds, and the repairs of the file.

    Returns:
        ((intervals (n, 2) in s, pitches (n,) in Hz), repairs as text).

    Raises:
        UserError: the score cannot be read.
    """
    score, repairs = scores.read_repaired(path, pedal=False)
    ends = score["onset"] + score["duration"]
    return _notes(score["onset"], ends, score["pitch"], seconds), repairs


def hear_notes(audio):
    """Transcribe audio (n,) at 44.1 kHz with Basic Pitch.

    Returns:
        (intervals (n, 2) in s, pitches (n,) in Hz).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        write_audio(path, audio / max(1, np.abs(audio).max(initial=0)))
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            events = _predict(path)
    starts = np.array([event[0] for event in events])
    ends = np.array([event[1] for event in events])
    pitches = np.array([event[2] for event in events])
    return _notes(starts, ends, pitches, len(audio) / data.SAMPLE_RATE)


def _notes(starts, ends, pitches, seconds):
    kept = starts < seconds - LAST
    ends = np.maximum(ends, starts + 0.05)  # mir_eval rejects notes without length
    intervals = np.stack([starts, ends], axis=1)[kept].reshape(-1, 2)
    return intervals, 440 * 2 ** ((pitches[kept] - 69.0) / 12)


def _predict(path):
    model = _load()  # first, because it silences Basic Pitch's import
    from basic_pitch.inference import predict

    return predict(path, model)[2]


@functools.cache
def _load():
    """Load Basic Pitch's network."""
    logging.disable(logging.WARNING)  # it warns about every missing runtime
    try:
        import basic_pitch
        from basic_pitch.inference import Model

        folder = Path(basic_pitch.__file__).parent
        return Model(folder / "saved_models" / "icassp_2022" / "nmp.onnx")
    finally:
        logging.disable(logging.NOTSET)


def note_f1(heard, written):
    """F1 of note onsets (within 50 ms and a quarter tone, offsets ignored; mir_eval): 0 ... 1.

    ``heard``, ``written``: from `hear_notes` and `score_notes`. 1 if neither has a note, 0 if only
    one has notes.
    """
    from mir_eval.transcription import precision_recall_f1_overlap

    if not len(heard[0]) or not len(written[0]):  # mir_eval would warn
        return float(len(heard[0]) == len(written[0]))
    return float(precision_recall_f1_overlap(*written, *heard, offset_ratio=None)[2])


NOTE_F1 = Measure(
    "note_f1",
    "note F1",
    3,
    note_f1,
    ("heard_notes", "score_notes"),
    "Notes of the score that Basic Pitch hears, and none besides, 0 to 1: as many "
    "as in the target are wanted.",
)
