"""Render scores to audio files; the worker processes of synthesize_audios.py import this."""

import functools
import wave

import numpy as np

from common.files import complete
from data import SAMPLE_RATE
from NoteSynthesizer import NoteBank, length, render
from synthesis.scores import change_score


def write_piece(path, score, bank, place=None):
    """Render a score to a 16-bit mono wav file.

    The level is `NoteBank.gain` for every piece, so that networks can learn levels. A piece that
    would clip is rendered a second time with a lower gain. ``place``: see `files.complete`.

    Returns:
        Whether the gain was lowered.
    """
    with complete(path, place) as part:
        peak = _write_blocks(part, render(score, bank, bank.gain))
        if peak > 1:
            _write_blocks(part, render(score, bank, bank.gain * 0.999 / peak))
    return peak > 1


def _write_blocks(path, blocks):
    """Write float blocks as 16-bit wav; returns their peak.

    Python's own module reports a full disk correctly. After a peak above 1 nothing more is written:
    the caller must lower the level.
    """
    peak = 0.0
    with open(path, "wb") as file, wave.open(file) as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        for samples in blocks:
            peak = max(peak, float(np.abs(samples).max()))
            if peak <= 1:
                wav.writeframesraw(np.rint(samples * 32767).astype("<i2"))
    return peak


@functools.lru_cache(maxsize=1)
def _open_bank(folder, instrument, max_shift, fingerprint):
    """Open a bank and keep it for the next piece. The fingerprint detects changed notes."""
    return NoteBank(folder, instrument, max_shift)


def render_task(path, piece, bank, place):
    """Render one piece in a worker process, which keeps the last bank it used.

    Args:
        path: wav file to write.
        piece: arguments of `scores.change_score`.
        bank: arguments of `NoteBank`, and the bank's fingerprint.
        place: see `files.complete`.

    Returns:
        (`Counter` of `PLACINGS`, whether the gain was lowered, number of samples).
    """
    bank = _open_bank(*bank)
    score = change_score(*piece)
    lowered = write_piece(path, score, bank, place)
    return bank.count(score), lowered, length(score)
