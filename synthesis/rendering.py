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

    The level is `NoteBank.gain` for every piece, so that levels can be learned; only a piece that
    would clip is rendered a second time, lower. ``place`` as of `files.complete`.

    Returns:
        whether that was so.
    """
    with complete(path, place) as part:
        peak = _write_blocks(part, render(score, bank, bank.gain))
        if peak > 1:
            _write_blocks(part, render(score, bank, bank.gain * 0.999 / peak))
    return peak > 1


def _write_blocks(path, blocks):
    """Write float blocks as 16-bit wav; return their peak.

    By Python's own module, which reports a full disk as such. Beyond a peak of 1 nothing more is
    written: the caller has to lower the level.
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
    """A bank, kept for the next piece. The fingerprint tells it from one with other notes."""
    return NoteBank(folder, instrument, max_shift)


def render_task(path, piece, bank, place):
    """What a worker process does for one piece; it keeps the last bank it used.

    Args:
        path: wav file to write.
        piece: arguments of `scores.change_score`.
        bank: arguments of `NoteBank`, and the bank's fingerprint.
        place: see `files.complete`.

    Returns:
        (`Counter` of `PLACINGS`, whether the piece had to be made lower, its number of samples).
    """
    bank = _open_bank(*bank)
    score = change_score(*piece)
    lowered = write_piece(path, score, bank, place)
    return bank.count(score), lowered, length(score)
