"""The recipe: a family of encoders is one class and one line."""

import pytest
import torch
from transformers import AutoModel, IJepaConfig

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders.allowed import described_keys
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.families import FAMILIES, ViT
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder


class IJepa(ViT):
    """I-JEPA: a vision transformer without a class token."""

    def prefix_tokens(self, vit):
        return 0


@pytest.fixture
def folder(tmp_path):
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    AutoModel.from_config(IJepaConfig(**size, image_size=64, patch_size=16)).save_pretrained(tmp_path)
    return tmp_path


def test_a_family_is_one_class_and_one_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(FAMILIES, "ijepa", IJepa())
    assert main(["encoder", "check", str(folder), "--size", "64", "--layer", "1,2"]) == 0
    assert "4×4 tokens of width 64" in capsys.readouterr().out
    architecture = read_encoder_config(folder, None)
    assert architecture.keys() <= {"model_type", *described_keys("ijepa")}
    encoder = TokenEncoder(architecture, None, ["ZScoreNormalization"] * 3, 64, LoRA())
    encoder.load_pretrained(folder, "tiny")
    encoder(torch.randn(1, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert "vit.blocks.1.attention.query.lora_A.weight" in encoder.state_dict()


def test_one_that_is_not_in_the_table_works_too(folder):
    architecture = read_encoder_config(folder, 1)
    encoder = TokenEncoder(architecture, 1, ["ZScoreNormalization"] * 3, 64)
    encoder.load_pretrained(folder, "tiny")
    assert encoder(torch.randn(1, 3, 64, 64)).shape == (1, 32, 4, 4)
    assert "vit.blocks.0.attention.query.weight" in encoder.state_dict()


def test_wrong_count_of_prefix_tokens_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setitem(FAMILIES, "ijepa", ViT())  # which expects a class token
    assert main(["encoder", "check", str(folder)]) == 1
    assert "an image of 2×3 patches gave a tensor of shape (1, 6, 32)" in capsys.readouterr().err
