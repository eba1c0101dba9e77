"""Read a trained model's folder, …/DatasetXXX/Trainer__Plans__configuration, and check each of its files.

Read in nnU-Net 2.8.1: nnUNetPredictor.initialize_from_trained_model_folder, which does the same without checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.descriptions import errors_in, read_dataset_json
from nnunetv2_guidino.nnunet.plans import TRAINING_SETTINGS, first_difference, recorded_guide
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.printable import first_line


@dataclass(frozen=True)
class TrainedModel:
    """The content of a model folder, ready for prediction.

    Args:
        plans: Plans with the dataset.json of the folder.
        configuration: nnU-Net's ConfigurationManager of the trained configuration.
        checkpoints: Content of each fold's checkpoint, by its file.
        network: Network built for prediction, with the weights of the first fold; those of the others fit too.
    """

    plans: PlansFile
    configuration: Any
    checkpoints: dict[Path, dict[str, Any]]
    network: nn.Module

    @property
    def first(self) -> dict[str, Any]:
        """The checkpoint from which nnU-Net takes trainer, configuration and mirroring."""
        return next(iter(self.checkpoints.values()))


def read_model(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> TrainedModel:
    """Read plans, dataset.json and checkpoints, and build the network.

    Args:
        folder: The model folder.
        folds: Names of folds; None: all numbered folds that have the checkpoint.
        checkpoint: Name of the file in each fold.

    Raises:
        GuidinoError: If one of the files is missing or damaged, or they do not fit together. The error names the file.
    """
    wanted = model_folds(folder, folds, checkpoint)
    plans = PlansFile.read(folder / "plans.json")
    plans.dataset_json = read_dataset_json(folder / "dataset.json", "labels", "channel_names", "file_ending")
    files = [folder / f"fold_{fold}" / checkpoint for fold in wanted]
    checkpoints = {file: read_checkpoint(file) for file in files}
    for file, content in checkpoints.items():
        _check_trained(file, content)
        check_recorded_guide(file, content, plans)
    first = checkpoints[files[0]]
    settings = plans.configuration(first["init_args"]["configuration"])
    _check_preprocessing(plans, settings)
    network = _build_network(plans, first)
    for file, content in reversed(checkpoints.items()):  # the first fold's weights stay
        _load_weights(network, file, content["network_weights"])
    return TrainedModel(plans, settings, checkpoints, network)


def model_folds(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> list[str]:
    """Return the names of the folds to use; raise GuidinoError if one of them has no checkpoint."""
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise GuidinoError(f"{folder} has no {name}; expected …/DatasetXXX/Trainer__Plans__configuration")
    if Path(checkpoint).name != checkpoint:
        raise GuidinoError(f"-chk {checkpoint}: expected the name of a file in each fold, not a path")
    found = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*") if (path / checkpoint).is_file())
    wanted = list(folds or [fold for fold in found if fold.isdigit()])
    if missing := [fold for fold in wanted if fold not in found]:
        raise GuidinoError(f"{folder}/fold_{missing[0]} has no {checkpoint}; folds that have it: {found or 'none'}")
    if not wanted:
        raise GuidinoError(
            f"no numbered fold in {folder} has {checkpoint} (with it: {found or 'none'}): finish training, "
            "choose another with -chk, or say -f all"
        )
    return wanted


# nnU-Net's checkpoints hold numpy's scalars beside tensors. Version 1 of numpy has another name for their function.
NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *((np.float32(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *{type(np.dtype(name)) for name in ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")},
]


def read_checkpoint(file: Path, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint on the CPU, without running code that is in the file.

    Args:
        file: A checkpoint of nnU-Net.
        mmap: Map the file into memory, so that only the tensors that are used are read.

    Raises:
        GuidinoError: If the file cannot be read, was cut short, or another program wrote it.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            content = torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
    except MemoryError as error:  # also for a size that a damaged file names
        raise GuidinoError(f"{file} is damaged, or needs more memory than there is") from error
    except Exception as error:  # zip and pickle have errors of their own
        if foreign := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
            raise GuidinoError(
                f"{file} holds {foreign[1]}, which may run a program; expected weights, numbers and texts. If you "
                "trust its source, use nnU-Net's own commands, which load everything"
            ) from error
        reason = first_line(error)
        raise GuidinoError(f"{file} cannot be read as a checkpoint of nnU-Net, or was cut short: {reason}") from error
    for key, kind in {"trainer_name": str, "init_args": dict, "network_weights": dict}.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise GuidinoError(f"{file} is not a checkpoint of nnU-Net: it has no {key}")
    return content


def check_recorded_guide(file: Path, checkpoint: dict[str, Any], plans: PlansFile) -> None:
    """Compare the guide that a checkpoint records with plans.json, before plans.json is used to build a network.

    Args:
        file: Path of the checkpoint, for the error message.
        checkpoint: Content of the checkpoint.
        plans: The plans.json of the model folder.

    Raises:
        GuidinoError: If the guides differ. The error names the first key that differs.
    """
    recorded = recorded_guide(checkpoint)
    if recorded is None:
        return
    # An encoder's name and folder may change, since a checkpoint contains the weights; their hash must not.
    may_differ = [key for key in TRAINING_SETTINGS if key != "encoder_source"]
    if difference := first_difference(plans.guide, recorded, may_differ):
        raise GuidinoError(
            f"{file} was trained with another guide: {difference.describe('in plans.json beside it', 'in it')}; put "
            "the plans.json of this training back"
        )


def _check_trained(file: Path, content: dict[str, Any]) -> None:
    if not isinstance(content["init_args"].get("configuration"), str):
        raise GuidinoError(f"{file} is not a checkpoint of nnU-Net: its init_args have no configuration")
    for name, weight in content["network_weights"].items():
        if isinstance(weight, torch.Tensor) and weight.is_floating_point() and not weight.isfinite().all():
            raise GuidinoError(f"{file}: the weights {name} are not finite numbers: this training failed; repeat it")


def _check_preprocessing(plans: PlansFile, settings: Any) -> None:
    """Check that the plans have everything that nnU-Net needs between an image and its prediction."""
    manager = plans.manager
    of_images = ("image_reader_writer_class", "transpose_forward", "transpose_backward")
    resampling = (f"resampling_fn_{kind}" for kind in ("data", "seg", "probabilities"))
    of_configuration = ("preprocessor_class", "spacing", "use_mask_for_norm", *resampling)
    with errors_in(plans.path, "does not say how images are read and preprocessed"):
        for owner, names in ((manager, of_images), (settings, of_configuration)):
            for name in names:
                if getattr(owner, name) is None:
                    raise ValueError(f"nnU-Net has no {name} as it is named there")
        for axes in (manager.transpose_forward, manager.transpose_backward):
            if sorted(axes) != list(range(3)):
                raise ValueError(f"it turns the axes by {axes}; expected 0, 1 and 2, each once")
        if not isinstance(manager.foreground_intensity_properties_per_channel, dict):
            raise ValueError("foreground_intensity_properties_per_channel is no object of channels")


def _build_network(plans: PlansFile, checkpoint: dict[str, Any]) -> nn.Module:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    trainer_name, configuration = checkpoint["trainer_name"], checkpoint["init_args"]["configuration"]
    try:
        with redirect_stdout(StringIO()):  # nnU-Net tells where it looks
            trainer = recursive_find_trainer_class_by_name(trainer_name)
    except RuntimeError as error:
        raise GuidinoError(
            f"{plans.path.parent} was trained with {trainer_name}, which nnU-Net does not find; see `guidino doctor`"
        ) from error
    settings, heads = plans.configuration(configuration), plans.label_manager.num_segmentation_heads
    with errors_in(plans.path, "does not describe the network of the checkpoint"):
        channels = plans.input_channels(configuration)
        network = trainer.build_network_architecture(
            plans.manager, settings, channels, heads, enable_deep_supervision=False
        )
    return network


def _load_weights(network: nn.Module, file: Path, weights: dict[str, torch.Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except GuidinoError as error:
        raise GuidinoError(f"{file}: {error}") from error
    except (RuntimeError, KeyError, ValueError) as error:
        # The first line names the class, each of the others something that does not fit.
        reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        reason = reasons[0] if len(reasons[0]) < 300 else f"{reasons[0][:300]}…"
        raise GuidinoError(f"{file} does not fit plans.json and dataset.json beside it: {reason}{more}") from error
