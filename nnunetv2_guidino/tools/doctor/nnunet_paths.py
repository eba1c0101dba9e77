"""Whether nnU-Net's three folders are set, exist, and can be used."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_guidino.nnunet.folders import VARIABLES
from nnunetv2_guidino.tools.doctor.finding import Finding

QUOTES = "\"'“”‘’"


def examine_folders() -> Iterator[Finding]:
    """One finding for each of nnU-Net's variables."""
    for name in VARIABLES:
        yield _examine(name, os.environ.get(name, ""))


def _examine(name: str, value: str) -> Finding:
    if not value.strip():
        return Finding(name, "not set", f"export {name}=FOLDER")
    meant = value.strip().strip(QUOTES).strip()
    if meant != value:
        oddity = "quotes" if set(value) & set(QUOTES) else "spaces"
        return Finding(name, f"{value!r}, with {oddity} as a part of it", f"export {name}={shlex.quote(meant)}")
    if meant.startswith("~"):
        expanded = str(Path(meant).expanduser())
        return Finding(name, f"{value}, whose ~ nobody expands", f"export {name}={shlex.quote(expanded)}")
    folder = Path(value)
    if not folder.is_absolute():
        remedy = f"export {name}={shlex.quote(str(folder.absolute()))}"
        return Finding(name, f"{value}, which depends on where a command is started", remedy)
    return _examine_folder(name, folder)


def _examine_folder(name: str, folder: Path) -> Finding:
    another = f"choose another folder: export {name}=FOLDER"
    try:
        folder.lstat()
        if not folder.exists():
            return Finding(name, f"{folder}, a link to what does not exist", another)
        if not folder.is_dir():
            return Finding(name, f"{folder}, which is a file", another)
    except (FileNotFoundError, NotADirectoryError):
        remedy = f"mkdir -p {shlex.quote(str(folder))}" if _can_be_made(folder) else another
        return Finding(name, f"{folder}, which does not exist", remedy)
    except OSError as error:  # a name that is too long, a disk that is gone
        return Finding(name, f"{folder}: {error.strerror or error}", another)
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding(name, f"{folder}, which is not readable", another)
    if name != "nnUNet_raw" and not os.access(folder, os.W_OK):
        return Finding(name, f"{folder}, which is not writable", another)
    return Finding(name, str(folder))


def _can_be_made(folder: Path) -> bool:
    ancestor = next(parent for parent in folder.parents if os.path.lexists(parent))
    return ancestor.is_dir() and os.access(ancestor, os.W_OK)
