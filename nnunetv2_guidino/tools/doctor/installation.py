"""Examine an installation: versions, the trainer's registration, devices, nnU-Net's folders, the encoder."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from io import StringIO
from pathlib import Path

from nnunetv2_guidino import __version__, registration_folder
from nnunetv2_guidino.config import ENCODER_VARIABLE, default_encoder
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.nnunet.folders import VARIABLES
from nnunetv2_guidino.printable import first_line

PACKAGE = "nnunetv2-guidino"
SHOWN = ("nnunetv2", "torch", "transformers", "peft")  # even if nothing is wrong with them
PIP = f"{shlex.quote(sys.executable)} -m pip install"
TRAINER = "nnUNetTrainerGuiDINO"
QUOTES = "\"'“”‘’"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
A_FOLDER = f"copy a folder with an encoder here and export {ENCODER_VARIABLE}=FOLDER"


@dataclass(frozen=True)
class Finding:
    """The result of one examination.

    Args:
        what: The name of the thing that was examined.
        is_so: Its state.
        remedy: The remedy if something is wrong, else None.
    """

    what: str
    is_so: str
    remedy: str | None = None


def examine() -> Iterator[Finding]:
    """Yield the findings of all examinations in turn; an examination that fails is a finding too."""
    examinations: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("versions", examine_versions),
        (f"trainer {TRAINER}", examine_trainer),
        ("devices", examine_devices),
        ("nnU-Net's folders", examine_folders),
        ("token encoder", examine_encoder),
    ]
    for what, examination in examinations:
        try:
            yield from examination()
        except Exception as error:  # a broken library raises whatever it likes
            remedy = A_FOLDER if examination is examine_encoder else "repair what it names, or what is wrong above"
            yield Finding(what, f"cannot be examined: {type(error).__name__}: {first_line(error)}", remedy)


def examine_versions() -> Iterator[Finding]:
    """Examine Python, this package, and the packages that it requires."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()}")
    try:
        requirements, installed = requires(PACKAGE) or [], version(PACKAGE)
    except PackageNotFoundError:
        yield Finding(PACKAGE, f"{__version__}, but not installed", f"{PIP} {PACKAGE}, or -e CLONE for a clone")
        requirements, installed = list(SHOWN), __version__
    if installed != __version__:
        yield Finding(PACKAGE, f"{__version__}, but {installed} is installed", f"{PIP} --force-reinstall {PACKAGE}")
    else:
        yield Finding(PACKAGE, __version__)
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("packaging", "not installed, so that versions cannot be compared", f"{PIP} packaging")
        return
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        install = f"{PIP} {shlex.quote(f'{requirement.name}{requirement.specifier}')}"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "not installed", install)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield Finding(requirement.name, f"{found}; nnunetv2-guidino needs {requirement.specifier}", install)
        elif requirement.name in SHOWN:
            yield Finding(requirement.name, found)


def examine_trainer() -> Iterator[Finding]:
    """Examine whether nnU-Net finds the trainer, and by which way."""
    try:
        import nnunetv2
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:
        fault = f"nnU-Net cannot be imported: {first_line(error)}"
        yield Finding(f"trainer {TRAINER}", fault, "repair nnunetv2, see above")
        return
    nnunet = Path(nnunetv2.__path__[0])
    what = f"trainer {TRAINER}, as nnU-Net in {nnunet} finds it"
    external = os.environ.get("nnUNet_extTrainer", "")
    try:
        with redirect_stdout(StringIO()):  # nnU-Net prints where it looks
            trainer = recursive_find_trainer_class_by_name(TRAINER)
    except RuntimeError:
        others = [folder for folder in external.split(os.pathsep) if folder and Path(folder).is_dir()]
        folders = shlex.quote(os.pathsep.join([registration_folder(), *others]))
        reason = "this nnU-Net is not the one nnunetv2-guidino was installed beside, or the installation is editable"
        yield Finding(what, "not found", f"{reason}: export nnUNet_extTrainer={folders}")
        return
    except Exception as error:  # a module in nnU-Net's folder, ours or another, that cannot be imported
        yield Finding(what, f"the search fails: {type(error).__name__}: {first_line(error)}", "repair what it names")
        return
    if not trainer.__module__.startswith("nnunetv2_guidino."):
        yield Finding(what, f"another class of that name, in {trainer.__module__}", "remove or rename that class")
        return
    placed = nnunet / "training" / "nnUNetTrainer" / f"{TRAINER}.py"
    yield Finding(what, f"by {placed}" if placed.is_file() or not external else f"by nnUNet_extTrainer={external}")


def examine_devices() -> Iterator[Finding]:
    """List the devices that torch can train on."""
    cores = f"cpu with {os.cpu_count()} cores"
    try:
        import torch

        devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            devices.append("mps")
    except Exception as error:  # a torch without its libraries, a driver that does not fit
        yield Finding("devices", f"torch cannot tell: {first_line(error)}", "repair torch or the GPU's driver")
        return
    no_gpu = f"{cores}, no GPU: give nnU-Net's commands -device cpu"
    yield Finding("devices", ", ".join([*devices, cores]) if devices else no_gpu)


def examine_folders() -> Iterator[Finding]:
    """Examine whether nnU-Net's three folders are set, exist, and can be used."""
    for name in VARIABLES:
        yield _examine_variable(name, os.environ.get(name, ""))


def _examine_variable(name: str, value: str) -> Finding:
    if not value.strip():
        return Finding(name, "not set", f"export {name}=FOLDER")
    meant = value.strip().strip(QUOTES).strip()
    if meant != value:
        oddity = "quotes" if set(value) & set(QUOTES) else "spaces"
        return Finding(name, f"{value!r}, with {oddity} as a part of it", f"export {name}={shlex.quote(meant)}")
    if meant.startswith("~"):
        expanded = shlex.quote(str(Path(meant).expanduser()))
        return Finding(name, f"{value}, whose ~ nobody expands", f"export {name}={expanded}")
    folder = Path(value)
    if not folder.is_absolute():
        remedy = f"export {name}={shlex.quote(str(folder.absolute()))}"
        return Finding(name, f"{value}, which depends on where a command is started", remedy)
    another = f"choose another folder: export {name}=FOLDER"
    try:
        folder.lstat()
        if not folder.exists():
            return Finding(name, f"{folder}, a link to what does not exist", another)
        if not folder.is_dir():
            return Finding(name, f"{folder}, which is a file", another)
    except (FileNotFoundError, NotADirectoryError):
        ancestor = next(parent for parent in folder.parents if os.path.lexists(parent))
        can_be_made = ancestor.is_dir() and os.access(ancestor, os.W_OK)
        remedy = f"mkdir -p {shlex.quote(str(folder))}" if can_be_made else another
        return Finding(name, f"{folder}, which does not exist", remedy)
    except OSError as error:  # a name that is too long, a disk that is gone
        return Finding(name, f"{folder}: {error.strerror or error}", another)
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding(name, f"{folder}, which is not readable", another)
    if name != "nnUNet_raw" and not os.access(folder, os.W_OK):
        return Finding(name, f"{folder}, which is not writable", another)
    return Finding(name, str(folder))


def examine_encoder() -> Iterator[Finding]:
    """Examine the encoder of plans that name none: can it be loaded without a network?"""
    from nnunetv2_guidino.model.encoders import source  # imports torch, which may be broken

    encoder = default_encoder()
    origin = f"from {ENCODER_VARIABLE}" if os.environ.get(ENCODER_VARIABLE) else "the default"
    what = f"token encoder {encoder} ({origin})"
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        yield _examine_weights(what, folder, f"export {ENCODER_VARIABLE}=FOLDER, one that is whole")
    elif folder.is_file():
        yield Finding(what, "is a file, not a folder", f"export {ENCODER_VARIABLE}=FOLDER, the folder that it is in")
    elif source.looks_like_a_path(encoder) or not HUB_NAME.fullmatch(encoder):
        bare = encoder.strip().strip(QUOTES).strip()
        is_quoted = bare != encoder and Path(bare).expanduser().is_dir()
        remedy = f"export {ENCODER_VARIABLE}={shlex.quote(bare)}" if is_quoted else A_FOLDER
        yield Finding(what, "there is no such folder", remedy)
    elif not source.is_cached(encoder):
        yield Finding(what, "its weights are not on this machine", _download(encoder))
    else:
        try:
            folder = source.find_encoder(encoder)
        except Exception as error:
            yield Finding(what, f"cannot be found: {first_line(error)}", _download(encoder))
        else:
            yield _examine_weights(what, folder, _download(encoder, again=True))


def _download(encoder: str, again: bool = False) -> str:
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


def _examine_weights(what: str, folder: Path, remedy: str) -> Finding:
    from nnunetv2_guidino.model.encoders.architecture import read_encoder_config

    fault = _fault_of_weights(folder)
    if fault is not None:
        if "Git LFS" in fault and (folder / ".git").exists():
            remedy = f"git -C {shlex.quote(str(folder.absolute()))} lfs pull"
        return Finding(what, fault, remedy)
    try:
        read_encoder_config(folder, None)
    except Exception as error:
        return Finding(what, f"cannot be used: {first_line(error)}", remedy)
    return Finding(what, "its weights are on this machine")


def _fault_of_weights(folder: Path) -> str | None:
    """Return the fault that keeps an encoder's folder from being loaded, as far as its files' headers show it."""
    from nnunetv2_guidino.model.encoders.damage import check_files

    index = folder / "model.safetensors.index.json"
    try:
        if (folder / "config.json").is_file():
            check_files(folder)
        read_json(folder / "config.json", dict)
        if index.is_file() and not (folder / "model.safetensors").is_file():
            parts = read_json(index, dict).get("weight_map")
            if not isinstance(parts, dict):
                return f"{index} has no weight_map"
            if missing := sorted({str(name) for name in parts.values() if not (folder / str(name)).is_file()}):
                return f"{folder} lacks {missing[0]}, one of {len(missing)} files of weights that are missing"
        if any(folder.glob("*.safetensors")):
            return None
        others = sorted(
            path.name for path in folder.glob("*") if path.suffix in (".bin", ".pth", ".pt", ".ckpt", ".h5")
        )
    except GuidinoError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror or error}"
    also = f" ({others[0]} is another format, which is not loaded)" if others else ""
    return f"{folder} has no *.safetensors file{also}"
