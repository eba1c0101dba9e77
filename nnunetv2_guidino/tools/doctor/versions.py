"""Whether the packages are there in the versions that this one demands."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from nnunetv2_guidino import __version__
from nnunetv2_guidino.tools.doctor.finding import Finding

PACKAGE = "nnunetv2-guidino"
SHOWN = ("nnunetv2", "torch", "transformers", "peft")  # even where nothing is wrong with them


def examine_versions() -> Iterator[Finding]:
    """Python, this package, the packages that matter most, and whatever else is missing or of another version."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()}")
    try:
        demands = requires(PACKAGE) or []
        installed = version(PACKAGE)
    except PackageNotFoundError:
        yield Finding(PACKAGE, f"{__version__}, but not installed", f"{_pip()} {PACKAGE}, or -e CLONE for a clone")
        demands, installed = list(SHOWN), __version__
    if installed != __version__:
        yield Finding(PACKAGE, f"{__version__}, but {installed} is installed", f"{_pip()} --force-reinstall {PACKAGE}")
    else:
        yield Finding(PACKAGE, __version__)
    yield from _demanded(demands)


def _demanded(demands: list[str]) -> Iterator[Finding]:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("packaging", "not installed, so that versions cannot be compared", f"{_pip()} packaging")
        return
    for demand in map(Requirement, demands):
        if demand.marker is not None and not demand.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{_pip()} {shlex.quote(f'{demand.name}{demand.specifier}')}"
        try:
            found = version(demand.name)
        except PackageNotFoundError:
            yield Finding(demand.name, "not installed", wanted)
            continue
        if not demand.specifier.contains(found, prereleases=True):
            yield Finding(demand.name, f"{found}; nnunetv2-guidino needs {demand.specifier}", wanted)
        elif demand.name in SHOWN:
            yield Finding(demand.name, found)


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip install"
