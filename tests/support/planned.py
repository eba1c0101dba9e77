"""Small planned networks and their plans, as nnU-Net's planner writes them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

DATASET = "Dataset999_Tiny"
CHANNELS = 3
CLASSES = 2
ARCHITECTURES = {
    "PlainConvUNet": {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
    "ResidualEncoderUNet": {"n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
    "ResidualUNet": {"n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]},
}


def plans(
    guide: dict[str, Any],
    architecture: str = "PlainConvUNet",
    scheme: str = "ZScoreNormalization",
    channels: int = CHANNELS,
    patch_size: tuple[int, ...] = (32, 48),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> PlansManager:
    """Return plans with the configuration "2d", or "3d_fullres" for a patch with three sides."""
    dimensions = len(patch_size)
    configuration = {
        "data_identifier": "x",
        "batch_dice": True,
        "batch_size": 2,
        "patch_size": list(patch_size),
        "spacing": list(spacing[-dimensions:]),
        "normalization_schemes": [scheme] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{architecture}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 16],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * 3,
                "strides": [[stride] * dimensions for stride in (1, 2, 2)],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
                **ARCHITECTURES[architecture],
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return PlansManager(
        {
            "dataset_name": DATASET,
            "plans_name": "nnUNetPlans",
            "label_manager": "LabelManager",
            "guidino": {"classes": 1, **guide},
            "configurations": {"2d" if dimensions == 2 else "3d_fullres": configuration},
        }
    )


def mark_file_format(preprocessed: Path) -> None:
    """Write an empty case, from which nnU-Net infers the file format."""
    folder = preprocessed / DATASET / "x"
    folder.mkdir(parents=True)
    (folder / "case.b2nd").touch()


def build_trainer(
    name: str,
    fold: int = 0,
    guide: dict[str, Any] | None = None,
    labels: dict[str, Any] | None = None,
    batch_size: int = 2,
    patch_size: tuple[int, ...] = (32, 48),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    previous_stage: str | None = None,
    architecture: str | None = None,
    network: dict[str, Any] | None = None,
    **dataset: Any,
) -> Any:
    """Build a trainer on the CPU, with the folders in nnU-Net's variables and the encoder in GUIDINO_ENCODER.

    Args:
        architecture: One of lists.ARCHITECTURES; None: a planned network.
        network: Settings of that architecture, beside its tiny ones.
    """
    from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture
    from nnunetv2_guidino.training.naming import trainer_class

    settings = {"min_input_size": 64, "prototypes": 8, **(guide or {})}
    planned = plans(settings, patch_size=patch_size, spacing=spacing).plans
    (configuration,) = planned["configurations"]
    planned["configurations"][configuration] |= {"batch_size": batch_size, "previous_stage": previous_stage}
    if architecture is not None:
        settings = planned["configurations"][configuration]
        tiny = importlib.import_module("tiny_networks").SETTINGS.get(architecture, {})  # which imports this module
        settings["architecture"] = planned_architecture(architecture, settings, **{**tiny, **(network or {})})
    planned["continue_training"] = False
    dataset_json = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": labels or {"background": 0, "polyp": 1},
        "file_ending": ".png",
        **dataset,
    }
    return trainer_class(name)(planned, configuration, fold, dataset_json, torch.device("cpu"))


def save_model_folder(trainer) -> str:
    """Write plans.json and a checkpoint as nnU-Net does, and return the checkpoint."""
    save_json(trainer.plans_manager.plans, str(Path(trainer.output_folder_base) / "plans.json"))
    file = str(Path(trainer.output_folder) / "checkpoint_final.pth")
    trainer.save_checkpoint(file)
    return file
