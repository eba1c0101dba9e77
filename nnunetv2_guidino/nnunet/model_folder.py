"""A trained model's folder, …/DatasetXXX/Trainer__Plans__configuration, read with each of its files checked.

Read in nnU-Net 2.8.1: nnUNetPredictor.initialize_from_trained_model_folder, which does the same without checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.descriptions import (
    configuration_of,
    errors_in,
    label_manager_of,
    read_configurations,
    read_dataset_json,
)
from nnunetv2_guidino.printable import first_line


@dataclass(frozen=True)
class TrainedModel:
    """What is in a model folder, fit for prediction.

    Args:
        folder: Where it lies.
        plans, dataset_json: As read.
        plans_manager, configuration_manager, label_manager: nnU-Net's.
        checkpoints: Of each fold, its file and what is in it.
        network: Built for prediction, with the weights of the first fold; those of the others fit too.
    """

    folder: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    plans_manager: Any
    configuration_manager: Any
    label_manager: Any
    checkpoints: dict[Path, dict[str, Any]]
    network: nn.Module

    @property
    def first(self) -> dict[str, Any]:
        """The checkpoint that names trainer, configuration and mirroring, as nnU-Net takes them."""
        return next(iter(self.checkpoints.values()))


def read_model(
    folder: Path,
    folds: Sequence[str] | None,
    checkpoint: str,
    check: Callable[[Path, dict[str, Any], dict[str, Any]], None] | None = None,
) -> TrainedModel:
    """Read plans, dataset.json and checkpoints, and build the network.

    Args:
        folds: Default: all numbered ones that have the checkpoint.
        checkpoint: Name of the file in each fold.
        check: What else to ask of each checkpoint before the network is built, given its file, what is in it, and the
            plans; it raises GuidinoError.

    Raises:
        GuidinoError: If one of the files is missing or damaged, or they do not fit together, naming it.
    """
    wanted = model_folds(folder, folds, checkpoint)
    plans_file, dataset_file = folder / "plans.json", folder / "dataset.json"
    plans = read_configurations(plans_file)
    dataset_json = read_dataset_json(dataset_file, "labels", "channel_names", "file_ending")
    checkpoints = {file: read_checkpoint(file) for file in (folder / f"fold_{fold}" / checkpoint for fold in wanted)}
    for file, content in checkpoints.items():
        if check is not None:
            check(file, content, plans)
    first = next(iter(checkpoints.values()))
    manager, settings = configuration_of(plans, plans_file, first["init_args"]["configuration"])
    labels = label_manager_of(manager, dataset_json, dataset_file)
    _check_preprocessing(plans_file, manager, settings)
    network = _build_network(plans_file, manager, settings, labels, dataset_json, first["trainer_name"])
    for file, content in reversed(checkpoints.items()):  # the first fold's weights stay
        _load_weights(network, file, content["network_weights"])
    return TrainedModel(folder, plans, dataset_json, manager, settings, labels, checkpoints, network)


def model_folds(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> list[str]:
    """The folds to use, each of which has the checkpoint; raises GuidinoError where one has not."""
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


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint as nnU-Net's trainers write it, on the CPU. Loading one runs code that is in it, as torch.load does.

    Raises:
        GuidinoError: If it cannot be read, was cut short, is another program's, or has weights that are no numbers.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=False)
    except MemoryError as error:  # also for a size that a damaged file names
        raise GuidinoError(f"{file} is damaged, or needs more memory than there is") from error
    except Exception as error:  # zip, pickle and whatever a foreign file asks for
        raise GuidinoError(f"{file} cannot be read as a checkpoint, or was cut short: {first_line(error)}") from error
    kinds = {"trainer_name": str, "init_args": dict, "network_weights": dict}
    for key, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise GuidinoError(f"{file} is not a checkpoint of nnU-Net: it has no {key}")
    if not isinstance(content["init_args"].get("configuration"), str):
        raise GuidinoError(f"{file} is not a checkpoint of nnU-Net: its init_args have no configuration")
    for name, weight in content["network_weights"].items():
        if isinstance(weight, torch.Tensor) and weight.is_floating_point() and not weight.isfinite().all():
            raise GuidinoError(f"{file}: the weights {name} are not finite numbers: this training failed; repeat it")
    return content


def _check_preprocessing(plans_file: Path, manager: Any, settings: Any) -> None:
    """Whether the plans say all that nnU-Net asks of them between an image and its prediction."""
    of_images = ("image_reader_writer_class", "transpose_forward", "transpose_backward")
    resampling = (f"resampling_fn_{kind}" for kind in ("data", "seg", "probabilities"))
    of_configuration = ("preprocessor_class", "spacing", "use_mask_for_norm", *resampling)
    with errors_in(plans_file, "does not say how images are read and preprocessed"):
        for owner, names in ((manager, of_images), (settings, of_configuration)):
            for name in names:
                if getattr(owner, name) is None:
                    raise ValueError(f"nnU-Net has no {name} as it is named there")
        for axes in (manager.transpose_forward, manager.transpose_backward):
            if sorted(axes) != list(range(3)):
                raise ValueError(f"it turns the axes by {axes}; expected 0, 1 and 2, each once")
        if not isinstance(manager.foreground_intensity_properties_per_channel, dict):
            raise ValueError("foreground_intensity_properties_per_channel is no object of channels")


def _build_network(
    plans_file: Path, manager: Any, settings: Any, labels: Any, dataset_json: dict[str, Any], trainer_name: str
) -> nn.Module:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    try:
        with redirect_stdout(StringIO()):  # nnU-Net tells where it looks
            trainer = recursive_find_trainer_class_by_name(trainer_name)
    except RuntimeError as error:
        raise GuidinoError(
            f"{plans_file.parent} was trained with {trainer_name}, which nnU-Net does not find; see `guidino doctor`"
        ) from error
    with errors_in(plans_file, "does not describe the network of the checkpoint"):
        channels = determine_num_input_channels(manager, settings, dataset_json)
        heads = labels.num_segmentation_heads
        network = trainer.build_network_architecture(manager, settings, channels, heads, enable_deep_supervision=False)
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
