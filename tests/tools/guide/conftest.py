import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json

RESAMPLING = {"order": 1, "order_z": 0, "force_separate_z": None}
# What nnU-Net's planner writes about files and preprocessing.
PREPROCESSING = {
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(3)},
}
READER = {2: "NaturalImage2DIO", 3: "SimpleITKIO"}
CONFIGURATION = {
    "preprocessor_name": "DefaultPreprocessor",
    **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
    **{f"resampling_fn_{kind}_kwargs": {"is_seg": kind == "seg", **RESAMPLING} for kind in ("data", "seg")},
    "resampling_fn_probabilities_kwargs": {"is_seg": False, **RESAMPLING},
}


@pytest.fixture
def model_folder(planned_trainer) -> Callable[..., Path]:
    """A model folder as a training of the given folds leaves it; the weights are the initial ones."""

    def build(
        name: str = "nnUNetTrainerGuiDINO", folds: tuple[int, ...] = (0,), late_fusion: float = 0, **settings: Any
    ) -> Path:
        for fold in folds:
            trainer = planned_trainer(f"{name}_seed{fold}" if name.endswith("O") else name, fold=fold, **settings)
            trainer.initialize()
            if late_fusion:
                torch.nn.init.constant_(trainer.network.late_fusion.weight, late_fusion)
            dimensions = len(trainer.configuration_manager.patch_size)
            trainer.inference_allowed_mirroring_axes = tuple(range(dimensions))  # nnU-Net sets it with the augmentation
            folder = Path(trainer.output_folder_base).with_name("model")
            (folder / f"fold_{fold}").mkdir(parents=True)
            trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
        plans = trainer.plans_manager.plans | PREPROCESSING | {"image_reader_writer": READER[dimensions]}
        plans["configurations"][trainer.configuration_name] |= CONFIGURATION
        save_json(plans, str(folder / "plans.json"))
        (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
        return folder

    return build
