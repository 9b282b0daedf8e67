"""That the benchmarks' figures are what they say they are. Their speeds are not tested."""

import importlib.util
import types

import numpy as np
import pytest
from conftest import ROOT

import convert
import data


def load(name, monkeypatch):
    """A module of benchmarks/, some of which have the name of one of ours."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_gib_on_every_system(monkeypatch, platform, unit):
    measure = load("measure", monkeypatch)
    usage = types.SimpleNamespace(ru_maxrss=3 * 2**30 // unit)
    fake = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setattr(measure, "resource", fake)
    monkeypatch.setattr(measure.sys, "platform", platform)
    assert measure.peak_memory() == 3


def test_first_calls_do_not_count(monkeypatch):
    measure = load("measure", monkeypatch)
    now = [0.0]
    durations = iter([100.0, 100.0, 1.0, 2.0, 3.0])

    def work():
        now[0] += next(durations)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    times = measure.call_times(work, 5, warm_up=2, clock=lambda: now[0])
    assert times == [1, 2, 3]


@pytest.mark.parametrize("renderings", [3, 9])
def test_the_floor_lies_between_its_bounds(monkeypatch, renderings):
    """Of normal noise the best guess is its mean, and the error of that is known."""
    floor = load("floor", monkeypatch)
    sigma = 0.01
    pictures = np.random.default_rng(0).normal(0.5, sigma, (renderings, 256, 400))
    lower, upper = floor.bracket_floor(pictures)
    known = sigma * np.sqrt(2 / np.pi) * data.DB_RANGE
    assert lower < 0.98 * known
    assert upper > 1.02 * known


def test_conversion_is_measured_as_users_get_it(monkeypatch):
    predict = load("predict", monkeypatch)
    assert predict.build_parser().parse_args([]).overlap == convert.OVERLAP > 0


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_the_peak_is_not_that_of_starting_a_product(monkeypatch, backend):
    """Where starting one takes 100 us, and a product 100 us by itself."""
    pytest.importorskip("torch" if backend == "torch" else "keras")
    train_step = load("train_step", monkeypatch)
    found = []

    def call_times(function, seconds):
        count = function.args[0]
        found.append(count)
        return [100e-6 + 100e-6 * count]

    monkeypatch.setattr(train_step, "call_times", call_times)
    peak = train_step.peak_gflops(backend, "float32")
    assert found[0] == 1
    assert peak == pytest.approx(2 * 3072**3 / 100e-6 / 1e9, rel=0.01)
