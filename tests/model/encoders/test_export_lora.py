import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from planned import CHANNELS, save_model_folder
from tiny_encoders import FAMILIES
from torch import nn
from transformers import AutoModel

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.nnunet.plans import RECORD


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_what_was_exported(family, layer, planned_trainer, tiny_encoder, tmp_path):
    """On the pretrained encoder, peft's model gives the tokens of the trained one."""
    guide = {"encoder": str(tiny_encoder(family)), "layer": layer, "lora": {"rank": 4, "alpha": 2}}
    trainer = planned_trainer("nnUNetTrainerGuiDINOLoRA", guide=guide)
    trainer.initialize()
    for name, parameter in trainer.network.token_encoder.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    save_model_folder(trainer)
    output = tmp_path / "adapter"
    assert main(["encoder", "export-lora", trainer.output_folder_base, "-o", str(output)]) == 0
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in output.iterdir()}

    adapted = trainer.network.token_encoder.eval()
    frozen = TokenEncoder(adapted.architecture, layer, ["ZScoreNormalization"] * CHANNELS, 64)
    frozen.load_pretrained(tiny_encoder(family), "tiny")
    frozen.vit = PeftModel.from_pretrained(frozen.vit, output).eval()
    image = torch.randn(1, CHANNELS, 64, 64)
    torch.testing.assert_close(frozen(image), adapted(image))


@pytest.fixture
def adapted_model(planned_trainer, tiny_encoder) -> Path:
    trainer = planned_trainer("nnUNetTrainerGuiDINOLoRA", guide={"encoder": str(tiny_encoder("dinov2"))})
    trainer.initialize()
    save_model_folder(trainer)
    return Path(trainer.output_folder_base)


def changed_weights(model: Path, change) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["network_weights"] = change(dict(checkpoint["network_weights"]))
    torch.save(checkpoint, file)


LAYER = "token_encoder.vit.blocks.0.attention.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {k.replace("attention.query", "attention.nowhere"): v for k, v in w.items()},
            "nowhere, which the",
        ),
        (lambda w: {k: v for k, v in w.items() if ".lora_" not in k}, "has no adapters"),
        (
            lambda w: {k: v for k, v in w.items() if k != f"{LAYER}.lora_B.weight"},
            "query.lora_B.weight is there w",
        ),
        (
            lambda w: {**w, f"{LAYER}.lora_A.weight": torch.zeros(3, 32)},
            r"query.lora_A.weight has shape \(3, 32\), and",
        ),
        (
            lambda w: {**w, f"{LAYER}.lora_A.weight": torch.full((8, 32), float("nan"))},
            "contains NaN or infinite values",
        ),
    ],
)
def test_adapters_that_do_not_fit_are_refused(change, message, adapted_model, tmp_path, capsys):
    changed_weights(adapted_model, change)
    assert main(["encoder", "export-lora", str(adapted_model), "-o", str(tmp_path / "adapter")]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("recorded", [True, False], ids=["of this version", "of 0.1.0"])
def test_plans_json_of_another_training_is_refused(recorded, adapted_model, tmp_path, capsys):
    """With another alpha the adapters would be scaled wrongly, and nothing else would tell."""
    if not recorded:
        changed_weights(adapted_model, lambda weights: {k: v for k, v in weights.items() if k != RECORD})
    file = adapted_model / "plans.json"
    plans = json.loads(file.read_text())
    plans["guidino"]["lora"]["alpha"] = 99
    file.write_text(json.dumps(plans))
    assert main(["encoder", "export-lora", str(adapted_model), "-o", str(tmp_path / "adapter")]) == 1
    assert "guidino.lora.alpha is 99 in plans.json beside it and 16 in it" in capsys.readouterr().err
    assert not (tmp_path / "adapter").exists()


def test_adapters_say_what_they_fit(adapted_model, tiny_encoder, tmp_path):
    assert main(["encoder", "export-lora", str(adapted_model), "-o", str(tmp_path / "adapter")]) == 0
    card = (tmp_path / "adapter" / "README.md").read_text()
    source = json.loads((adapted_model / "plans.json").read_text())["guidino"]["encoder_source"]
    assert source["sha256"] in card
    assert f"Dinov2Model with the weights of {tiny_encoder('dinov2')}" in card
    assert f"- transformers {transformers.__version__}" in card
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    names = {name for name, _ in AutoModel.from_pretrained(tiny_encoder("dinov2")).named_modules()}
    assert set(config["target_modules"]) <= names


def test_damaged_model_folder_is_named(adapted_model, tmp_path, capsys):
    checkpoint, plans = adapted_model / "fold_0" / "checkpoint_final.pth", adapted_model / "plans.json"
    for file, content, message in (
        (checkpoint, checkpoint.read_bytes()[:1000], "checkpoint_final.pth cannot be read as a checkpoint"),
        (checkpoint, b"", "checkpoint_final.pth cannot be read as a checkpoint"),
        (plans, b"[", "plans.json is no JSON file"),
    ):
        file.write_bytes(content)
        assert main(["encoder", "export-lora", str(adapted_model), "-o", str(tmp_path / "adapter")]) == 1
        assert message in capsys.readouterr().err


@pytest.fixture
def frozen_model(planned_trainer) -> str:
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    save_model_folder(trainer)
    return trainer.output_folder_base


def test_wrong_input_is_refused_and_nothing_is_written(frozen_model, tmp_path, capsys):
    output = tmp_path / "adapter"
    for arguments, message in (
        ([frozen_model], "was not trained with LoRA"),
        ([frozen_model, "-f", "3"], "checkpoint_final.pth does not exist"),
        ([str(tmp_path / "nowhere")], "plans.json does not exist"),
    ):
        assert main(["encoder", "export-lora", *arguments, "-o", str(output)]) == 1
        assert message in capsys.readouterr().err
    assert not output.exists()
    output.mkdir()
    assert main(["encoder", "export-lora", frozen_model, "-o", str(output)]) == 1
    assert "exists already" in capsys.readouterr().err
