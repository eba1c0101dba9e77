"""Report how nnU-Net finds the trainer, which versions, devices and paths are in force, and what to put right."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path

from nnunetv2_guidino import __version__, registration_folder
from nnunetv2_guidino.config import ENCODER_VARIABLE, default_encoder

TRAINER = "nnUNetTrainerGuiDINO"


@dataclass(frozen=True)
class Finding:
    what: str
    is_so: str
    remedy: str | None = None  # None: nothing is wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # nothing to choose


def run(args: argparse.Namespace) -> int:
    del args
    wrong = 0
    for finding in examine():
        print(f"[{'ok' if finding.remedy is None else '!!'}] {finding.what}: {finding.is_so}")
        if finding.remedy is not None:
            wrong += 1
            print(f"     -> {finding.remedy}")
    print("Everything is in place." if not wrong else f"{wrong} to put right.")
    return int(wrong > 0)


def examine() -> Iterator[Finding]:
    yield from _versions()
    yield _trainer()
    yield _devices()
    yield from _paths()
    yield _encoder()


def _versions() -> Iterator[Finding]:
    yield Finding("Python", f"{platform.python_version()} on {platform.system()}")
    yield Finding("nnunetv2-guidino", __version__)
    for package in ("nnunetv2", "torch", "transformers", "peft"):
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding(package, "not installed", "pip install nnunetv2-guidino")
            continue
        yield Finding(package, found)


def _trainer() -> Finding:
    import nnunetv2
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    nnunet = Path(nnunetv2.__path__[0])
    what = f"trainer {TRAINER}, as nnU-Net in {nnunet} finds it"
    try:
        with redirect_stdout(StringIO()):  # nnU-Net tells where it looks
            recursive_find_trainer_class_by_name(TRAINER)
    except RuntimeError:
        return Finding(
            what,
            "not found",
            f"this nnU-Net is not the one nnunetv2-guidino was installed beside, or the installation is editable: "
            f"export nnUNet_extTrainer={registration_folder()}",
        )
    placed = nnunet / "training" / "nnUNetTrainer" / f"{TRAINER}.py"
    way = f"by {placed}" if placed.is_file() else f"by nnUNet_extTrainer={os.environ['nnUNet_extTrainer']}"
    return Finding(what, way)


def _devices() -> Finding:
    import torch

    devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    cores = f"cpu with {os.cpu_count()} cores"
    if not devices:
        return Finding("devices", f"{cores}, no GPU: give nnU-Net's commands -device cpu")
    return Finding("devices", ", ".join([*devices, cores]))


def _paths() -> Iterator[Finding]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folder = os.environ.get(name)
        if not folder:
            yield Finding(name, "not set", f"export {name}=FOLDER")
        elif not Path(folder).is_dir():
            yield Finding(name, f"{folder}, which does not exist", f"mkdir -p {folder}")
        elif name != "nnUNet_raw" and not os.access(folder, os.W_OK):
            yield Finding(name, f"{folder}, which is not writable", f"choose another folder: export {name}=FOLDER")
        else:
            yield Finding(name, folder)


def _encoder() -> Finding:
    from nnunetv2_guidino.encoders.token_encoder import is_cached

    encoder = default_encoder()
    origin = f"from {ENCODER_VARIABLE}" if os.environ.get(ENCODER_VARIABLE) else "the default"
    what = f"token encoder {encoder} ({origin})"
    if is_cached(encoder):
        return Finding(what, "its weights are on this machine")
    return Finding(
        what,
        "its weights are not on this machine",
        f"accept the licence at https://huggingface.co/{encoder}, then `hf auth login && hf download {encoder}`; or "
        f"copy a folder with an encoder here and export {ENCODER_VARIABLE}=FOLDER (facebook/dinov2-small is not gated)",
    )
