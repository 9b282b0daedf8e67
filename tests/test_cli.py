import argparse
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

import cli


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with pytest.raises(RuntimeError), cli.complete(path) as part:
        part.write_text("half")
        assert not path.exists()
        raise RuntimeError
    assert os.listdir(path.parent) == []
    with cli.complete(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize("text", ["-1", "x", "nan", "inf", "3"])
def test_numbers_out_of_range_are_refused(text):
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        cli.number(float, 0, 2)(text)


def test_numbers_in_range():
    assert cli.number(float, 0, 2)("2") == 2
    with pytest.raises(argparse.ArgumentTypeError):
        cli.number(float, 0, low_open=True)("0")


@pytest.mark.parametrize(
    ("words", "value"),
    [([], False), (["--f"], True), (["--f", "False"], False), (["--f", "true"], True)],
)
def test_boolean_flags_work_bare_and_with_a_value(words, value):
    parser = cli.Parser("x")
    parser.add_argument("--f", nargs="?", const=True, default=False, type=cli.boolean)
    assert parser.parse_args(words).f is value


def test_commands_answer_a_mistake_in_one_line(capsys):
    @cli.command
    def user():
        raise cli.UserError("a\nb: bad; mend it")

    @cli.command
    def disk():
        raise OSError(28, "No space left on device", "/x/y")

    @cli.command
    def interrupted():
        raise KeyboardInterrupt

    # each gets argv, which these take no notice of
    assert [
        cli.command(lambda argv, f=f: f.__wrapped__())() for f in (user, disk, interrupted)
    ] == [2, 2, 130]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert r"a\nb: bad; mend it" in lines[0]
    assert "/x/y: No space left on device; free some space" in lines[1]


SCRIPTS = [
    "compute_features",
    "evaluate",
    "predict",
    "render_notes",
    "synthesize_audios",
    "train",
    "train_generator",
]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("script", SCRIPTS)
def test_interrupted_while_it_loads_a_script_says_so_in_one_line(tmp_path, script):
    """The signal comes in the middle of an import."""
    waiting = "import time\nprint('waiting', flush=True)\ntime.sleep(60)\n"
    for name in ("cli.py", f"{script}.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    late = script.startswith(
        "train"
    )  # these load all else in their command, once the device is known
    (tmp_path / ("tensorflow.py" if late else "data.py")).write_text(waiting)
    flags = (
        ["--dataset_path", "x", "--origin", "a", "--target", "b", "--gpu", "cpu"] if late else []
    )
    env = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / f"{script}.py"), *flags]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=10)[1]
    assert (process.returncode, err) == (
        130,
        f"{script}.py: interrupted; run the same command again to continue\n",
    )


def test_find_files(tmp_path):
    for name in ("b.MID", "a.mid", "sub/c.midi", ".part-d.mid", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = cli.find_files(tmp_path, (".mid", ".midi"))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.mid", "b.MID", "sub/c.midi"]
    with pytest.raises(cli.UserError, match="no such folder"):
        cli.find_files(tmp_path / "x", (".mid",))
