"""Look at an installation: versions, the trainer's registration, devices, nnU-Net's folders, the encoder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from nnunetv2_guidino import registration_folder
from nnunetv2_guidino.tools.doctor.encoder_access import A_FOLDER, examine_encoder
from nnunetv2_guidino.tools.doctor.finding import Finding, reason
from nnunetv2_guidino.tools.doctor.nnunet_paths import examine_folders
from nnunetv2_guidino.tools.doctor.versions import examine_versions

TRAINER = "nnUNetTrainerGuiDINO"


def examine() -> Iterator[Finding]:
    """Everything that the doctor looks at, one after the other; whatever fails is a finding too."""
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
            yield Finding(what, f"cannot be examined: {type(error).__name__}: {reason(error)}", remedy)


def examine_trainer() -> Iterator[Finding]:
    """Whether nnU-Net finds the trainer, and which way."""
    try:
        import nnunetv2
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:
        yield Finding(
            f"trainer {TRAINER}", f"nnU-Net cannot be imported: {reason(error)}", "repair nnunetv2, see above"
        )
        return
    nnunet = Path(nnunetv2.__path__[0])
    what = f"trainer {TRAINER}, as nnU-Net in {nnunet} finds it"
    try:
        with redirect_stdout(StringIO()):  # nnU-Net tells where it looks
            trainer = recursive_find_trainer_class_by_name(TRAINER)
    except RuntimeError:
        yield Finding(what, "not found", _registration_remedy())
        return
    except Exception as error:  # a module in nnU-Net's folder, ours or another, that cannot be imported
        yield Finding(what, f"the search fails: {type(error).__name__}: {reason(error)}", "repair what it names")
        return
    if not trainer.__module__.startswith("nnunetv2_guidino."):
        yield Finding(what, f"another class of that name, in {trainer.__module__}", "remove or rename that class")
        return
    placed = nnunet / "training" / "nnUNetTrainer" / f"{TRAINER}.py"
    external = os.environ.get("nnUNet_extTrainer")
    way = f"by {placed}" if placed.is_file() or not external else f"by nnUNet_extTrainer={external}"
    yield Finding(what, way)


def _registration_remedy() -> str:
    others = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if Path(folder).is_dir()]
    folders = os.pathsep.join([registration_folder(), *(folder for folder in others if folder)])
    return (
        "this nnU-Net is not the one nnunetv2-guidino was installed beside, or the installation is editable: "
        f"export nnUNet_extTrainer={shlex.quote(folders)}"
    )


def examine_devices() -> Iterator[Finding]:
    """What there is to train on."""
    cores = f"cpu with {os.cpu_count()} cores"
    try:
        import torch

        devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            devices.append("mps")
    except Exception as error:  # a torch without its libraries, a driver that does not fit
        yield Finding("devices", f"torch cannot tell: {reason(error)}", "repair torch or the GPU's driver")
        return
    if not devices:
        yield Finding("devices", f"{cores}, no GPU: give nnU-Net's commands -device cpu")
        return
    yield Finding("devices", ", ".join([*devices, cores]))
