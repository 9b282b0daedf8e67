import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import HANG, ROOT
from files import contents
from music import TUNE, make_bank, midi_bytes, note
from scripts import error_lines

import synthesize_audios
from common import parallel
from common.cli import UserError
from data import SAMPLE_RATE


@pytest.fixture
def folder(tmp_path):
    """notes/ with two instruments, midi/ with three pieces."""
    for prefix, decay in (("keyboard_acoustic_000", 3), ("organ_electronic_001", 0)):
        make_bank(
            tmp_path / "notes",
            prefix,
            pitches=(60, 67),
            velocities=(50, 100),
            seconds=0.5,
            decay=decay,
        )
    (tmp_path / "midi" / "sub dir" / "März").mkdir(parents=True)
    for name in ("a.mid", "sub dir/b's.MIDI", "sub dir/März/c\n.MID"):
        (tmp_path / "midi" / name).write_bytes(TUNE)
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """run(*flags) -> (exit code, stdout, stderr without progress bars).

    Two instruments on one worker, unless the flags say otherwise.
    """

    def run(*flags):
        capsys.readouterr()
        code = synthesize_audios.main(
            [
                "--nsynth_path",
                str(folder / "notes"),
                "--midi_path",
                str(folder / "midi"),
                "--audios_path",
                str(folder / "audios"),
                "--instruments",
                "keyboard_acoustic",
                "organ_electronic_001",
                "--workers",
                "1",
                *map(str, flags),
            ]
        )
        out, err = capsys.readouterr()
        return code, out, "\n".join(error_lines(err))

    return run


def test_every_piece_by_every_instrument(folder, run):
    code, out, err = run()
    assert (code, err) == (0, "")
    names = []
    for instrument in ("keyboard_acoustic", "organ_electronic_001"):
        for piece in ("a.wav", "sub dir/b's.wav", "sub dir/März/c\n.wav"):
            names.append(f"{instrument}/{piece}")
    assert sorted(contents(folder / "audios")) == sorted([*names, "audios.json"])
    infos = [soundfile.info(folder / "audios" / name) for name in names]
    assert {(i.samplerate, i.channels, i.subtype) for i in infos} == {(SAMPLE_RATE, 1, "PCM_16")}
    assert {i.frames for i in infos} == {round(2.2 * SAMPLE_RATE)}
    assert out.count("9 notes: 3 exact, 3 other velocity, 3 shifted, 0 lost") == 2
    assert "6 pieces rendered, 0 up to date, 0 MIDI files left out" in out


def test_again_does_only_what_is_missing_or_out_of_date(folder, run):
    run()
    before = contents(folder / "audios")
    assert "0 pieces rendered, 6 up to date" in run()[1]
    (folder / "audios/keyboard_acoustic/a.wav").unlink()
    assert "1 pieces rendered, 5 up to date" in run()[1]
    assert contents(folder / "audios") == before
    path = folder / "midi/a.mid"
    path.write_bytes(midi_bytes(note(0, 480)))
    os.utime(path, (0, 0))  # an older file in a newer one's place
    assert "2 pieces rendered, 4 up to date" in run()[1]
    after = contents(folder / "audios")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"keyboard_acoustic/a.wav", "organ_electronic_001/a.wav"}
    os.utime(path)  # the same file, touched: made again, to the same samples
    assert "2 pieces rendered, 4 up to date" in run()[1]
    assert contents(folder / "audios") == after


def test_audio_made_otherwise_does_not_pass_as_done_without_audios_json(folder, run):
    run("--no_pedal")
    (folder / "audios/audios.json").unlink()
    assert "6 pieces rendered, 0 up to date" in run()[1]


def test_a_file_that_appears_meanwhile_is_kept(folder, run, monkeypatch):
    own = folder / "audios" / "keyboard_acoustic" / "a.wav"
    render = synthesize_audios.render_task

    def meanwhile(path, *piece):
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text("the user's")
        return render(path, *piece)

    monkeypatch.setattr(synthesize_audios, "render_task", meanwhile)
    code, out, err = run("--workers", "1")
    assert (code, own.read_text()) == (2, "the user's")
    assert "a.wav: appeared meanwhile" in err
    assert "5 pieces rendered" in out
    monkeypatch.setattr(synthesize_audios, "render_task", render)
    code, out, _ = run("--workers", "1")
    assert (code, own.read_text()) == (0, "the user's")
    assert "1 wav files kept" in out
    own.unlink()
    assert "1 pieces rendered" in run("--workers", "1")[1]


def test_other_notes_are_heard_in_the_same_process(folder, run):
    flags = "--instruments", "keyboard_acoustic"
    run(*flags)
    before = contents(folder / "audios")
    make_bank(folder / "notes", pitches=(60, 67), velocities=(50, 100), seconds=0.5, decay=9)
    assert run(*flags, "--fresh")[0] == 0
    assert (
        contents(folder / "audios")["keyboard_acoustic/a.wav"]
        != (before["keyboard_acoustic/a.wav"])
    )


def test_the_users_own_audio_is_kept_and_said(folder, run):
    own = folder / "audios/keyboard_acoustic/a.wav"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"my recording")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "1 wav files kept: not made by this script" in out
    assert str(own) in out
    assert "5 pieces rendered, 0 up to date" in out
    assert "0 pieces rendered, 5 up to date" in run()[1]
    run("--fresh", "--prune")
    assert own.read_bytes() == b"my recording"


def test_audio_of_a_score_that_is_gone_is_said_and_pruned_on_demand(folder, run):
    run("--transpose", 0, 2)
    (folder / "midi/a.mid").unlink()
    own = folder / "audios/keyboard_acoustic/mine.wav"
    own.write_bytes(b"my recording")
    assert "4 wav files have no score in" in run()[1]
    gone = folder / "audios/keyboard_acoustic/a.wav"
    assert gone.exists()
    assert "4 wav files of missing scores deleted" in run("--prune")[1]
    assert not gone.exists()
    assert own.exists()
    assert (folder / "audios/keyboard_acoustic/sub dir/b's~t+2.wav").exists()


def test_a_score_that_has_become_unreadable_leaves_a_word_about_its_audio(folder, run):
    run()
    (folder / "midi/a.mid").write_bytes(b"no longer")
    code, _, err = run()
    assert code == 2
    assert "a.mid: is not a MIDI file" in err
    assert "the audio of an earlier version of it is still there" in err


@pytest.mark.skipif(os.name == "nt", reason="links, permissions")
def test_of_scores_that_cannot_be_looked_at_today_the_audio_stays(folder, run, powerless):
    (folder / "midi/locked").mkdir()
    for name in ("locked/five.mid", "six.mid"):
        shutil.copy(folder / "midi/a.mid", folder / "midi" / name)
    run()
    wavs = sorted((folder / "audios").rglob("*.wav"))
    (folder / "midi/locked").chmod(0)
    (folder / "midi/six.mid").unlink()
    (folder / "midi/six.mid").symlink_to("six.mid")
    code, _, err = run("--prune")
    (folder / "midi/locked").chmod(0o755)
    assert code == 0
    assert sorted((folder / "audios").rglob("*.wav")) == wavs
    assert "locked: Permission denied" in err and "six.mid: Too many levels" in err


def test_karaoke_and_riff_midi_files_are_rendered_from_folders(folder, run):
    content = TUNE
    (folder / "midi/song.kar").write_bytes(content)
    riff = b"RMIDdata" + len(content).to_bytes(4, "little") + content
    (folder / "midi/theme.RMI").write_bytes(b"RIFF" + len(riff).to_bytes(4, "little") + riff)
    assert run()[0] == 0
    wavs = {}
    for name in ("a", "song", "theme"):
        wavs[name] = next((folder / "audios").rglob(f"{name}.wav")).read_bytes()
    assert wavs["a"] == wavs["song"] == wavs["theme"]


def test_what_was_repaired_is_said_once_a_file(folder, run):
    damaged = midi_bytes([*note(0, 480), (0, 0xFF, 0x51, 3, 0, 0, 0), (0, 0x90, 67, 90)])
    (folder / "midi/damaged.mid").write_bytes(damaged)
    code, out, err = run()
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if ": repaired: " in line]
    path = folder / "midi/damaged.mid"
    assert lines == [f"{path}: repaired: skipped tempo of 0: 1; note never switched off: 1"]
    assert ": repaired: " not in run()[1]  # it is not read again


def test_a_name_too_long_for_its_versions_is_left_out_alone(folder, run):
    long_name = folder / "midi" / f"{'x' * 249}.mid"
    long_name.write_bytes(TUNE)
    code, out, err = run("--transpose", 0, -10, "--playback_speed", 1.25)
    assert code == 2
    assert err.count("\n") == 0
    assert "the name is too long" in err
    assert "12 pieces rendered" in out


def test_files_do_not_depend_on_the_number_of_workers(folder, run):
    run()
    before = contents(folder / "audios")
    shutil.rmtree(folder / "audios")
    assert run("--workers", 2)[0] == 0
    assert contents(folder / "audios") == before


def test_bad_files_are_named_and_passed_over(folder, run):
    (folder / "midi/bad.mid").write_bytes(TUNE[:40])
    (folder / "midi/drums.mid").write_bytes(midi_bytes(note(0, 480, channel=9)))
    code, out, err = run()
    assert code == 2
    assert len(err.splitlines()) == 2
    assert "bad.mid: has no notes" in err
    assert "drums.mid: has drums only" in err
    assert "6 pieces rendered, 0 up to date, 2 MIDI files left out" in out


def test_each_combination_is_a_piece_of_its_own(folder, run):
    shutil.rmtree(folder / "midi/sub dir")
    assert run("--transpose", -12, 0, "--playback_speed", 1, 2, 2)[0] == 0
    made = folder / "audios/organ_electronic_001"
    expected = {  # seconds, and the first note's frequency in Hz
        "a": (2.2, 261.6),
        "a~t-12": (2.2, 130.8),
        "a~s2": (1.6, 261.6),
        "a~t-12~s2": (1.6, 130.8),
    }
    assert {path.stem for path in made.iterdir()} == set(expected)
    for name, (seconds, frequency) in expected.items():
        sound, _ = soundfile.read(made / f"{name}.wav")
        assert len(sound) == round(seconds * SAMPLE_RATE)
        spectrum = np.abs(np.fft.rfft(sound[:8820], SAMPLE_RATE))
        assert np.argmax(spectrum) == pytest.approx(frequency, abs=4)


def test_duration_rate_and_pedal(folder, run):
    (folder / "midi/a.mid").write_bytes(
        midi_bytes([*note(0, 480), (0, 0xB0, 64, 127), (960, 0xB0, 64, 0)])
    )
    shutil.rmtree(folder / "midi/sub dir")

    def frames():
        return soundfile.info(folder / "audios/keyboard_acoustic/a.wav").frames

    run()
    assert frames() == 2 * SAMPLE_RATE
    run("--no_pedal", "--fresh")
    assert frames() == 1.5 * SAMPLE_RATE
    run("--no_pedal", "--duration_rate", 3, "--fresh")
    assert frames() == 2.5 * SAMPLE_RATE


def test_a_folder_keeps_one_set_of_settings(folder, run):
    run("--instruments", "keyboard_acoustic")
    before = contents(folder / "audios")
    code, _, err = run("--duration_rate", 0.5)
    assert code == 2
    assert "audios.json: the existing audio was made with duration_rate 1.0; choose another" in err
    assert len(err.splitlines()) == 1
    assert run("--instruments", "organ_electronic_001")[0] == 0  # another instrument, same settings
    assert run("--transpose", 1)[0] == 0  # named in the file's name
    note_path = folder / "notes/audio/keyboard_acoustic_000-060-100.wav"
    shutil.copy(folder / "notes/audio/keyboard_acoustic_000-067-100.wav", note_path)
    assert "made with other notes of keyboard_acoustic" in run()[2]
    (folder / "audios/keyboard_acoustic/notes.txt").write_text("mine")
    assert run("--fresh")[0] == 0
    after = contents(folder / "audios")
    assert after.pop("keyboard_acoustic/notes.txt") == b"mine"
    assert after.keys() >= before.keys()
    assert after["keyboard_acoustic/a.wav"] != before["keyboard_acoustic/a.wav"]
    assert not [name for name in after if "~" in name]
    (folder / "audios/audios.json").write_text("[]")
    assert "audios.json: damaged" in run()[2]


def test_fresh_deletes_nothing_outside_the_folder(folder, run):
    """Not even where audios.json was tampered with."""
    run()
    path = folder / "audios/audios.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"notes": {"../mine": "0"}}))
    (folder / "mine").mkdir()
    (folder / "mine/precious.wav").write_bytes(b"x")
    assert run("--fresh")[0] == 2
    assert (folder / "mine/precious.wav").exists()


def test_speeds_of_one_name_are_refused(folder, run):
    code, _, err = run("--playback_speed", 0.9000001, 0.9000002)
    assert code == 2
    assert "--playback_speed 0.9000002: another one has the same first digits, 0.9" in err


def test_two_files_of_one_name_are_refused(folder, run):
    shutil.copy(folder / "midi/a.mid", folder / "midi/a.MIDI")
    code, _, err = run()
    assert code == 2
    assert "would be a.wav, and so would a.MIDI; rename one" in err
    (folder / "midi/a.MIDI").rename(folder / "midi/a~t+2.mid")
    assert "would be a~t+2.wav" in run("--transpose", 0, 2)[2]
    assert not (folder / "audios").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--midi_path", "/nowhere"), "/nowhere: no such folder"),
        (("--midi_path", "EMPTY"), "has no .mid or .midi or .kar or .rmi; check the path"),
        (("--nsynth_path", "/nowhere"), "/nowhere: no such folder"),
        (
            ("--instruments", "flute_acoustic"),
            "no note of 'flute_acoustic_000'; found keyboard_acoustic_000",
        ),
        (("--instruments", "../x"), "instrument '../x': no such name"),
        (("--dask", "tcp://127.0.0.1:1"), "--dask tcp://127.0.0.1:1: "),
        (("--audios_path", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, run, monkeypatch, flags, reason):
    monkeypatch.setattr(parallel, "DASK_TIMEOUT", 1)
    (folder / "EMPTY").mkdir()
    code, out, err = run(*(str(folder / flag) if flag == "EMPTY" else flag for flag in flags))
    assert (code, len(err.splitlines()), out) == (2, 1, "")
    assert reason in err


@pytest.mark.parametrize(
    "flags",
    [("--playback_speed", 0), ("--transpose", 0.5), ("--duration_rate", "nan"), ("--workers", 0)],
)
def test_flags_out_of_range(run, flags):
    with pytest.raises(SystemExit) as stop:
        run(*flags)
    assert stop.value.code == 2


def test_a_damaged_note_stops_the_run_and_leaves_nothing_half_written(folder, run):
    path = folder / "notes/audio/organ_electronic_001-067-100.wav"
    path.write_bytes(path.read_bytes()[:20])
    for workers in (1, 2):
        code, _, err = run("--workers", workers)
        assert code == 2
        assert "organ_electronic_001-067-100.wav: cannot be read as audio" in err
        # The first instrument's, and nothing half-written
        names = sorted(Path(name).name for name in contents(folder / "audios"))
        assert names == ["a.wav", "audios.json", "b's.wav", "c\n.wav"]


def test_a_killed_worker_is_reported():
    with (
        pytest.raises(UserError, match="--workers 2: a worker was killed, probably out of mem"),
        parallel.engine(2) as run,
    ):
        run(signal.raise_signal, [(signal.SIGKILL,)])


GROWING = """
import os, sys, time
from common import parallel

def job(number):
    if hasattr(sys, "kept"):  # this process' second job or a later one
        sys.kept = b"x" * (400 << 20)
    else:
        sys.kept = b""
    time.sleep(0.4)  # loky looks once a second
    return os.getpid()

with parallel.engine(2) as run:
    print(len(set(run(job, [(number,) for number in range(12)], file=open(os.devnull, "w")))))
"""


def test_a_worker_that_has_grown_is_replaced_in_silence():
    pytest.importorskip("psutil")  # without it loky does not look
    result = subprocess.run(
        [sys.executable, "-c", GROWING], cwd=ROOT, capture_output=True, text=True, timeout=HANG
    )
    assert int(result.stdout) > 2  # processes in all: some came in another's place
    assert result.stderr == ""


def test_help_needs_no_keras(run_script):
    result = run_script("synthesize_audios.py", "--help")
    assert result.returncode == 0
    assert "--duration_rate" in result.stdout
    code = (
        "import sys, synthesize_audios, render_notes\n"
        "print(sorted({'keras', 'tensorflow', 'numba'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=HANG
    ).stdout
    assert output == "[]\n"
