"""Whether the token encoder can be loaded without a network, and what to do if not, whatever kind of name it has."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_guidino.config import ENCODER_VARIABLE, default_encoder
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.tools.doctor.finding import Finding, reason

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
A_FOLDER = f"copy a folder with an encoder here and export {ENCODER_VARIABLE}=FOLDER"


def examine_encoder() -> Iterator[Finding]:
    """The encoder where plans name none."""
    from nnunetv2_guidino.model.encoders import source  # imports torch, which may be what is broken

    encoder = default_encoder()
    origin = f"from {ENCODER_VARIABLE}" if os.environ.get(ENCODER_VARIABLE) else "the default"
    what = f"token encoder {encoder} ({origin})"
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        yield _examine_folder(what, folder, f"export {ENCODER_VARIABLE}=FOLDER, one that is whole")
    elif folder.is_file():
        yield Finding(what, "is a file, not a folder", f"export {ENCODER_VARIABLE}=FOLDER, the folder that it is in")
    elif source.looks_like_a_path(encoder) or not HUB_NAME.fullmatch(encoder):
        yield Finding(what, "there is no such folder", _folder_remedy(encoder))
    else:
        yield _examine_name(what, encoder)


def _folder_remedy(encoder: str) -> str:
    bare = encoder.strip().strip("\"'“”‘’").strip()
    if bare != encoder and Path(bare).expanduser().is_dir():
        return f"export {ENCODER_VARIABLE}={shlex.quote(bare)}"
    return A_FOLDER


def _examine_name(what: str, encoder: str) -> Finding:
    from nnunetv2_guidino.model.encoders import source

    if not source.is_cached(encoder):
        return Finding(what, "its weights are not on this machine", _download(encoder))
    try:
        folder = source.find_encoder(encoder)
    except Exception as error:
        return Finding(what, f"cannot be found: {reason(error)}", _download(encoder))
    return _examine_folder(what, folder, _download(encoder, again=True))


def _download(encoder: str, again: bool = False) -> str:
    """What brings an encoder of the hub here."""
    online = "HF_HUB_OFFLINE=0 " if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE") else ""
    command = f"{online}hf download {encoder}{' --force-download' if again else ''}"
    known = KNOWN_ENCODERS.get(encoder)
    if known is None:
        return f"if it is a name on the hub, `{command}` (known ones: `guidino encoder list`); or {A_FOLDER}"
    if not known.gated:
        return f"`{command}`; or {A_FOLDER}"
    return (
        f"accept the licence at https://huggingface.co/{encoder}, then `{online}hf auth login && {command}`; or "
        f"{A_FOLDER} (facebook/dinov2-small is not gated)"
    )


def _examine_folder(what: str, folder: Path, remedy: str) -> Finding:
    from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
    from nnunetv2_guidino.tools.doctor.weights import what_is_wrong

    fault = what_is_wrong(folder)
    if fault is not None:
        is_clone = (folder / ".git").exists()
        lfs = f"git -C {shlex.quote(str(folder.absolute()))} lfs pull" if "Git LFS" in fault and is_clone else None
        return Finding(what, fault, lfs or remedy)
    try:
        read_encoder_config(folder, None)
    except Exception as error:
        return Finding(what, f"cannot be used: {reason(error)}", remedy)
    return Finding(what, "its weights are on this machine")
