"""Install the packages that a notebook still needs."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

MODULES = {"pyfluidsynth": "fluidsynth"}  # {package: its module}, where the names differ


def install_missing(requirements):
    """Install the packages of a requirements file that are missing, or of another version.

    They are installed for the running Python. Packages that fit are left as they are.

    Raises:
        SystemExit: pip failed, or it replaced a package that is loaded, so the kernel has to be
            restarted. A notebook shows the message in one line.
    """
    missing = list_missing(requirements)
    if not missing:
        return
    print("installing", ", ".join(missing), flush=True)
    before = find_versions()
    command = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
    if subprocess.run(command).returncode:
        raise SystemExit("The packages could not be installed. Is this computer online?")
    importlib.invalidate_caches()
    replaced = list_replaced(before, find_versions())
    if replaced:
        names = ", ".join(replaced)
        raise SystemExit(
            f"Restart the kernel and run this cell again: {names} changed while in use."
        )


def list_missing(requirements):
    """List the lines of a requirements file that are not met.

    A package that is there under another name, as tensorflow-cpu is tensorflow, meets its line.
    """
    from packaging.requirements import Requirement  # every Jupyter kernel brings it
    from packaging.utils import canonicalize_name

    versions = find_versions()
    missing = []
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        package = Requirement(text)
        if package.marker and not package.marker.evaluate():
            continue
        version = versions.get(canonicalize_name(package.name))
        if version is None:
            is_met = importlib.util.find_spec(MODULES.get(package.name, package.name)) is not None
        else:
            is_met = package.specifier.contains(version, prereleases=True)
        if not is_met:
            missing.append(text)
    return missing


def find_versions():
    """Find the installed packages: {name, with hyphens and in small letters: version}."""
    from packaging.utils import canonicalize_name

    versions = {}
    for package in importlib.metadata.distributions():
        if package.name:  # a broken installation has none
            versions.setdefault(canonicalize_name(package.name), package.version)
    return versions


def list_replaced(before, after):
    """List packages of which a module is loaded, and whose version is another one now."""
    from packaging.utils import canonicalize_name

    replaced = set()
    for module, packages in importlib.metadata.packages_distributions().items():
        if module not in sys.modules:
            continue
        for package in map(canonicalize_name, packages):
            if before.get(package) not in (None, after.get(package)):
                replaced.add(package)
    return sorted(replaced)
