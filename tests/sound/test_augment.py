import numpy as np
import pytest

from data import BINS, DB_RANGE, TILE_FRAMES, amplitude_to_db, db_to_amplitude
from sound import augment


def tile(seed=0):
    """A made-up tile: decaying partials, dB scale, float32 (256, 256)."""
    rng = np.random.default_rng(seed)
    mag = np.zeros((BINS, TILE_FRAMES))
    for start in range(0, TILE_FRAMES, 32):
        pitch = rng.integers(8, 30)
        envelope = 0.1 * np.exp(-np.arange(TILE_FRAMES - start) / 40)
        for partial in range(1, 6):
            mag[pitch * partial, start:] += envelope / partial
    return amplitude_to_db(mag)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("names", [(name,) for name in augment.ALL] + [augment.ALL])
def test_a_pair_follows_from_the_generator_alone(names):
    conditions = augment.Conditions(names, probability=1)
    origin, target = tile(1), tile(2)
    kept = origin.copy(), target.copy()
    others = tile(3), tile(5)
    first = conditions(origin, target, rng(3), *others)
    again = conditions(origin.astype(np.float16), target, rng(3), *others)
    other = conditions(origin, target, rng(4), *others)
    np.testing.assert_array_equal(origin, kept[0])  # the tiles given stay as they are
    np.testing.assert_array_equal(target, kept[1])
    np.testing.assert_allclose(first[0], again[0], atol=2e-3)
    assert np.abs(first[0] - other[0]).max() > 1e-3
    for picture in first:
        assert picture.shape == (BINS, TILE_FRAMES)
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
        assert picture.min() >= 0


@pytest.mark.parametrize("name", augment.ORIGIN_ONLY)
def test_what_happens_to_the_recording_leaves_the_target(name):
    origin, target = augment.Conditions([name], probability=1)(tile(1), tile(2), rng())
    np.testing.assert_allclose(target, tile(2), atol=1e-5)
    assert np.abs(origin - tile(1)).max() * DB_RANGE > 0.3


def test_no_condition_changes_nothing():
    origin, target = augment.Conditions(probability=0)(tile(1), tile(2), rng())
    np.testing.assert_allclose(origin, tile(1), atol=1e-5)
    np.testing.assert_allclose(target, tile(2), atol=1e-5)


def test_a_blend_lies_between_two_instruments_or_a_little_beyond():
    first = np.full((BINS, TILE_FRAMES), 0.4, np.float32)
    second = np.full((BINS, TILE_FRAMES), 0.6, np.float32)
    weights = []
    for seed in range(50):
        blended = augment.blend(first, second, rng(seed))
        np.testing.assert_array_equal(blended, blended[:, :1].repeat(TILE_FRAMES, 1))
        weights.append((blended[:, 0] - 0.4) / 0.2)
    weights = np.array(weights)
    assert weights.min() == pytest.approx(-0.3, abs=0.05)
    assert weights.max() == pytest.approx(1.3, abs=0.05)
    assert weights.mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(np.diff(weights[:, 16:])).max() < 0.15  # smooth over frequency
    np.testing.assert_array_equal(augment.blend(first, first, rng()), first)


def test_a_duet_is_as_loud_as_one_and_each_plays_alone_at_times():
    first = np.full((BINS, TILE_FRAMES), 0.1, np.float32)
    np.testing.assert_allclose(augment.duet(first, first, rng()), first, rtol=1e-6)
    silence = np.zeros_like(first)
    shares = []  # of the power
    for seed in range(50):
        alone = augment.duet(first, silence, rng(seed))
        partner = augment.duet(silence, first, rng(seed))
        np.testing.assert_allclose(alone**2 + partner**2, first**2, rtol=1e-5)
        np.testing.assert_array_equal(alone, alone[:1].repeat(BINS, 0))
        shares.append(partner[0] ** 2 / 0.1**2)
    shares = np.array(shares)
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert (shares == 0).mean() > 0.02 and (shares > 0.999).mean() > 0.02
    assert np.abs(np.diff(shares)).max() < 0.03  # no clicks: from one to the other takes 43 frames


def test_a_duet_is_of_the_instrument_not_of_the_target():
    origin, target = augment.Conditions(["duet"], 1)(tile(1), tile(2), rng(), partner=tile(3))
    assert np.abs(origin - tile(1)).max() * DB_RANGE > 1
    np.testing.assert_allclose(target, tile(2), atol=1e-5)
    assert "duet" not in augment.DEFAULT


@pytest.mark.parametrize("name", ["blend", "duet"])
def test_without_a_second_instrument_nothing_changes(name):
    origin, _ = augment.Conditions([name], probability=1)(tile(1), tile(2), rng())
    np.testing.assert_allclose(origin, tile(1), atol=1e-5)


def test_an_unknown_condition_is_named():
    with pytest.raises(ValueError, match="fog"):
        augment.Conditions(["level", "fog"])


def test_a_room_decays_by_its_reverberation_time():
    """A click's tail, averaged over many bins and rooms, falls on a straight line in dB."""
    click = np.zeros((BINS, TILE_FRAMES))
    click[:, 0] = 1
    for seed in range(5):
        bass_rt60 = np.exp(rng(seed).uniform(np.log(0.2), np.log(2.5)))
        tail = augment.add_room(click, rng(seed))[:20, 1:] ** 2
        frames = np.arange(1, min(TILE_FRAMES, int(bass_rt60 / augment.FRAME_SECONDS)))
        level = 10 * np.log10(tail[:, : len(frames)].mean(axis=0))
        slope = np.polyfit(frames * augment.FRAME_SECONDS, level, 1)[0]  # dB a second
        assert slope == pytest.approx(-60 / bass_rt60, rel=0.15)


def test_silence_before_the_first_note_stays_silent_in_a_room():
    mag = np.zeros((BINS, TILE_FRAMES))
    mag[10, 100:] = 1
    assert not augment.add_room(mag, rng())[:, :100].any()


@pytest.mark.parametrize("change", [augment.add_reflections, augment.change_tone])
def test_a_colouring_is_the_same_in_every_frame(change):
    response = change(np.ones((BINS, TILE_FRAMES)), rng())
    np.testing.assert_allclose(response, np.broadcast_to(response[:, :1], response.shape))
    assert response.std() > 0.05


def test_noise_fills_silence_and_drowns_in_music():
    noise = augment.add_noise(np.zeros((BINS, TILE_FRAMES)), rng(2))
    assert noise.min() > 0
    assert -115 < 20 * np.log10(noise[20:].mean()) < -40
    loud = np.ones((BINS, TILE_FRAMES))
    np.testing.assert_allclose(augment.add_noise(loud, rng(2)), loud, rtol=1e-3)


def test_hum_stands_at_the_harmonics_of_the_mains():
    power = augment.hum_power(BINS, rng())
    assert power[:1].sum() == 0
    assert np.argmax(power) in (1, 2)  # 43 and 86 Hz: the bins nearest to 50 and 60 Hz, and to 100
    assert not power[16:].any()


def test_a_band_is_cut_on_both_sides_and_kept_between():
    for seed in range(5):
        response = augment.limit_band(np.ones((BINS, 1)), rng(seed))[:, 0]
        hertz = augment.frequencies(BINS)
        middle = (hertz > 300) & (hertz < 2900)
        np.testing.assert_allclose(response[middle], 1)
        top = response[hertz > 3000]
        assert (np.diff(top) <= 0).all()
        assert top[-1] < 0.95


def test_dynamics_leave_a_steady_sound_and_order_of_loudness():
    steady = np.full((BINS, TILE_FRAMES), 0.01)
    np.testing.assert_allclose(augment.change_dynamics(steady, rng()), steady, rtol=1e-6)
    steps = np.repeat([0.001, 0.01, 0.1], [86, 85, 85])
    for seed in range(5):
        changed = augment.change_dynamics(np.tile(steps, (BINS, 1)), rng(seed))[0]
        assert changed[80] < changed[165] < changed[250]


def test_level_moves_both_alike_and_never_past_full_scale():
    origin, target = db_to_amplitude(tile(1)), db_to_amplitude(tile(2))
    for seed in range(8):
        moved_origin, moved_target = augment.change_level(origin, target, rng(seed))
        gain = moved_origin.max() / origin.max()
        np.testing.assert_allclose(moved_origin, origin * gain, rtol=1e-5)
        np.testing.assert_allclose(moved_target, target * gain, rtol=1e-5)
        assert 0.19 < gain < 2.6
        assert max(moved_origin.max(), moved_target.max()) <= 1 + 1e-6


def test_detuning_moves_a_partial_in_proportion():
    mag = np.zeros((BINS, 4))
    mag[200] = 1
    for seed in range(6):
        ratio = 2 ** (rng(seed).uniform(-30, 30) / 1200)
        moved, _ = augment.detune(mag, mag, rng(seed))
        centre = (moved[:, 0] * np.arange(BINS)).sum() / moved[:, 0].sum()
        assert centre == pytest.approx(200 * ratio, abs=0.6)
