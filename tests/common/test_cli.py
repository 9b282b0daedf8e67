import argparse
import csv
import errno
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HANG, ROOT, take_interrupts
from test_house import SCRIPTS

from common import cli
from common.files import (
    PART,
    _machine,
    check_folder,
    complete,
    find_files,
    find_named,
    lock,
    look_for_files,
    place_beside,
    read_csv,
    read_json,
    remove_leftovers,
    write_csv,
    write_json,
)

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and names")


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with pytest.raises(RuntimeError), complete(path) as part:
        part.write_text("half")
        assert not path.exists()
        raise RuntimeError
    assert os.listdir(path.parent) == []
    with complete(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.wav", ".wav"),
        ("x.weights.h5", ".weights.h5"),
        ("No. 1 in a minor, allegro.flac", ".flac"),
    ],
)
def test_the_hidden_name_tells_a_writer_the_format(tmp_path, name, ending):
    with complete(tmp_path / name) as part:
        assert part.name.endswith(ending)
        part.touch()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "x.txt"
    with complete(path) as slow:
        slow.write_text("slow, ")
        with complete(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
        with open(slow, "a") as file:
            file.write("and whole")
    assert path.read_text() == "slow, and whole"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("name", ["é" * 125 + ".wav", "x" * 251 + ".wav", "Op. " + "9" * 250])
def test_names_as_long_as_the_disk_takes(tmp_path, name):
    with complete(tmp_path / name) as part:
        part.write_text("x")
    assert os.listdir(tmp_path) == [name]


@posix
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path):
    with pytest.raises(cli.UserError, match="shorten"), complete(tmp_path / ("x" * 256)):
        raise AssertionError("the work began")


@posix
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    code = (
        "import sys, time\n"
        "from common import files\n"
        "with files.complete(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.txt")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    foreign = tmp_path / f"{PART}0123abcd-1-0123abcd.txt"  # another machine's
    old = tmp_path / f"{PART}0123abcd-2-0123abcd.txt"
    for path in (foreign, old):
        path.touch()
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 2  # it is still writing
    process.kill()
    process.communicate()
    with complete(tmp_path / "y.txt") as part:
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [foreign.name, "y.txt"]


LOCKING = (
    "import sys, time\n"
    "from common import files\n"
    "with files.lock(sys.argv[1]):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(600)\n"
)


def test_a_folder_is_locked_for_one_process_even_if_it_is_deleted(tmp_path):
    folder = tmp_path / "runs" / "a_2_b"
    command = [sys.executable, "-c", LOCKING, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    holder = rf"a_2_b: .*process {process.pid} on {socket.gethostname()}; "
    with pytest.raises(cli.UserError, match=holder), lock(folder):
        pass
    with lock(tmp_path / "runs" / "c_2_d"):
        pass
    process.kill()
    process.communicate()
    with lock(folder):  # a dead process holds nothing
        pass
    assert os.listdir(tmp_path / "runs") == []


def test_only_one_of_many_gets_the_lock(tmp_path):
    inside, most, entered = [], [], []

    def enter():
        for _ in range(50):
            try:
                with lock(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    entered.append(1)
            except cli.UserError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered
    assert max(most) == 1


@pytest.mark.parametrize("text", ["-1", "x", "nan", "inf", "3"])
def test_numbers_out_of_range_are_refused(text):
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        cli.number(float, 0, 2)(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("80", 80), ("1:20", 80), ("1:02:03.5", 3723.5), ("0", 0), ("0:05", 5)]
)
def test_times_are_seconds_or_have_colons(text, seconds):
    assert cli.seconds()(text) == seconds


@pytest.mark.parametrize("text", ["", "1:", "a:20", "-1:20", "1:-20", "nan", "1:inf"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        cli.seconds()(text)


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


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (cli.UserError("a\nb: bad; mend it"), 2, r"error: a\nb: bad; mend it"),
        (OSError(errno.ENOSPC, "No space", "/x/y"), 2, "/x/y: No space; free some space"),
        (OSError(errno.ENAMETOOLONG, "Too long", "/x/y"), 2, "shorten the name"),
        (OSError(errno.EMFILE, "Too many", "/x/y"), 2, "ulimit"),
        (PermissionError(errno.EACCES, "Denied", "/x/y"), 2, "/x/y: Denied; check"),
        (MemoryError("8 GiB"), 2, "out of memory (8 GiB); use"),
        (ModuleNotFoundError("x", name="librosa"), 2, "librosa is not installed here; activate"),
        (ModuleNotFoundError("x", name="librosa"), 2, "requirements.txt"),
        (ModuleNotFoundError("x", name="gradio"), 2, "requirements-app.txt"),
        (ResourceExhaustedError("OOM, device:GPU:0"), 2, "--batch_size, or --gpu cpu"),
        (ResourceExhaustedError("OOM, device:CPU:0"), 2, "smaller --batch_size\n"),
        (OutOfMemoryError("CUDA out of memory"), 2, "smaller --batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "smaller --batch_size"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
    ],
    ids=repr,
)
def test_commands_answer_in_one_line(capsys, error, code, says):
    @cli.command
    def main(argv):
        raise error

    assert main([]) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("test_cli.py: ")
    assert err.count("\n") == 1


def test_our_own_mistakes_keep_their_traceback():
    @cli.command
    def main(argv):
        raise KeyError("oops")

    with pytest.raises(KeyError):
        main([])


@posix
def test_interrupted_while_it_loads_a_script_says_so_in_one_line(tmp_path):
    (tmp_path / "common").mkdir()
    for name in ("common/__init__.py", "common/cli.py", "compute_features.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    waiting = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"
    (tmp_path / "numpy.py").write_text(waiting)
    command = [sys.executable, str(tmp_path / "compute_features.py")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    process = subprocess.Popen(command, preexec_fn=take_interrupts, **pipes)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=HANG)[1]
    assert err == f"compute_features.py: {cli.INTERRUPTED}\n"
    assert process.returncode == 130


ENDING = """
import atexit, time
from common import cli

def end_slowly():
    print("ending", flush=True)
    time.sleep(1)

@cli.command
def main(argv):
    atexit.register(end_slowly)

raise SystemExit(main())
"""


@posix
def test_interrupted_when_all_is_done_a_script_ends_well(tmp_path):
    (tmp_path / "step.py").write_text(ENDING)
    command = [sys.executable, str(tmp_path / "step.py")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, preexec_fn=take_interrupts, env=env, **pipes)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=HANG)[1]
    assert err == ""
    assert process.returncode == 0


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_waits_for_no_heavy_package(script):
    program = f"import sys, {script}\ntry: {script}.main(['--help'])\nexcept SystemExit: pass\n"
    program += "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'scipy.signal', 'matplotlib'}\n"
    program += "print('heavy:', *heavy & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "heavy:"


def run_without_packages(*words):
    """Run Python without site-packages, as outside the environment."""
    command = [sys.executable, "-S", *words]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("script", ["synthesize_audios", "compute_features", "predict", "evaluate"])
def test_without_the_environment_a_script_says_how_to_activate_it(script):
    result = run_without_packages(f"{script}.py", "--help")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert re.match(rf"{script}\.py: error: package \w+ is not installed here; act", result.stderr)


def find_scripts():
    found = []
    for folder in ("benchmarks", "conversion", "demo", "docs", "pretrained"):
        for path in sorted((ROOT / folder).glob("*.py")):
            if "\n@cli.command\n" in path.read_text(encoding="utf-8"):
                found.append(path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("script", find_scripts())
def test_without_the_environment_no_script_ends_in_a_traceback(script):
    words = [script]
    if script.startswith("conversion/"):
        words = ["-m", script.removesuffix(".py").replace("/", ".")]
    result = run_without_packages(*words, "--help")
    if result.returncode:
        name = Path(script).name
        assert re.fullmatch(rf"{name}: error: package \w+ is not installed .*\n", result.stderr)
        assert result.returncode == 2


def test_the_errors_of_a_package_begin_with_its_name(tmp_path):
    command = [sys.executable, "-m", "report", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert result.stderr.startswith("report: error: ")
    missing = run_without_packages("-m", "report").stderr
    assert re.fullmatch(r"report: error: package \w+ is not installed .*\n", missing)


@pytest.mark.parametrize("text", ["–", "Müller 音楽", os.fsdecode(b"caf\xe9.wav")], ids=ascii)
def test_what_a_terminal_cannot_show_is_escaped(text, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    @cli.command
    def main(argv):
        print(text)

    assert main([]) == 0
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii") == ascii(text)[1:-1] + "\n"


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found_in(folder, extensions=(".mid", ".midi")):
    paths = find_files(folder, extensions)
    return [path.relative_to(folder).as_posix() for path in paths]


def test_find_files(tmp_path):
    write(tmp_path, "b.MID", "a.mid", "sub/c.midi", ".part-d.mid", "e.txt")
    (tmp_path / "folder.mid").mkdir()
    assert found_in(tmp_path) == ["a.mid", "b.MID", "sub/c.midi"]
    with pytest.raises(cli.UserError, match="no such folder"):
        find_files(tmp_path / "x", (".mid",))


def test_hidden_folders_are_left_out_but_the_one_that_is_named(tmp_path):
    top = tmp_path / ".cache"
    write(top, "a.mid", ".ipynb_checkpoints/a.mid", "sub/.Trash-1000/files/b.mid")
    assert found_in(top) == ["a.mid"]


@posix
def test_links_are_followed_and_end(tmp_path):
    write(tmp_path, "disk/one/a.mid", "music/b.mid")
    (tmp_path / "music/more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/one/up").symlink_to(tmp_path / "music")
    (tmp_path / "music/self").symlink_to(".")
    (tmp_path / "music/dead.mid").symlink_to("nowhere")
    assert found_in(tmp_path / "music") == ["b.mid", "more/one/a.mid"]


@posix
def test_what_cannot_be_looked_at_is_named_and_stops_nothing_else(tmp_path, powerless, capsys):
    write(tmp_path, "b.mid", "lost+found/c.mid", "list only/d.mid", "sub/e.mid")
    (tmp_path / "a.mid").symlink_to("a.mid")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "dead.mid").symlink_to("nowhere")
    (tmp_path / "dead.txt").symlink_to("nowhere")
    (tmp_path / "lost+found").chmod(0)
    (tmp_path / "list only").chmod(0o444)
    found = look_for_files(tmp_path, (".mid",))
    names = ["a.mid", "dead.mid", "list only", "lost+found", "self"]
    assert found.files == [tmp_path / "b.mid", tmp_path / "sub/e.mid"]
    assert sorted(found.unreadable) == [tmp_path / name for name in names]
    told = sorted(capsys.readouterr().err.splitlines())
    assert len(told) == len(names)
    for name, line in zip(names, told):
        assert line.startswith(f"skipped: {tmp_path / name}: ")
    with pytest.raises(PermissionError):  # nothing is left to go on with
        look_for_files(tmp_path / "lost+found", (".mid",))
    for name in ("lost+found", "list only"):
        (tmp_path / name).chmod(0o755)


def test_a_name_that_was_taken_in_vain_is_free_again(tmp_path, monkeypatch):
    """On a disk without hard links, an empty file takes the name first."""

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "song.wav"
    with pytest.raises(OSError, match="not permitted"), complete(path, place_beside) as part:
        part.write_text("x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_a_name_is_taken_when_it_is_used(tmp_path, monkeypatch, links):
    if not links:  # as on USB sticks

        def refuse(part, path):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(part))

        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "song.wav"
    named = []

    def place(part, path):
        named.append(place_beside(part, path))

    with complete(path, place) as first, complete(path, place) as second:
        first.write_text("1")
        second.write_text("2")
        path.write_text("the user's")
    assert [found.name for found in named] == ["song_2.wav", "song_3.wav"]
    texts = {found.name: found.read_text() for found in tmp_path.iterdir()}
    assert texts == {"song.wav": "the user's", "song_2.wav": "2", "song_3.wav": "1"}


def test_a_backend_that_a_notebook_left_stops_no_script(tmp_path):
    environment = {**os.environ, "MPLBACKEND": "module://no_such.backend"}
    command = [sys.executable, "-m", "report", str(tmp_path)]
    options = {"cwd": cli.PROJECT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "has no runs" in done.stderr


@posix
def test_names_keep_their_bytes_where_the_locale_knows_ascii_only(tmp_path):
    (tmp_path / "pairs.csv").write_text("Étude.wav,Ré.wav\n", encoding="utf-8")
    code = """
import os, sys
from pathlib import Path
from conversion.outputs import _check_target, name_beside
from measuring.pieces import read_pairs
assert sys.getfilesystemencoding() == "ascii"
target = name_beside(Path(sys.argv[1]), "guitar")
_check_target(Path(sys.argv[1]), target, ())
piece = read_pairs(Path("pairs.csv"))[0]
names = target, name_beside(Path(sys.argv[1] * 99), "x"), piece.source, piece.reference
sys.stdout.buffer.write(b"\\n".join(map(os.fsencode, names)))
"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(cli.PROJECT)
    command = [sys.executable, "-c", code, "Étude.wav"]
    options = {"cwd": tmp_path, "env": environment, "capture_output": True}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    beside, cut, source, reference = done.stdout.decode().split("\n")  # all is UTF-8 still
    assert (beside, source, reference) == ("Étude_guitar.wav", "Étude.wav", "Ré.wav")
    assert cut.startswith("Étude") and 230 < len(cut.encode()) <= 240


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_as_editors_save_it(tmp_path, encoding):
    path = tmp_path / "config.json"
    path.write_text('{"flags": {"target": "Flöte"}}', encoding=encoding)
    assert read_json(path, "", flags=dict) == {"flags": {"target": "Flöte"}}


@pytest.mark.parametrize("content", ["[1]", "3", '{"flags": 3}', "", "[" * 10**5])
def test_damaged_json_is_told_with_its_remedy(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(cli.UserError, match=r"config\.json: damaged; restore it$"):
        read_json(tmp_path / "config.json", "restore it", flags=dict)


def test_of_the_systems_errors_only_those_of_one_file_are_passed_over(tmp_path):
    assert isinstance(cli.attempt(os.listdir, tmp_path / "x"), cli.UserError)

    def write_to_a_full_disk():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cli.attempt(write_to_a_full_disk)


def test_what_is_no_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("the user's")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(cli.UserError, match=f"--report {folder}: .*file is a file"):
            check_folder(folder, "--report")
    for folder in (tmp_path, tmp_path / "new" / "newer"):
        check_folder(folder, "--report")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(cli.os, "access", lambda path, mode: False)
    told = f"{tmp_path}: is not writable; give --page a writable folder"
    with pytest.raises(cli.UserError, match=f"^{re.escape(told)}$"):
        check_folder(tmp_path / "new", "--page")


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_names_that_are_not_utf8_are_found_and_written(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write(tmp_path, f"{name}.mid")
    assert list(find_named(tmp_path, (".mid",))) == [name]
    with complete(tmp_path / f"{name}.wav") as part:
        part.write_text("x")
    write_json(tmp_path / "x.json", {"name": name})
    assert read_json(tmp_path / "x.json", "") == {"name": name}
    write_csv(tmp_path / "x.csv", [[name]])
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == "caf\\udce9\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_as_spreadsheets_write_them(tmp_path, delimiter, encoding, end):
    rows = [["name", "split", "a; b, c"], ["Études\nNo. 1", "train", ""], ['"x"', "2", "3"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    text = text.getvalue() + end
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    assert read_csv(tmp_path / "x.csv") == rows


def test_a_table_of_one_column_and_one_with_a_latin1_name(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a\nb\n\ncaf\xe9\n")
    assert read_csv(tmp_path / "x.csv") == [["a"], ["b"], [os.fsdecode(b"caf\xe9")]]


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a\0b")
    with pytest.raises(cli.UserError, match=r"x\.csv: is not text; "):
        read_csv(tmp_path / "x.csv")
    with pytest.raises(cli.UserError, match=r"y\.csv: cannot be read \(No such file"):
        read_csv(tmp_path / "y.csv")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_what_a_process_left_goes_though_its_parent_has_not_noticed_its_end(tmp_path):
    child = os.fork()
    if not child:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is a zombie from here
        part = tmp_path / f"{PART}{_machine()}-{child}-0.wav"
        part.touch()
        remove_leftovers(tmp_path)
        assert not part.exists()
    finally:
        os.waitpid(child, 0)


def test_ctrl_c_while_stderr_is_hidden_is_told(tmp_path):
    """It may come just before or after the block of `quiet_stderr` that restores stderr."""
    script = tmp_path / "script.py"
    script.write_text(
        "from common import cli\n"
        "@cli.command\n"
        "def main(argv=None):\n"
        "    hidden = cli.quiet_stderr()\n"
        "    hidden.__enter__()\n"
        "    raise KeyboardInterrupt\n"
        "raise SystemExit(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(cli.PROJECT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env)
    told = "script.py: interrupted; run the same command again to continue\n"
    assert (done.returncode, done.stderr) == (130, told)


def test_a_late_module_is_imported_by_its_first_use_only(tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    text = f"from pathlib import Path\n\nPath({str(mark)!r}).touch()\nvalue = 3\n"
    (tmp_path / "a_late_one.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    late = cli.load_later("a_late_one")
    for module in list(sys.modules.values()):
        hasattr(module, "__file__")  # as inspect.getmodule does during PyTorch's import
    assert not mark.exists()
    assert late.value == 3
    with monkeypatch.context() as patch:
        patch.setattr(late, "value", 4)
        assert sys.modules["a_late_one"].value == 4
    assert late.value == 3
