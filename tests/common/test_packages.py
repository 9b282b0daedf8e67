"""common.packages: what a notebook installs, and when the kernel has to be restarted."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from common import packages

REQUIREMENTS = """# a comment
here>=2,<3
Old_one>=2  # too old
absent>=1
elsewhere>=1; python_version < "3"
tensorflow>=2
pyfluidsynth>=1
"""
INSTALLED = {"here": "2.1", "old-one": "1.9", "tensorflow-cpu": "2.19", "pyfluidsynth": "1.3.4"}


@pytest.fixture
def requirements(tmp_path, monkeypatch):
    versions = dict(INSTALLED)
    monkeypatch.setattr(packages, "find_versions", lambda: dict(versions))
    modules = {"tensorflow": True, "fluidsynth": True}
    monkeypatch.setattr(packages.importlib.util, "find_spec", modules.get)
    path = tmp_path / "requirements.txt"
    path.write_text(REQUIREMENTS)
    return path, versions


def pip(versions, code=0, **new):
    """A pip that changes the installed versions, and keeps what it was asked for."""
    asked = []

    def run(command):
        asked.extend(command[command.index("--quiet") + 1 :])
        versions.update(new)
        return SimpleNamespace(returncode=code)

    return run, asked


def test_only_what_is_missing_or_too_old_is_listed(requirements):
    path, _ = requirements
    assert packages.list_missing(path) == ["Old_one>=2", "absent>=1"]


def test_nothing_runs_if_nothing_is_missing(requirements, monkeypatch):
    path, versions = requirements
    versions.update({"old-one": "2.0", "absent": "1.0"})
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    packages.install_missing(path)


def test_what_is_new_needs_no_restart(requirements, monkeypatch, capsys):
    path, versions = requirements
    run, asked = pip(versions, absent="1.0", **{"old-one": "2.0"})
    monkeypatch.setattr(subprocess, "run", run)
    packages.install_missing(path)
    assert asked == ["Old_one>=2", "absent>=1"]
    assert capsys.readouterr().out == "installing Old_one>=2, absent>=1\n"


def test_a_replaced_package_in_use_needs_a_restart(requirements, monkeypatch):
    path, versions = requirements
    run, _ = pip(versions, absent="1.0", here="2.2", **{"old-one": "2.0"})
    monkeypatch.setattr(subprocess, "run", run)
    modules = {"old_module": ["Old_one"], "here": ["here"], "absent": ["absent"]}
    monkeypatch.setattr(packages.importlib.metadata, "packages_distributions", lambda: modules)
    for module in ("old_module", "absent"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
    with pytest.raises(SystemExit, match=r"^Restart the kernel .*: old-one changed"):
        packages.install_missing(path)


def test_a_failed_installation_ends_in_one_line(requirements, monkeypatch):
    path, versions = requirements
    monkeypatch.setattr(subprocess, "run", pip(versions, code=1)[0])
    with pytest.raises(SystemExit, match="online"):
        packages.install_missing(path)


def test_this_environment_is_seen():
    assert packages.find_versions()["numpy"]
