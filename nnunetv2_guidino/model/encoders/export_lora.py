"""Export the LoRA adapters of a trained model as a standard peft adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_folder
from nnunetv2_guidino.model.encoders.architecture import build_vit
from nnunetv2_guidino.model.encoders.damage import check_finite
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.model.encoders.lora import ADAPTER_NAME, peft_config
from nnunetv2_guidino.model.encoders.names import (
    ENCODER_PREFIX,
    network_to_stable,
    stable_names,
    to_installed,
    to_stable,
)
from nnunetv2_guidino.model.encoders.source import versions
from nnunetv2_guidino.nnunet.model_folder import check_recorded_guide, read_checkpoint
from nnunetv2_guidino.nnunet.plans_file import PlansFile


def export_lora(model_folder: Path, output: Path, fold: str, checkpoint: str) -> int:
    """Write adapter_config.json and adapter_model.safetensors for PeftModel.from_pretrained.

    The layers have the names of the installed transformers. README.md names the encoder and the versions.

    Args:
        model_folder: Model folder of nnU-Net, with plans.json and fold_<fold>/.
        output: Folder to write; it must not exist yet.
        fold: 0, 1, … or "all".
        checkpoint: File name in the fold's folder.

    Returns:
        The number of adapted layers.

    Raises:
        GuidinoError: If a file is missing or damaged, if the model has no adapters or other adapters than plans.json
            describes, or if `output` exists.
    """
    if output.exists():
        raise GuidinoError(f"{output} exists already; give -o another folder")
    plans_file, weights_file = model_folder / "plans.json", model_folder / f"fold_{fold}" / checkpoint
    for file in (plans_file, weights_file):
        if not file.is_file():
            raise GuidinoError(f"{file} does not exist; expected a folder as nnUNetv2_train leaves it")
    plans = PlansFile.read(plans_file)
    config = plans.guide
    if config.lora is None or config.encoder_config is None:
        raise GuidinoError(f"{plans_file}: this model was not trained with LoRA (guidino.lora is null)")
    content = read_checkpoint(weights_file)
    check_recorded_guide(weights_file, content, plans)
    model, layers = _adapted(config, content["network_weights"], weights_file)
    with whole_folder(output) as unfinished:
        model.save_pretrained(unfinished, save_embedding_layers=False)
        (unfinished / "README.md").write_text(_card(config, type(model.get_base_model()).__name__), encoding="utf-8")
    return len(layers)


def _adapted(config: GuideConfig, weights: dict[str, Tensor], file: Path) -> tuple[Any, list[str]]:
    """Return peft's model with exactly the adapters among `weights`, and the names of the adapted layers."""
    assert config.lora is not None  # the caller has checked both
    assert config.encoder_config is not None
    vit = build_vit(config.encoder_config, f"guidino.encoder_config in {file.parents[1] / 'plans.json'}")
    family = family_of(config.encoder_config["model_type"])
    stable = network_to_stable(weights, family)
    adapters = {name.removeprefix(ENCODER_PREFIX): value for name, value in stable.items() if ".lora_" in name}
    check_finite(adapters, file)
    installed = {stable: name for name, stable in stable_names(vit.state_dict(), family).items()}
    layers = sorted({name.split(".lora_")[0] for name in adapters})
    unknown = [layer for layer in layers if f"{layer}.weight" not in installed]
    if unknown or not layers:
        has = f"adapters of {unknown[0]}, which the encoder in plans.json does not have" if unknown else "no adapters"
        raise GuidinoError(f"{file} has {has}; expected the checkpoint of a training with LoRA and its own plans.json")
    targets = [installed[f"{layer}.weight"].removesuffix(".weight") for layer in layers]
    model = PeftModel(vit, peft_config(config.lora, targets, config.encoder), ADAPTER_NAME)
    own = vit.state_dict()  # peft has replaced the linear layers by now
    expected = {name: value.shape for name, value in to_stable(own, family).items() if ".lora_" in name}
    for name in sorted(adapters.keys() | expected.keys()):
        if name not in adapters or name not in expected:
            raise GuidinoError(f"{file}: {name} is there without its counterpart; the adapters are incomplete")
        if adapters[name].shape != expected[name]:
            raise GuidinoError(
                f"{file}: {name} has shape {tuple(adapters[name].shape)}, and {tuple(expected[name])} by plans.json; "
                f"expected the plans.json of this training"
            )
    vit.load_state_dict(to_installed({**to_stable(own, family), **adapters}, own, family))
    return model, layers


def _card(config: GuideConfig, model_class: str) -> str:
    """Return the text of README.md, which names the encoder that the adapters fit."""
    source = config.encoder_source or {}
    lines = [f"- {name} {version}" for name, version in versions().items()]
    return (
        f"---\nlibrary_name: peft\ntags:\n- lora\n---\n\n# LoRA adapters of a GuiDINO model\n\n"
        f"Fit: {model_class} with the weights of {config.encoder} (sha256 {source.get('sha256', 'not recorded')}), as "
        f"transformers {versions()['transformers']} names its layers; target_modules in adapter_config.json are these "
        f"names. Versions of transformers that name them otherwise need adapters exported there.\n\n"
        f"Written by `guidino encoder export-lora` with\n\n" + "\n".join(lines) + "\n"
    )
