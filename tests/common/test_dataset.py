import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import HANG, ORIGIN, ROOT, TARGET
from files import all_batches
from hypothesis import assume, given
from hypothesis import strategies as st

import data
from common import dataset
from common.cli import UserError
from common.names import piece_of, version_name
from sound import augment
from training import splits

NAMES = ["bach/one", "bach/two", "four", "three"]


def test_pairs_by_name_and_names_what_has_no_partner(features, tmp_path):
    assert splits.pair_pieces(features, [ORIGIN, TARGET]) == (NAMES, [])
    copy = shutil.copytree(features, tmp_path / "f")
    (copy / TARGET / "four.npy").unlink()
    (copy / ORIGIN / "bach/two.npy").unlink()
    assert splits.pair_pieces(copy, [ORIGIN, TARGET]) == (
        ["bach/one", "three"],
        [f"{TARGET}/bach/two", f"{ORIGIN}/four"],
    )


@pytest.mark.parametrize(
    ("origins", "target", "unheard", "reason"),
    [
        ([ORIGIN], ORIGIN, [], "is an origin too"),
        ([ORIGIN, TARGET], TARGET, [], "is an origin too"),
        ([ORIGIN, ORIGIN], TARGET, [], "named twice"),
        ([ORIGIN], TARGET, [ORIGIN], "also an origin or the target"),
        ([ORIGIN], TARGET, [TARGET], "also an origin or the target"),
    ],
)
def test_instruments_that_do_not_go_together(origins, target, unheard, reason):
    with pytest.raises(UserError, match=reason):
        splits.check_instruments(origins, target, unheard)


def test_an_unknown_instrument_is_told_with_those_that_there_are(features):
    with pytest.raises(UserError, match="there are: guitar_acoustic, keyboard_acoustic"):
        splits.pair_pieces(features, [ORIGIN, "organ"])


@given(count=st.integers(2, 60), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_split_is_by_piece_and_keeps_versions_together(count, fraction, seed):
    names = []
    for i in range(count):
        names += [version_name(f"p{i}", transpose) for transpose in (-1, 0, 1)]
    train, validation = splits.split_pieces(names, fraction, seed)
    assert train and validation
    assert sorted(train + validation) == sorted(names)
    assert not {piece_of(n) for n in train} & {piece_of(n) for n in validation}
    assert splits.split_pieces(names[::-1], fraction, seed)[1] == validation[::-1]


@given(count=st.integers(2, 60), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_a_piece_more_moves_no_other(count, fraction, seed):
    """But where a side was empty without it, and had to be given a piece."""
    names = [f"p{i}" for i in range(count)]
    before = set(splits.split_pieces(names, fraction, seed)[1])
    after = set(splits.split_pieces([*names, "new"], fraction, seed)[1])
    moved = (before ^ after) - {"new"}
    if 1 < len(before) < count - 1:
        assert not moved
    assert len(moved) <= 1


def test_the_fraction_is_met_in_the_mean():
    names = [f"p{i}" for i in range(2000)]
    for fraction in (0.03, 0.1, 0.5):
        found = len(splits.split_pieces(names, fraction)[1]) / len(names)
        assert found == pytest.approx(fraction, abs=4 * (fraction / len(names)) ** 0.5)


@given(count=st.integers(3, 60), fraction=st.floats(0.01, 0.4), seed=st.integers(0, 5))
def test_a_test_side_is_by_piece_and_a_piece_more_moves_no_other(count, fraction, seed):
    """What is held out, it cannot move: it takes of the pieces to train on only."""
    names = []
    for i in range(count):
        names += [version_name(f"p{i}", transpose) for transpose in (-1, 0)]
    training, _ = splits.split_pieces(names, 0.1, seed)
    assume(len(training) >= 4)
    try:
        rest, test = splits.keep_for_test(training, fraction, seed)
    except UserError:
        return  # all numbers are that high
    assert rest and test
    assert sorted(rest + test) == sorted(training)
    assert not {piece_of(n) for n in rest} & {piece_of(n) for n in test}
    more, also = splits.keep_for_test([*training, "new"], fraction, seed)
    if len(test) > 2:
        assert set(test) <= set(also)
    assert set(more) - {"new"} >= set(rest)


def test_a_test_side_has_its_fraction_and_leaves_something_to_train_on():
    names = [f"p{i}" for i in range(2000)]
    for fraction in (0.03, 0.1, 0.5):
        found = len(splits.keep_for_test(names, fraction)[1]) / len(names)
        assert found == pytest.approx(fraction, abs=4 * (fraction / len(names)) ** 0.5)
    with pytest.raises(UserError, match="leaves no piece to train on"):
        splits.keep_for_test(["a", "a~t+1"], 0.1)


def test_split_needs_two_pieces():
    with pytest.raises(UserError, match="only piece"):
        splits.split_pieces(["a", "a~t+1"], 0.1)


def test_split_of_another_run_is_kept_for_the_pieces_that_it_knew():
    names = [f"p{i}" for i in range(20)] + ["p3~t+1"]
    other = {"train": names[:8], "validation": names[8:12], "test": ["p12"]}
    split = splits.split_like(other, names, 0.3, seed=0)
    assert {*names[:8], "p3~t+1"} <= set(split["train"])
    assert set(names[8:12]) <= set(split["validation"])
    assert split["test"] == ["p12"]
    assert sorted(split["train"] + split["validation"] + split["test"]) == sorted(names)
    with pytest.raises(UserError, match="none of the 2 pieces in validation"):
        splits.split_like({"train": ["a", "b"]}, ["a", "b"], 0.3, seed=0)


MAESTRO = """canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration
Bach,"Prelude, Book I",train,2018,2018/a.b.midi,2018/a.b.wav,1.5
Berg,Sonata,validation,2018,2018/c.midi,2018/c.wav,1.5
Liszt,Études,test,2009,2009/d.midi,2009/d.wav,1.5
Liszt,Études,train,2009,2009/not here.midi,2009/not here.wav,1.5
"""


def test_split_by_maestros_table(tmp_path):
    path = tmp_path / "maestro-v3.0.0.csv"
    path.write_text(MAESTRO, encoding="utf-8")
    names = ["2009/d", "2009/d~t+1", "2018/a.b", "2018/a.b~t-1~s1.1", "2018/c", "mine"]
    split = {"train": names[2:4], "validation": ["2018/c"], "test": names[:2]}
    assert splits.maestro_split(path, names) == split
    no_piece = MAESTRO, "none of the 1 pieces in train"
    for text, reason in (
        no_piece,
        ("a,b\n1,2\n", "not a table"),
        ("midi_filename,split\n,", "not a table"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            splits.maestro_split(path, ["mine"])
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match="is not t"):
        splits.maestro_split(path, names)


def test_batches_are_aligned_scaled_and_complete(features):
    pairs = dataset.TilePairs(features, [ORIGIN], TARGET, NAMES, dataset.Batching(5))
    batches = [pairs[i] for i in range(len(pairs))]
    assert [len(x) for x, _ in batches] == [5, 5, 2]
    x, y = (np.concatenate(side) for side in zip(*batches))
    for instrument, tiles in ((ORIGIN, x), (TARGET, y)):
        stored = np.concatenate([np.load(features / instrument / f"{name}.npy") for name in NAMES])
        np.testing.assert_array_equal(tiles, data.to_network(stored))
    assert x.dtype == np.float32


def test_shuffling_follows_from_seed_and_epoch(features):
    def epoch(number, seed=3):
        pairs = dataset.TilePairs(features, [ORIGIN], TARGET, NAMES, dataset.Batching(5, seed=seed))
        pairs.set_epoch(number)
        assert len(pairs) == 2  # what does not fill a batch is left out
        return np.concatenate([pairs[i][0] for i in range(2)])

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert not np.array_equal(epoch(1), epoch(2))
    assert not np.array_equal(epoch(1), epoch(1, seed=4))


@pytest.fixture(scope="module")
def many(features, tmp_path_factory):
    """`features` with three origins more: tiles of the constants 0.25, 0.5 and 0.75."""
    copy = shutil.copytree(features, tmp_path_factory.mktemp("many") / "f")
    for value in (0.25, 0.5, 0.75):
        constant = shutil.copytree(copy / ORIGIN, copy / f"piano_{value}")
        for path in constant.rglob("*.npy"):
            np.save(path, np.full_like(np.load(path), value))
    return copy


ORIGINS = ["piano_0.25", "piano_0.5", "piano_0.75"]


def origins_drawn(pairs):
    """The constant of each pair's origin, and the targets."""
    x, y = all_batches(pairs)
    assert np.ptp(x, axis=(1, 2, 3)).max() == 0
    return (x[:, 0, 0, 0] + 1) / 2, y


def test_each_epoch_draws_an_origin_for_each_tile_of_the_target(many):
    pairs = dataset.TilePairs(many, ORIGINS, TARGET, NAMES, dataset.Batching(3, seed=1))
    assert len(pairs.index) == 12  # each tile of the target once an epoch, whichever its origin
    pairs.set_epoch(1)
    first, y = origins_drawn(pairs)
    assert len(np.unique(y, axis=0)) == 12
    pairs.set_epoch(2)
    second, _ = origins_drawn(pairs)
    pairs.set_epoch(1)
    again, y_again = origins_drawn(pairs)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(y, y_again)
    assert not np.array_equal(first, second)
    drawn = []
    for epoch in range(20):
        pairs.set_epoch(epoch)
        drawn.append(origins_drawn(pairs)[0])
    counts = np.unique(np.concatenate(drawn), return_counts=True)[1]
    assert counts.min() > 60 and counts.sum() == 240  # 80 each in the mean, sigma 7


def test_in_order_origins_take_turns(many):
    pairs = dataset.TilePairs(many, ORIGINS, TARGET, NAMES, dataset.Batching(3))
    drawn, _ = origins_drawn(pairs)
    np.testing.assert_allclose(drawn, [0.25, 0.5, 0.75] * 4)


def test_conditions_change_training_pairs_by_seed_epoch_and_tile(many):
    class Drawn:
        blends = duets = False

        def __call__(self, origin, target, rng, other, partner):
            assert origin.shape == target.shape == (256, 256)
            assert origin.dtype == target.dtype == np.float32
            assert 0 <= origin.min() <= origin.max() <= 1
            assert other is None and partner is None
            return np.full_like(origin, rng.random()), target

    pairs = dataset.TilePairs(
        many, ORIGINS, TARGET, NAMES, dataset.Batching(3, seed=1, conditions=Drawn())
    )
    pairs.set_epoch(4)
    drawn, _ = origins_drawn(pairs)
    expected = [np.random.default_rng((1, 4, tile)).random() for tile in pairs.order]
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


@pytest.mark.parametrize("wanted", ["blends", "duets"])
def test_what_needs_a_second_origin_is_given_any_of_them(many, wanted):
    """Their tiles are 0.25, 0.5 and 0.75 everywhere."""

    class Other:
        blends = wanted == "blends"
        duets = wanted == "duets"
        given = True

        def __call__(self, origin, target, rng, *others):
            found = [other for other in others if other is not None]
            self.given = len(found) == 1
            return (found[0] if self.given else origin), target

    pairs = dataset.TilePairs(
        many, ORIGINS, TARGET, NAMES, dataset.Batching(3, seed=1, conditions=Other())
    )
    drawn = []
    for epoch in range(20):
        pairs.set_epoch(epoch)
        drawn.append(origins_drawn(pairs)[0])
    values, counts = np.unique(np.concatenate(drawn), return_counts=True)
    np.testing.assert_allclose(values, [0.25, 0.5, 0.75])
    assert counts.min() > 50 and counts.sum() == 240
    conditions = Other()
    dataset.TilePairs(
        many, ORIGINS[:1], TARGET, NAMES, dataset.Batching(3, seed=1, conditions=conditions)
    )[0]
    assert not conditions.given  # of one origin there is no other


def test_the_last_batch_can_be_shared_out_to_devices(features):
    pairs = dataset.TilePairs(
        features, [ORIGIN], TARGET, NAMES[:3], dataset.Batching(8, multiple=4)
    )
    assert [len(pairs[i][0]) for i in range(len(pairs))] == [8]  # of 9, one is left out
    pairs = dataset.TilePairs(features, [ORIGIN], TARGET, NAMES, dataset.Batching(8, multiple=4))
    assert [len(pairs[i][0]) for i in range(len(pairs))] == [8, 4]


LIMITED = """
import resource, sys
from common import dataset
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
names = [f"p{i:04d}" for i in range(1500)]
instruments = ["a", "b", "c", "d"]
pairs = dataset.TilePairs(sys.argv[1], instruments[:3], "d", names, dataset.Batching(8, seed=0))
x, y = pairs[0]
assert x.shape == y.shape == (8, 256, 256, 1)
assert len(pairs.index) == 1500
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_set_may_have_more_files_than_a_process_may_open(tmp_path):
    tile = tmp_path / "tile.npy"
    np.save(tile, np.zeros((1, 256, 256, 1), np.float16))
    for instrument in "abcd":
        (tmp_path / instrument).mkdir()
        for number in range(1500):
            os.link(tile, tmp_path / instrument / f"p{number:04d}.npy")
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_file_that_cannot_be_opened_is_not_called_damaged(features, monkeypatch):
    path = features / ORIGIN / "three.npy"
    tiles = dataset.Tiles(path)

    def refuse(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(dataset.os, "open", refuse)
    with pytest.raises(UserError, match="too many files are open") as found:
        tiles.read(0, 1)
    assert "delete" not in str(found.value)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        dataset.Tiles(features / "nowhere.npy")


def test_a_file_that_became_shorter_is_told(features, tmp_path):
    path = shutil.copy(features / ORIGIN / "three.npy", tmp_path / "three.npy")
    tiles = dataset.Tiles(path)
    with open(path, "r+b") as file:
        file.truncate(200_000)
    with pytest.raises(UserError, match="ends too early"):
        tiles.read(1, 2)


@pytest.mark.parametrize("cache", [False, True])
def test_tiles_are_what_numpy_reads(features, cache):
    path = features / ORIGIN / "three.npy"
    expected = np.load(path)
    tiles = dataset.Tiles(path, cache)
    assert len(tiles) == len(expected) == 3
    np.testing.assert_array_equal(tiles[1], expected[1])
    np.testing.assert_array_equal(tiles.read(1, 99), expected[1:])


def test_batch_larger_than_the_data(features):
    with pytest.raises(UserError, match="only 12 training tiles"):
        dataset.TilePairs(features, [ORIGIN], TARGET, NAMES, dataset.Batching(13, seed=0))


def test_other_parameters_are_refused(features, tmp_path):
    copy = shutil.copytree(features, tmp_path / "f")
    description = json.loads((copy / "features.json").read_text())
    description["parameters"]["hop_length"] = 256
    (copy / "features.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="hop_length is 256, but this code uses 512"):
        dataset.read_features_json(copy)


@pytest.mark.parametrize("damage", ["pickled", "truncated", "shape", "type", "tiles"])
def test_damaged_tiles_are_refused(features, tmp_path, damage):
    path = shutil.copytree(features, tmp_path / "f") / ORIGIN / "three.npy"
    tiles = np.load(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        new = {
            "pickled": np.array([{}]),
            "shape": tiles[:, :9],
            "type": tiles.astype(float),
            "tiles": tiles[:1],
        }[damage]
        np.save(path, new, allow_pickle=True)
    with pytest.raises(UserError, match="three"):
        dataset.TilePairs(tmp_path / "f", [ORIGIN], TARGET, ["three"], dataset.Batching(1))


def test_baselines_equal_the_slow_computation(features):
    pairs = dataset.TilePairs(features, [ORIGIN], TARGET, NAMES, dataset.Batching(1))
    x, y = all_batches(pairs)
    median = dataset.find_target_median(pairs)
    np.testing.assert_allclose(median, np.median((y[..., 0] + 1) / 2, axis=(0, 2)), atol=1e-6)
    baselines = dataset.measure_baselines(pairs, median)
    assert baselines["identity"] == pytest.approx(np.abs(x - y).mean() * 96.3297 / 2, rel=1e-4)
    picture = (median * 2 - 1)[:, None, None]
    assert baselines["median"] == pytest.approx(np.abs(picture - y).mean() * 96.3297 / 2, rel=1e-4)


def make_sparse(folder, pieces):
    """A features folder from {instrument: pieces}: one tile each, whose value tells them apart."""
    for number, (instrument, names) in enumerate(pieces.items()):
        (folder / instrument).mkdir(parents=True)
        for name in names:
            tile = np.full((1, 256, 256, 1), number / 16, np.float16)
            np.save(folder / instrument / f"{name}.npy", tile)
    return folder


def test_an_origin_may_lack_some_of_the_pieces(tmp_path):
    pieces = {TARGET: "abcd", ORIGIN: "abd", "organ_electronic": "bce", "organ_electronic_001": ""}
    make_sparse(tmp_path, pieces)
    origins = [ORIGIN, "organ_electronic", "organ_electronic_001"]
    names, unpaired = splits.pair_pieces(tmp_path, [TARGET], origins)
    assert names == ["a", "b", "c", "d"]
    assert unpaired == ["organ_electronic/e"]
    pairs = dataset.TilePairs(tmp_path, origins, TARGET, names, dataset.Batching(1))
    x, _ = all_batches(pairs)
    drawn = (x[:, 0, 0, 0] + 1) * 8  # the instruments' numbers; in order they take turns
    np.testing.assert_array_equal(drawn, [1, 2, 2, 1])
    shuffled = dataset.TilePairs(tmp_path, origins, TARGET, names, dataset.Batching(1, seed=0))
    seen = {name: set() for name in names}
    for epoch in range(12):
        shuffled.set_epoch(epoch)
        for row in range(4):
            origin, _ = shuffled.read(row)
            seen[names[shuffled.index[shuffled.order[row]][0]]].add(float(origin.max()) * 16)
    assert seen == {"a": {1}, "b": {1, 2}, "c": {2}, "d": {1}}


def test_pieces_that_some_instrument_has(tmp_path):
    make_sparse(tmp_path, {ORIGIN: "ab", "organ_electronic": "b"})
    assert splits.keep_played(tmp_path, ["organ_electronic"], ["a", "b"], "--flag") == ["b"]
    with pytest.raises(
        UserError, match="--flag organ_electronic: has none of the 1 held-out pieces"
    ):
        splits.keep_played(tmp_path, ["organ_electronic"], ["a"], "--flag")


def test_families_get_their_shares(tmp_path):
    """Pianos a half, whatever the number of other instruments, and of the pieces they have."""
    names = ["piano_a", "piano_a_001", "organ_a", "organ_a_001", "harp_a"]
    has = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [1, 1, 1, 0, 0]], bool)
    chances = dataset.weigh_origins(names, has, {"piano_a": 0.5})
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert not chances[~has].any()
    assert chances[0, 0] == chances[0, 1]
    assert chances[1, 0] > chances[0, 0]  # alone there
    # the organ has three pieces of four, the harp one: a quarter of all tiles for each
    organ = 0.25 / 0.75
    np.testing.assert_allclose(chances[1, 2:4], organ / (0.5 + organ) / 2)
    np.testing.assert_allclose(chances[2, 4], 1 / (0.5 + 1))
    equal = dataset.weigh_origins(names, has, {})
    np.testing.assert_allclose(equal[0], [1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_shares_without_a_piece_or_a_rest(tmp_path):
    """Every piece has its origins' chances; 0/0 would draw an origin that lacks the piece."""
    has = np.array([[1, 1, 0], [0, 1, 0]], bool)
    chances = dataset.weigh_origins(["piano_a", "organ_a", "harp_a"], has, {"piano_a": 0.5})
    np.testing.assert_allclose(chances[1], [0, 1, 0])  # no piece has the harp
    chances = dataset.weigh_origins(
        ["piano_a", "organ_a", "harp_a"], has, {"piano_a": 0.7, "harp_a": 0.3}
    )
    np.testing.assert_allclose(chances, [[1, 0, 0], [0, 1, 0]])


def test_shares_are_kept_in_what_is_drawn(tmp_path):
    origins = [ORIGIN, *(f"organ_electronic_{i:03d}" for i in range(5))]
    make_sparse(tmp_path, {TARGET: "ab", **dict.fromkeys(origins, "ab")})
    shares = {ORIGIN: 0.75}
    pairs = dataset.TilePairs(
        tmp_path, origins, TARGET, "ab", dataset.Batching(1, seed=0, shares=shares)
    )
    drawn = []
    for epoch in range(400):
        pairs.set_epoch(epoch)
        drawn += pairs.drawn.tolist()
    share = np.mean(np.array(drawn) == pairs.origins[0])
    assert 0.7 < share < 0.8
    assert len(set(drawn)) == 6


def test_blends_stay_within_a_family_and_duets_do_not(tmp_path):
    origins = [ORIGIN, f"{ORIGIN}_001", "organ_electronic"]
    make_sparse(tmp_path, {TARGET: "ab", **dict.fromkeys(origins, "ab")})
    drawn = {}  # tiles that a condition is given, by condition and origin: 1, 2 and 3 of 16

    class Watched(augment.Conditions):
        def __call__(self, origin, target, rng, *others):
            own = float(origin.max()) * 16
            for other in others:
                if other is not None:
                    drawn.setdefault((*self.names, own), set()).add(float(other.max()) * 16)
            return origin, target

    for name in ("blend", "duet"):
        batching = dataset.Batching(1, seed=0, conditions=Watched([name]))
        pairs = dataset.TilePairs(tmp_path, origins, TARGET, "ab", batching)
        for epoch in range(60):
            pairs.set_epoch(epoch)
            list(map(pairs.__getitem__, range(2)))
    family = {("blend", 1): {1, 2}, ("blend", 2): {1, 2}, ("blend", 3): {3}}
    assert drawn == family | {("duet", own): {1, 2, 3} for own in (1, 2, 3)}
