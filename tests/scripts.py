"""A script as a module, whatever folder it lies in, and what a script says on stderr."""

import importlib.util
import re
import sys

from conftest import ROOT

_BAR = re.compile(r"\d/(\d+|\?) \[|\dit \[|\d%\|")


def load_script(path, monkeypatch):
    """The module at ``path``, relative to the project, for this test only.

    Its own folder comes first among those that are searched, as if it were run. Its name is of its
    folder too, for some files of benchmarks/ have the name of one of ours.
    """
    path = ROOT / path
    name = f"{path.parent.name}_{path.stem}"
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # `cli.command` looks its file up there
    spec.loader.exec_module(module)
    return module


def error_lines(err):
    """The lines of a script's stderr, without empty ones and progress bars.

    A bar begins its line anew by a carriage return, where splitlines cuts, too.
    """
    return [line for line in err.splitlines() if line.strip() and not _BAR.search(line)]
