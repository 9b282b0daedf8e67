"""A short fuzz of everything that reads files, and some nasty ones. The long fuzz: run.py."""

import random
import time
from pathlib import Path

import pytest
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECONDS = 10  # of processor time, for one file
EXAMPLES = {"midi": 150, "audio": 150, "tiles": 60, "model": 6}
EXAMPLES |= {"config": 60, "state": 60, "features": 60}
UNSEEKABLE = Path(__file__).parent / "found" / "audio-unseekable.mp3"
ZERO_HZ = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0data\0\0\0\0"
NASTY = [
    ("tiles", b"PK\x05\x06" + bytes(18)),  # an empty archive, which np.load takes for arrays
    # numpy lets its tokenizer's error through
    ("tiles", b"\x93NUMPY\1\0\x16\0{'descr': '<f2', 'for\n"),
    ("midi", b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk\0\0\0\x20" + b"\xff" * 32),
    ("audio", ZERO_HZ),
    ("model", b"\x89HDF\r\n\x1a\n"),
]


@pytest.fixture(scope="module", params=targets.TARGETS)
def target(request):
    """Each target, once its good files were made and read.

    That imports all that is needed, and none of it may count as an example's time.
    """
    for content in targets.seeds(request.param):
        targets.run_one(request.param, content)
    return request.param


def test_good_files_are_taken(target):
    for content in targets.seeds(target):
        assert targets.run_one(target, content)


def test_damaged_files_are_taken_or_refused_as_documented(target):
    @settings(
        max_examples=EXAMPLES[target],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def try_one(seed):
        rng = random.Random(seed)
        damaged = targets.damage_target(target, rng.choice(targets.seeds(target)), rng)
        began = time.process_time()
        targets.run_one(target, damaged)
        assert time.process_time() - began < SECONDS

    try_one()


@given(content=st.binary(max_size=300))
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_random_bytes_are_refused(target, content):
    assert not targets.run_one(target, content)


@pytest.mark.parametrize(("target", "content"), NASTY)
def test_nasty_files_are_refused(target, content):
    assert not targets.run_one(target, content)


def test_a_file_found_by_fuzzing_is_read_to_its_end():
    """libsndfile opens it, and tells no place in it; FFmpeg decodes what is there."""
    assert targets.run_one("audio", UNSEEKABLE.read_bytes())
