import json
import shutil

import numpy as np
import pytest
from conftest import ORIGIN, TARGET
from hypothesis import given
from hypothesis import strategies as st

import compute_features
import data
import dataset
import learned_phase
import midi
from audio import read_audio
from cli import UserError

NAMES = ["bach/one", "bach/two", "four", "three"]


def test_pairs_by_name_and_names_what_has_no_partner(features, tmp_path):
    assert dataset.pair_pieces(features, ORIGIN, TARGET) == (NAMES, [])
    copy = shutil.copytree(features, tmp_path / "f")
    (copy / TARGET / "four.npy").unlink()
    (copy / ORIGIN / "bach/two.npy").unlink()
    assert dataset.pair_pieces(copy, ORIGIN, TARGET) == (
        ["bach/one", "three"],
        [f"{TARGET}/bach/two", f"{ORIGIN}/four"],
    )


def test_pairing_mistakes(features):
    with pytest.raises(UserError, match="origin too"):
        dataset.pair_pieces(features, ORIGIN, ORIGIN)
    with pytest.raises(UserError, match="named too"):
        dataset.pair_pieces(features, [ORIGIN, ORIGIN], [TARGET, ORIGIN])
    with pytest.raises(UserError, match="there are: guitar_acoustic, keyboard_acoustic"):
        dataset.pair_pieces(features, ORIGIN, "organ")


@given(count=st.integers(2, 60), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_split_is_by_piece_and_keeps_versions_together(count, fraction, seed):
    names = [midi.version_name(f"p{i}", t) for i in range(count) for t in (-1, 0, 1)]
    train, held_out = dataset.split_pieces(names, fraction, seed)
    assert sorted(train + held_out) == sorted(names)
    assert not {midi.piece_of(n) for n in train} & {midi.piece_of(n) for n in held_out}
    assert len(held_out) == 3 * min(count - 1, max(1, round(count * fraction)))
    assert dataset.split_pieces(names[::-1], fraction, seed)[1] == held_out[::-1]


def test_split_needs_two_pieces():
    with pytest.raises(UserError, match="only piece"):
        dataset.split_pieces(["a", "a~t+1"], 0.1)


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
    assert dataset.maestro_split(path, names) == split
    no_piece = MAESTRO, "none of the 1 pieces in train"
    for text, reason in (
        no_piece,
        ("a,b\n1,2\n", "no table"),
        ("midi_filename,split\n,", "no table"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            dataset.maestro_split(path, ["mine"])
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match="no table"):
        dataset.maestro_split(path, names)


def test_batches_are_aligned_scaled_and_complete(features):
    pairs = dataset.TilePairs(features, ORIGIN, TARGET, NAMES, batch_size=5)
    batches = [pairs[i] for i in range(len(pairs))]
    assert [len(x) for x, _ in batches] == [5, 5, 2]
    x, y = (np.concatenate(side) for side in zip(*batches))
    for instrument, tiles in ((ORIGIN, x), (TARGET, y)):
        stored = np.concatenate([np.load(features / instrument / f"{name}.npy") for name in NAMES])
        np.testing.assert_array_equal(tiles, data.to_network(stored))
    assert x.dtype == np.float32


def test_shuffling_follows_from_seed_and_epoch(features):
    def epoch(number, seed=3):
        pairs = dataset.TilePairs(features, ORIGIN, TARGET, NAMES, batch_size=5, seed=seed)
        pairs.set_epoch(number)
        assert len(pairs) == 2  # what does not fill a batch is left out
        return np.concatenate([pairs[i][0] for i in range(2)])

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert not np.array_equal(epoch(1), epoch(2))
    assert not np.array_equal(epoch(1), epoch(1, seed=4))


@pytest.mark.parametrize("seed", [None, 3])
def test_styles_are_tiles_of_the_same_target_from_another_piece(features, tmp_path, seed):
    copy = shutil.copytree(features, tmp_path / "f")
    names = [*NAMES, "four~t+2"]  # a version of a piece is no other piece
    for instrument in (ORIGIN, TARGET):
        shutil.copy(copy / instrument / "four.npy", copy / instrument / "four~t+2.npy")
    third = shutil.copytree(copy / TARGET, copy / "string_acoustic")
    for path in third.rglob("*.npy"):
        np.save(path, 1 - np.load(path))
    owner = {}
    for instrument in (ORIGIN, TARGET, third.name):
        for name in names:
            tiles = np.load(copy / instrument / f"{name}.npy")
            owner |= {tile.tobytes(): (instrument, dataset.piece_of(name)) for tile in tiles}
    pairs = dataset.TilePairs(copy, ORIGIN, [TARGET, third.name], names, batch_size=5, seed=seed)
    assert len(pairs.index) == 2 * 3 * len(names)
    x, y = (np.concatenate(side) for side in zip(*(pairs[i] for i in range(len(pairs)))))
    assert x.shape[1:] == (256, 256, 2)
    to_owner = lambda tile: owner[((tile + 1) / 2).astype(np.float16).tobytes()]  # noqa: E731
    both = [ORIGIN, TARGET]  # any to any: each of them to each of the others
    anything = dataset.TilePairs(copy, both, [*both, third.name], names, batch_size=5, seed=seed)
    assert len(anything.index) == 4 * 3 * len(names)
    pairs_seen = set()
    for content, truth in ((x[..., :1], y) for x, y in (anything[i] for i in range(len(anything)))):
        for a, b in zip(map(to_owner, content), map(to_owner, truth)):
            assert a[1] == b[1]
            pairs_seen.add((a[0], b[0]))
    assert pairs_seen == {(a, b) for a in both for b in (*both, third.name) if a != b}
    for content, style, truth in zip(x[..., :1], x[..., 1:], y):
        assert to_owner(content)[0] == ORIGIN
        assert to_owner(content)[1] == to_owner(truth)[1] != to_owner(style)[1]
        assert to_owner(style)[0] == to_owner(truth)[0] != ORIGIN
    with pytest.raises(UserError, match="is the only piece held out"):
        dataset.TilePairs(copy, ORIGIN, [TARGET, third.name], ["four", "four~t+2"], batch_size=5)


def test_rotation_takes_the_origins_phase_to_the_targets(audios, tmp_path):
    flags = ["--audios", str(audios), "--features", str(tmp_path), "--phase", "--workers", "1"]
    assert compute_features.main(flags) == 0
    magnitudes, _ = dataset.TilePairs(tmp_path, ORIGIN, TARGET, ["three"], 3)[0]
    x, y = dataset.TilePairs(tmp_path, ORIGIN, TARGET, ["three"], 3, learn="phase")[0]
    both_x, both_y = dataset.TilePairs(tmp_path, ORIGIN, TARGET, ["three"], 3, learn="both")[0]
    np.testing.assert_array_equal(both_x, magnitudes)
    np.testing.assert_array_equal(both_y[..., 1:], y)
    np.testing.assert_array_equal(np.concatenate([both_x, both_y[..., :1]], axis=-1), x)
    stft = lambda i: data.stft(read_audio(audios / i / "three.wav"))[:256, :256]  # noqa: E731
    origin, target = stft(ORIGIN), stft(TARGET)
    turned = learned_phase.turned(data.phasor(origin), y[0])
    loud = data.magnitude(target) > 1e-4
    assert loud.sum() > 5000
    assert (
        np.abs(turned - data.phasor(target))[loud].max() < 0.02
    )  # radians; float16 keeps half turns to 5e-4
    weight = np.hypot(y[0, ..., 0], y[0, ..., 1])
    np.testing.assert_allclose(weight, data.amplitude_to_db(data.magnitude(target)), atol=2e-3)
    plain = compute_features.main(
        ["--audios", str(audios), "--features", str(tmp_path / "plain"), "--workers", "1"]
    )
    assert plain == 0
    with pytest.raises(UserError, match=r"--learn both: .* holds no phase"):
        dataset.TilePairs(tmp_path / "plain", ORIGIN, TARGET, ["three"], 3, learn="both")


def test_batch_larger_than_the_data(features):
    with pytest.raises(UserError, match="only 12 training tiles"):
        dataset.TilePairs(features, ORIGIN, TARGET, NAMES, batch_size=13, seed=0)


def test_other_parameters_are_refused(features, tmp_path):
    copy = shutil.copytree(features, tmp_path / "f")
    description = json.loads((copy / "features.json").read_text())
    description["parameters"]["hop_length"] = 256
    (copy / "features.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="hop_length is 256, this code's is 512"):
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
        dataset.TilePairs(tmp_path / "f", ORIGIN, TARGET, ["three"], 1)


def test_baselines_equal_the_slow_computation(features):
    pairs = dataset.TilePairs(features, ORIGIN, TARGET, NAMES, batch_size=1)
    x, y = (np.concatenate(side) for side in zip(*(pairs[i] for i in range(len(pairs)))))
    median = dataset.target_median(pairs)
    np.testing.assert_allclose(median, np.median((y[..., 0] + 1) / 2, axis=(0, 2)), atol=1e-6)
    baselines = dataset.baselines_db(pairs, median)
    assert baselines["identity"] == pytest.approx(np.abs(x - y).mean() * 96.3297 / 2, rel=1e-4)
    picture = (median * 2 - 1)[:, None, None]
    assert baselines["median"] == pytest.approx(np.abs(picture - y).mean() * 96.3297 / 2, rel=1e-4)
