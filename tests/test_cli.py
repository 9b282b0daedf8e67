import argparse
import os

import pytest

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


@pytest.mark.parametrize(("words", "value"), [([], False), (["--f"], True), (["--f", "False"], False), (["--f", "true"], True)])
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
    assert [cli.command(lambda argv, f=f: f.__wrapped__())() for f in (user, disk, interrupted)] == [2, 2, 130]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert r"a\nb: bad; mend it" in lines[0]
    assert "/x/y: No space left on device; free some space" in lines[1]


def test_find_files(tmp_path):
    for name in ("b.MID", "a.mid", "sub/c.midi", ".part-d.mid", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = cli.find_files(tmp_path, (".mid", ".midi"))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.mid", "b.MID", "sub/c.midi"]
    with pytest.raises(cli.UserError, match="no such folder"):
        cli.find_files(tmp_path / "x", (".mid",))
