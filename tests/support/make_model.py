"""A tiny guided model as the installed version trains it: the image, the model folder, and what it predicts.

    python tests/support/make_model.py FOLDER TRAINER ENCODER_FAMILY

These two commands made the models in tests/earlier_models with version 0.1.0 (commit e543716) installed. Later versions
must predict the same with them:

    python tests/support/make_model.py tests/earlier_models/0.1.0 nnUNetTrainerGuiDINO dinov3
    python tests/support/make_model.py tests/earlier_models/0.1.0-lora nnUNetTrainerGuiDINOLoRA dinov2

So this file keeps to what every version has: nnU-Net finds the trainer, and the hooks are nnU-Net's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

STEPS = 60
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"},
    "labels": {"background": 0, "disc": 1},
    "numTraining": 1,
    "file_ending": ".png",
}


def plans(encoder: Path) -> dict[str, Any]:
    """Complete, so that nnU-Net predicts with them."""
    import planned

    complete = planned.plans({"encoder": str(encoder), "min_input_size": 64, "prototypes": 8}).plans
    del complete["guidino"]["classes"]
    for kind in ("data", "seg", "probabilities"):
        complete["configurations"]["2d"] |= {
            f"resampling_fn_{kind}": "resample_data_or_seg_to_shape",
            f"resampling_fn_{kind}_kwargs": {"is_seg": kind == "seg", "order": 1, "order_z": 0},
        }
    complete["configurations"]["2d"]["preprocessor_name"] = "DefaultPreprocessor"
    channel = dict.fromkeys(("mean", "std", "min", "max", "median", "percentile_00_5", "percentile_99_5"), 1.0)
    return complete | {
        "image_reader_writer": "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {str(number): channel for number in range(3)},
        "continue_training": False,
    }


def discs(generator: np.random.Generator, count: int, *size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, *size, 3) of a bright disc on noise, and their labels (count, *size)."""
    rows, columns = np.indices(size)
    centres = generator.uniform(0.3, 0.7, (count, 2)) * size
    radii = generator.uniform(0.15, 0.3, count) * min(size)
    labels = np.stack([(rows - y) ** 2 + (columns - x) ** 2 < r**2 for (y, x), r in zip(centres, radii, strict=True)])
    images = generator.normal(90, 25, (count, *size, 3)) + 60 * labels[..., None] * generator.uniform(0.5, 1, 3)
    return images.clip(0, 255).astype(np.uint8), labels


def train(trainer: Any) -> None:
    """With nnU-Net's own step, on batches that are made here."""
    generator = np.random.default_rng(0)
    trainer.network.train()
    for _ in range(STEPS):
        images, labels = discs(generator, 2, *trainer.configuration_manager.patch_size)
        data = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        data = (data - data.mean((2, 3), keepdim=True)) / data.std((2, 3), keepdim=True)
        target = torch.from_numpy(labels)[:, None].float()
        step = trainer.train_step({"data": data, "target": [target, target[..., ::2, ::2]]})
    print(f"loss {float(step['loss']):.3f}, guide loss {float(step['guide_loss']):.3f}")


def predictor(model: Path) -> Any:
    """nnU-Net's, with the model's weights."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    return predictor


def logits(predictor: Any, image: Path) -> torch.Tensor:
    """(2, 1, H, W), through nnU-Net's preprocessing, sliding window and mirroring."""
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    data, *_ = preprocessor.run_case(
        [str(image)], None, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    return predictor.predict_logits_from_preprocessed_data(torch.as_tensor(data))


def make(folder: Path, name: str, family: str, workplace: Path) -> None:
    """Train, predict, and leave in `folder` what a test needs; `workplace` has nnU-Net's folders and the encoder."""
    import planned
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from tiny_encoders import save_tiny_encoder

    planned.mark_file_format(workplace / "nnUNet_preprocessed")
    encoder = save_tiny_encoder(family, workplace / family)
    torch.manual_seed(0)
    trainer_class = recursive_find_trainer_class_by_name(name)
    trainer = trainer_class(plans(encoder), "2d", 0, DATASET_JSON, torch.device("cpu"))
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1)
    train(trainer)
    model = folder / "model"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(trainer.plans_manager.plans, indent=1))
    (model / "dataset.json").write_text(json.dumps(DATASET_JSON, indent=1))
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    trainer.save_checkpoint(str(checkpoint))
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "optimizer_state": None, "logging": None}, checkpoint)  # of no use to a prediction
    images, _ = discs(np.random.default_rng(1), 1, 60, 84)
    image = folder / "images" / "disc_0000.png"
    image.parent.mkdir()
    Image.fromarray(images[0]).save(image)
    predicted = predictor(model)
    np.savez_compressed(folder / "logits.npz", logits=logits(predicted, image).numpy())
    (workplace / "out").mkdir()  # where nnU-Net leaves more than the prediction
    predicted.predict_from_files_sequential([[str(image)]], [str(workplace / "out" / "disc")], False, True, None)
    shutil.copy(workplace / "out" / "disc.png", folder)
    print(f"{np.asarray(Image.open(folder / 'disc.png')).mean():.1%} of the pixels are foreground")


if __name__ == "__main__":
    target, trainer_name, encoder_family = sys.argv[1:]
    temporary = Path(tempfile.gettempdir()) / "guidino_make_model"  # its name is written into the model
    shutil.rmtree(temporary, ignore_errors=True)
    os.environ |= {folder: str(temporary / folder) for folder in FOLDERS}
    make(Path(target), trainer_name, encoder_family, temporary)
    shutil.rmtree(temporary)
