"""That the benchmarks' figures are what they say they are. Their speeds are not tested."""

import os
import types

import numpy as np
import pytest
from conftest import ROOT
from music import midi_bytes, note
from scripts import load_script

import data
from common import cli
from conversion import convert
from sound.recordings import write_audio


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_gib_on_every_system(monkeypatch, platform, unit):
    measure = load_script("benchmarks/measure.py", monkeypatch)
    usage = types.SimpleNamespace(ru_maxrss=3 * 2**30 // unit)
    fake = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setattr(measure, "resource", fake)
    monkeypatch.setattr(measure.sys, "platform", platform)
    assert measure.peak_memory() == 3


def test_first_calls_do_not_count(monkeypatch):
    measure = load_script("benchmarks/measure.py", monkeypatch)
    now = [0.0]
    durations = iter([100.0, 100.0, 1.0, 2.0, 3.0])

    def work():
        now[0] += next(durations)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    times = measure.call_times(work, 5, warm_up=2, clock=lambda: now[0])
    assert times == [1, 2, 3]


def test_a_folder_without_midi_is_one_line(monkeypatch, tmp_path):
    measure = load_script("benchmarks/measure.py", monkeypatch)
    (tmp_path / "song.wav").touch()
    with pytest.raises(cli.UserError, match=r"--midi_path .*holds no MIDI file; check the path"):
        measure.find_midi(tmp_path)
    (tmp_path / "song.MID").touch()
    assert measure.find_midi(tmp_path) == [tmp_path / "song.MID"]


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_who_imports_data_preparation_keeps_all_threads(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    load_script("benchmarks/data_preparation.py", monkeypatch)
    assert name not in os.environ


def test_data_preparation_compares_the_same_pieces(monkeypatch, tmp_path, capsys):
    """Ours and the baseline get a quarter of those that are measured."""
    preparation = load_script("benchmarks/data_preparation.py", monkeypatch)
    compared = {}
    for name in ("time_ours", "time_baseline"):

        def note(watch, *args, name=name):
            compared[name] = next(arg for arg in args if isinstance(arg, list))
            return 1.0

        monkeypatch.setattr(preparation, name, note)
    monkeypatch.setattr(preparation, "warm_up", lambda *_: None)
    command = ["--nsynth_path", str(ROOT / "demo/notes"), "--midi_path", str(ROOT / "demo/midi")]
    assert preparation.main([*command, "--hours", "0"]) in (None, 0)
    assert len(compared["time_ours"]) == 2  # of 8
    for ours, theirs in zip(compared["time_ours"], compared["time_baseline"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert capsys.readouterr().out.endswith("1.0 times as fast as the baseline\n")


def test_phases_are_compared_with_the_start_as_it_is(monkeypatch, tmp_path, capsys):
    phase = load_script("benchmarks/phase.py", monkeypatch)
    command = ["--model", "guitar", "--audios_path", str(tmp_path), "--iterations", "8", "32"]
    assert phase.main(command) == 2
    assert "--iterations 8 32: lacks 0" in capsys.readouterr().err


@pytest.mark.parametrize("renderings", [3, 9])
def test_the_floor_lies_between_its_bounds(monkeypatch, renderings):
    """Of normal noise the best guess is its mean, and the error of that is known."""
    floor = load_script("benchmarks/floor.py", monkeypatch)
    sigma = 0.01
    pictures = np.random.default_rng(0).normal(0.5, sigma, (renderings, 256, 400))
    lower, upper = floor.bracket_floor(pictures)
    known = sigma * np.sqrt(2 / np.pi) * data.DB_RANGE
    assert lower < 0.98 * known
    assert upper > 1.02 * known


def forward_gflop(network):
    """GFLOP of a pass of one tile, two for each multiply-add, by the layers' kernels."""
    total = 0
    for layer in network._flatten_layers():
        if hasattr(layer, "kernel_size"):
            side = min(layer.input.shape[1], layer.output.shape[1])
            total += 2 * side**2 * np.prod(layer.kernel.shape)
    return total / 1e9


@pytest.mark.parametrize("filters", [1, 16])
def test_the_operations_of_a_step_are_those_of_its_layers(monkeypatch, filters):
    import models

    train_step = load_script("benchmarks/train_step.py", monkeypatch)
    generator = forward_gflop(models.build_generator(filters))
    discriminator = forward_gflop(models.build_discriminator(filters))
    expected = 3 * generator + 7 * discriminator
    assert train_step.step_gflop(filters) == pytest.approx(expected)


def test_conversion_is_measured_as_users_get_it(monkeypatch):
    predict = load_script("benchmarks/predict.py", monkeypatch)
    assert predict.build_parser().parse_args([]).overlap == convert.OVERLAP > 0


def test_a_stage_counts_without_those_inside_it_but_measuring_the_input_with_them(monkeypatch):
    predict = load_script("benchmarks/predict.py", monkeypatch)
    now = [0.0]
    monkeypatch.setattr(predict.time, "process_time", lambda: now[0])
    watch = predict.StageWatch()

    def work(seconds):
        now[0] += seconds

    def read():
        for _ in range(3):
            work(1)
            yield

    read = watch.wrap("reading", read)

    def transform():
        for _ in read():
            work(10)
            yield

    transform = watch.wrap("STFT", transform)
    list(transform())
    watch.wrap(predict.MEASURING, lambda: list(transform()))()
    work(100)
    watch.switch()
    known = {"reading": 3, "STFT": 30, predict.MEASURING: 33, "rest": 100}
    assert watch.seconds == known


def test_every_stage_is_there_to_be_timed(monkeypatch):
    predict = load_script("benchmarks/predict.py", monkeypatch)
    model = types.SimpleNamespace(predict_on_batch=len)
    places = list(filter(None, predict.STAGES.values()))
    for owner, name in places:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back at the end
    monkeypatch.setattr(convert, "ahead", convert.ahead)
    before = [getattr(owner, name) for owner, name in places]
    predict.watch_stages(predict.StageWatch(), model)
    after = [getattr(owner, name) for owner, name in places]
    assert model.predict_on_batch is not len
    assert not set(before) & set(after)


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_the_peak_is_not_that_of_starting_a_product(monkeypatch, backend):
    """Where starting one takes 100 us, and a product 100 us by itself."""
    pytest.importorskip("torch" if backend == "torch" else "keras")
    train_step = load_script("benchmarks/train_step.py", monkeypatch)
    found = []

    def call_times(function, seconds):
        count = function.args[0]
        found.append(count)
        return [100e-6 + 100e-6 * count]

    monkeypatch.setattr(train_step, "call_times", call_times)
    peak = train_step.peak_gflops(backend, "float32")
    assert found[0] == 1
    assert peak == pytest.approx(2 * 3072**3 / 100e-6 / 1e9, rel=0.01)


def test_pytorchs_step_has_the_gradients_of_two_losses(monkeypatch):
    """Though it runs the discriminator on the generated tiles once: here it runs twice."""
    torch = pytest.importorskip("torch")
    softplus = torch.nn.functional.softplus
    train_step = load_script("benchmarks/train_step.py", monkeypatch)
    torch.manual_seed(0)
    generator, discriminator = train_step.torch_networks(2)
    gen_weights = list(generator.parameters())
    disc_weights = list(discriminator.parameters())
    x, y = torch.rand(2, 3, 1, 256, 256).mul(2).sub(1)

    torch.manual_seed(1)  # of dropout
    losses = train_step.torch_gradients(generator, discriminator, disc_weights, x, y, False)

    torch.manual_seed(1)
    output = generator(x)
    judged = discriminator(torch.cat([x, output], 1))
    gen_loss = softplus(-judged).mean() + 100 * (output - y).abs().mean()
    real = discriminator(torch.cat([x, y], 1))
    generated = discriminator(torch.cat([x, output.detach()], 1))
    disc_loss = softplus(-real).mean() + softplus(generated).mean()
    known = [*torch.autograd.grad(gen_loss, gen_weights)]
    known += torch.autograd.grad(disc_loss, disc_weights)
    torch.testing.assert_close(losses, (gen_loss, disc_loss))
    torch.testing.assert_close([weight.grad for weight in gen_weights + disc_weights], known)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "agrees, 0.0% off"), (1.1, "**DIFFERS**, 10.0% off")]
)
def test_gpu_check_tells_what_differs_from_the_cpu(monkeypatch, capsys, factor, verdict):
    check = load_script("benchmarks/gpu_check.py", monkeypatch)
    reference = [20.0, 10.0, 5.0]

    def run_apart(args, measure, backend, precision, gpu):
        if measure == "agreement":
            return {"mae_db": [20.0, 10.0, 5.0 * factor]}, ""
        return {"seconds": 0.5, "peak": 10_000.0, "feeding": 0.98}, ""

    monkeypatch.setattr(check, "run_apart", run_apart)
    args = check.build_parser().parse_args(["--batch_size", "16", "--precisions", "float32"])
    agrees = check.check_backend(args, "jax", reference)
    line = capsys.readouterr().out
    assert agrees == (factor == 1.0)
    assert f"jax float32 | {verdict} | 32.0 |" in line  # 16 tiles in half a second
    assert "19%" in line  # of 10 TFLOP/s: 32 tiles of 58.7 GFLOP
    assert line.strip().endswith("| 10.00 | 0.98 |")


@pytest.mark.parametrize(
    ("errors", "off"),
    [
        ([20.0, 10.0, 5.0], 0.0),
        ([20.0, 11.0, 5.0], 0.1),
        ([20.0, np.nan, np.nan], np.inf),
        ([20.0, np.inf, 5.0], np.inf),
    ],
)
def test_a_training_that_diverges_does_not_agree(monkeypatch, errors, off):
    check = load_script("benchmarks/gpu_check.py", monkeypatch)
    reference = [20.0, 10.0, 5.0]
    assert check.largest_difference(errors, reference) == pytest.approx(off)
    with pytest.raises(ValueError, match="argument"):
        check.largest_difference(errors[:0], reference)


def test_gpu_check_keeps_the_verdict_where_speed_fails(monkeypatch, capsys):
    check = load_script("benchmarks/gpu_check.py", monkeypatch)

    def run_apart(args, measure, backend, precision, gpu):
        if measure == "agreement":
            return {"mae_db": [2.0]}, ""
        return None, "out of memory"

    monkeypatch.setattr(check, "run_apart", run_apart)
    args = check.build_parser().parse_args(["--precisions", "float32"])
    assert not check.check_backend(args, "jax", [2.0])
    row = capsys.readouterr().out.strip()
    assert row == "| jax float32 | agrees, 0.0% off | **failed**: out of memory | | | |"


def test_gpu_check_passes_on_what_failed(monkeypatch, capsys):
    check = load_script("benchmarks/gpu_check.py", monkeypatch)
    monkeypatch.setattr(check, "run_apart", lambda *_: (None, "out of memory"))
    args = check.build_parser().parse_args(["--precisions", "float16"])
    assert not check.check_backend(args, "torch", [1.0])
    assert "| torch float16 | **failed**: out of memory |" in capsys.readouterr().out


def test_gpu_check_trains_on_the_same_tiles_from_the_same_weights(monkeypatch, tmp_path):
    check = load_script("benchmarks/gpu_check.py", monkeypatch)
    features = check.prepare_tiles(tmp_path)
    pairs = check.make_pairs(features, check.SMALL_BATCH)
    assert check.EPOCHS * len(pairs) == 200
    first = check.build_model(2, dropout=0.0).get_weights()
    second = check.build_model(2, dropout=0.0).get_weights()
    for ours, theirs in zip(first, second):
        np.testing.assert_array_equal(ours, theirs)
    kernels = [weight for weight in first if weight.ndim == 4]
    assert len(kernels) == 8 + 8 + 5
    assert all(0.015 < kernel.std() < 0.025 for kernel in kernels)


def test_jaccard_distance_is_of_the_pitches_of_a_frame(monkeypatch):
    jaccard = load_script("benchmarks/pitch_jaccard.py", monkeypatch).jaccard_distance
    a = [{60, 64}, {60}, set(), {50}]
    assert jaccard(a, a) == 0
    b = [{60, 67}, {61}, set(), set(), {1}]
    assert jaccard(a, b) == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)


def test_folders_without_recordings_of_a_targets_name_are_one_line(monkeypatch, tmp_path):
    module = load_script("benchmarks/pitch_jaccard.py", monkeypatch)
    with pytest.raises(cli.UserError, match=r"holds no \.wav or \.flac"):
        module.find_recordings(tmp_path)
    (tmp_path / "one.wav").touch()
    with pytest.raises(cli.UserError, match="no recording is named like a target's"):
        module.measure_folder(tmp_path, {"two": []})


def test_the_tutorials_networks_are_as_large_as_ours(monkeypatch):
    pytest.importorskip("tensorflow")
    import models

    tutorial = load_script("benchmarks/tutorial.py", monkeypatch)
    for plain, own in (
        (tutorial.plain_generator(2, 256), models.build_generator(2)),
        (tutorial.plain_discriminator(2, 256), models.build_discriminator(2)),
    ):
        assert plain.count_params() == own.count_params()
        assert plain.output_shape == own.output_shape


def test_the_tutorials_step_is_nothing_of_ours():
    text = (ROOT / "benchmarks" / "tutorial.py").read_text()
    plain = text[text.index("def plain_block") : text.index("def make_our_step")]
    for name in ("models", "losses", "kernels", "devices"):
        assert f"import {name}" not in plain and f"{name}." not in plain.replace("losses.Bin", "")


def test_ratios_are_of_pairs(monkeypatch):
    tutorial = load_script("benchmarks/tutorial.py", monkeypatch)
    seconds = [(1.2, 1.0), (12.0, 10.0), (2.4, 2.0)]  # a busy machine hits both of a pair
    assert tutorial.compare(seconds) == pytest.approx([1.2, 1.2, 1.2])


def test_batch_sizes_are_compared_seed_by_seed(monkeypatch, capsys):
    batch_size = load_script("benchmarks/batch_size.py", monkeypatch)

    def train(args, batch, seed):
        return [{"val_mae_db": "9"}, {"val_mae_db": str(5 + seed + batch / 10)}]

    monkeypatch.setattr(batch_size, "train", train)
    assert batch_size.main(["--features", "x", "--batch_size", "1", "8"]) == 0
    printed = capsys.readouterr().out
    assert "| batch 1 | 6.10 ± 1.00 " in printed
    assert "| batch 8 − batch 1 | 0.70 ± 0.00 " in printed


def test_losses_are_compared_seed_by_seed(monkeypatch, tmp_path, capsys):
    """The notes are silence and one tone; the run with frame differences is 1 dB better."""
    loss_terms = load_script("benchmarks/loss_terms.py", monkeypatch)
    commands = []

    def train(args, script, name, seed, flags):
        commands.append((script, name, *flags))
        return [{"val_mae_db": str(5 + seed - name.startswith("delta"))}]

    monkeypatch.setattr(loss_terms, "train", train)
    monkeypatch.setattr(loss_terms, "convert_notes", lambda folder, audio, quality: audio)
    flags = ["--features", "x", "--nsynth_path", str(ROOT / "demo/notes"), "--seeds", "2"]
    assert loss_terms.main([*flags, "--runs_path", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| L1 and frame differences − L1 alone | -1.00 ± 0.00 " in printed
    assert "| L1 alone                 | 5.50 ± 0.71 " in printed
    assert "target: rise_ms" in printed
    assert len({name for _, name, *_ in commands}) == 6
    for script, name, *rest in commands:
        assert ("--delta_weight" in rest) == name.startswith("delta")
        assert (script == "train.py") == name.startswith("discriminator")


def test_piano_notes_are_those_of_the_score(monkeypatch, tmp_path):
    pytest.importorskip("mir_eval")
    transkun_notes = load_script("benchmarks/transkun_notes.py", monkeypatch)
    (tmp_path / "a.mid").write_bytes(midi_bytes(note(0, 400, 60) + note(480, 880, 64)))
    tone = np.zeros(2 * data.SAMPLE_RATE, np.float32)
    write_audio(tmp_path / "a.wav", tone)
    monkeypatch.setattr(transkun_notes, "read_recording", lambda path: tone)
    scores = {"a": tmp_path / "a.mid"}
    written = transkun_notes.read_notes(scores["a"], 2)
    assert written[1].tolist() == [60, 64]
    for heard, known in (
        (written, (1, 1)),
        ((written[0][:1], written[1][:1]), (2 / 3, 0.5)),
        ((np.array([]), np.array([])), (0, 0)),
        ((np.array([1.9]), np.array([60])), (0, 0)),  # too near the end to count
    ):
        found = transkun_notes.measure_folder(lambda audio, heard=heard: heard, tmp_path, scores)
        assert found["a"] == pytest.approx(known)
    with pytest.raises(cli.UserError, match="no recording is named like a score"):
        transkun_notes.measure_folder(None, tmp_path, {"b": scores["a"]})
