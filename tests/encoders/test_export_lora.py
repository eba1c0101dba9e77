import pytest
import torch
from peft import PeftModel
from planned import CHANNELS, save_model_folder
from tiny_encoders import FAMILIES
from torch import nn

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.encoders.token_encoder import TokenEncoder


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
