import os
import subprocess
import sys

import pytest
from conftest import HANG, ROOT

from common.cli import UserError
from common.files import complete
from common.record import NAME, Record


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a.mid"
    path.parent.mkdir()
    path.write_bytes(b"score")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def make(folder, source, settings, name="sub/a.wav", content=b"sound"):
    """Make one output as a script does."""
    record = Record(folder)
    output = folder / name
    record.is_current(output, [source], settings)
    record.begin([output])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    record.add(output, [source], settings)
    return output


def test_an_output_is_current_until_something_changes(folder, source):
    output = make(folder, source, {"speed": 1.0, "steps": (1, 2)})
    assert Record(folder).is_current(output, [source], {"steps": [1, 2], "speed": 1})
    assert not Record(folder).is_current(output, [source], {"speed": 2.0, "steps": (1, 2)})
    assert not Record(folder).is_current(output, [source], {"speed": 1.0})
    assert not Record(folder).is_current(output, [], {"speed": 1.0, "steps": (1, 2)})
    assert not Record(folder).is_current(folder / "b.wav", [source], {})
    output.unlink()
    assert not Record(folder).is_current(output, [source], {"speed": 1.0, "steps": (1, 2)})


def test_a_source_that_became_older_is_another_source(folder, source):
    output = make(folder, source, {})
    found = source.stat()
    os.utime(source, ns=(found.st_atime_ns, found.st_mtime_ns - 10**12))
    assert not Record(folder).is_current(output, [source], {})


@pytest.mark.parametrize("change", ["size", "name", "gone"])
def test_another_source(folder, source, change):
    output = make(folder, source, {})
    found = source.stat()
    other = source
    if change == "size":
        source.write_bytes(b"another")
    if change == "name":
        other = source.rename(source.with_name("b.mid"))
    if change == "gone":
        source.unlink()
    else:
        os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert not Record(folder).is_current(output, [other], {})


def test_a_source_that_changes_during_the_work_counts_as_changed(folder, source):
    record = Record(folder)
    output = folder / "a.wav"
    assert not record.is_current(output, [source], {})
    record.begin([output])
    source.write_bytes(b"a longer score")
    output.write_bytes(b"of the shorter one")
    record.add(output, [source], {})
    assert not Record(folder).is_current(output, [source], {})


def test_what_the_user_put_there_is_not_ours(folder, source):
    output = make(folder, source, {})
    (folder / "b.wav").write_bytes(b"a recording")
    assert Record(folder).knows(output)
    assert not Record(folder).knows(folder / "b.wav")
    output.write_bytes(b"edited by hand")
    assert not Record(folder).knows(output)
    assert not Record(folder).is_current(output, [source], {})


def test_what_a_killed_run_finished_is_ours_and_made_again(folder, source):
    output = make(folder, source, {})
    Record(folder).begin([output, folder / "b.wav"])
    output.write_bytes(b"other content")
    assert Record(folder).knows(output)
    assert Record(folder).knows(folder / "b.wav")
    assert not Record(folder).is_current(output, [source], {})


def test_what_a_killed_worker_finished_is_no_stranger(folder):
    """A cluster runs its job again; a file of other content is still the user's."""
    out = folder / "a.npy"
    record = Record(folder)
    place = record.plan_place(out)
    record.begin([out])
    for content in (b"same", b"same"):
        with complete(out, place) as part:
            part.write_bytes(content)
    with pytest.raises(UserError, match="appeared meanwhile"), complete(out, place) as part:
        part.write_bytes(b"other")
    assert [path.name for path in folder.iterdir() if path.suffix == ".npy"] == ["a.npy"]
    assert out.read_bytes() == b"same"


def test_the_folder_can_be_moved_with_its_sources(tmp_path, folder, source):
    make(folder, source, {})
    folder.rename(tmp_path / "moved")
    source.parent.rename(tmp_path / "scores")
    record = Record(tmp_path / "moved")
    assert record.is_current(tmp_path / "moved/sub/a.wav", [tmp_path / "scores/a.mid"], {})


def test_relative_and_absolute_paths_are_one(folder, source, monkeypatch):
    output = make(folder, source, {})
    monkeypatch.chdir(folder.parent)
    assert Record("out").is_current(output, [source], {})
    assert Record(folder).is_current("out/sub/a.wav", ["in/a.mid"], {})


def test_a_torn_line_costs_that_output_only(folder, source):
    outputs = [make(folder, source, {}, name) for name in ("a.wav", "b.wav")]
    path = folder / NAME
    path.write_bytes(path.read_bytes()[:-9])
    assert Record(folder).is_current(outputs[0], [source], {})
    assert not Record(folder).is_current(outputs[1], [source], {})
    third = make(folder, source, {}, "c.wav")
    for output in (outputs[0], third):
        assert Record(folder).is_current(output, [source], {})


@pytest.mark.parametrize("line", [b"[]", b'{"output": 3}', b'{"output": "a.wav"}', b"\xff{", b"1"])
def test_a_foreign_line_is_passed_over(folder, source, line):
    output = make(folder, source, {}, "a.wav")
    with open(folder / NAME, "ab") as file:
        file.write(line + b"\n")
    assert Record(folder).is_current(output, [source], {})


def test_a_record_sees_what_another_adds_and_that_the_folder_was_deleted(folder, source):
    record = Record(folder)
    assert not record.knows(folder / "a.wav")
    output = make(folder, source, {}, "a.wav")
    assert record.is_current(output, [source], {})
    (folder / NAME).unlink()
    assert not record.knows(output)


@pytest.mark.skipif(sys.platform == "win32" or sys.platform == "darwin", reason="names of bytes")
def test_names_that_are_not_utf8(folder, source):
    name = os.fsdecode(b"caf\xe9.wav")
    strange = source.rename(source.with_name(os.fsdecode(b"\xff.mid")))
    output = make(folder, strange, {}, name)
    assert Record(folder).is_current(output, [strange], {})


def test_two_processes_in_one_folder(folder, source):
    code = (
        "import sys, pathlib\n"
        "from common.record import Record\n"
        "folder, name, source = sys.argv[1:]\n"
        "record = Record(folder)\n"
        "for number in range(300):\n"
        "    output = pathlib.Path(folder) / f'{name}{number}.wav'\n"
        "    record.begin([output])\n"
        "    output.write_bytes(b'x')\n"
        "    record.add(output, [source], {'padding': 'x' * 200})\n"
    )
    processes = []
    folder.mkdir()
    for name in "ab":
        command = [sys.executable, "-c", code, str(folder), name, str(source)]
        processes.append(subprocess.Popen(command, cwd=ROOT))
    assert [process.wait(timeout=HANG) for process in processes] == [0, 0]
    record = Record(folder)
    for name in "ab":
        for number in range(300):
            output = folder / f"{name}{number}.wav"
            assert record.is_current(output, [source], {"padding": "x" * 200})
