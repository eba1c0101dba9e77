"""The LoRA adapters of a trained model as a standard peft adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import PeftModel

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.encoders.architecture import build_vit
from nnunetv2_guidino.encoders.lora import ADAPTER_NAME, peft_config
from nnunetv2_guidino.errors import GuidinoError

_PREFIX = "token_encoder.vit."


def export_lora(model_folder: Path, output: Path, fold: str, checkpoint: str) -> int:
    """Write adapter_config.json and adapter_model.safetensors, as PeftModel.from_pretrained reads them.

    Args:
        model_folder: nnU-Net's, with plans.json and fold_<fold>/.
        output: A folder that does not exist yet.
        fold: 0, 1, … or "all".
        checkpoint: File name in the fold's folder.

    Returns:
        The number of adapted layers.

    Raises:
        GuidinoError: If a file is missing, the model has no adapters, or `output` exists.
    """
    if output.exists():
        raise GuidinoError(f"{output} exists already; give -o another folder")
    plans, weights_file = model_folder / "plans.json", model_folder / f"fold_{fold}" / checkpoint
    for file in (plans, weights_file):
        if not file.is_file():
            raise GuidinoError(f"{file} does not exist; expected a folder as nnUNetv2_train leaves it")
    config = GuideConfig.from_plans(json.loads(plans.read_text()))
    if config.lora is None or config.encoder_config is None:
        raise GuidinoError(f"{plans}: this model was not trained with LoRA (guidino.lora is null)")

    # nnU-Net's checkpoints hold more than tensors
    weights = torch.load(weights_file, map_location="cpu", weights_only=False)["network_weights"]
    adapters = {key.removeprefix(_PREFIX): value for key, value in weights.items() if ".lora_" in key}
    layers = sorted({key.split(".lora_")[0] for key in adapters})
    model = PeftModel(build_vit(config.encoder_config), peft_config(config.lora, layers, config.encoder), ADAPTER_NAME)
    model.base_model.model.load_state_dict(adapters, strict=False)

    unfinished = output.with_name(f"{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, save_embedding_layers=False)
    unfinished.rename(output)
    return len(layers)
