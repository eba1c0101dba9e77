"""The encoder in bfloat16, which any CPU can emulate, and in float32."""

import pytest
import torch
from tiny_encoders import FAMILIES
from torch import nn

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.encoders import precision
from nnunetv2_guidino.encoders.architecture import read_encoder_config
from nnunetv2_guidino.encoders.token_encoder import TokenEncoder


@pytest.fixture
def bfloat16(monkeypatch):
    """Switch it on or off."""
    return lambda on: monkeypatch.setattr(precision, "has_bfloat16", lambda device: on)


def load(folder, lora=None, channels=3) -> TokenEncoder:
    encoder = TokenEncoder(read_encoder_config(folder, None), None, ("ZScoreNormalization",) * channels, 64, lora)
    encoder.load_pretrained(folder, "tiny")
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_multiplied_in_bfloat16_and_tokens_stay_close(family, tiny_encoder, bfloat16):
    encoder = load(tiny_encoder(family)).train()
    formats = set()
    for module in encoder.vit.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: formats.add(output.dtype))
    image = torch.randn(2, 3, 64, 80)
    bfloat16(False)
    expected = encoder(image)
    assert formats == {torch.float32}
    formats.clear()
    bfloat16(True)
    tokens = encoder(image)
    assert formats == {torch.bfloat16}
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, expected, rtol=0, atol=0.05)
    assert not torch.equal(tokens, expected)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.eval()(image), expected)  # a CPU predicts in float32


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("on", [False, True])
def test_what_overflows_in_nnunet_s_float16_is_finite(on, channels, tiny_encoder, bfloat16):
    encoder = load(tiny_encoder("dinov3"), channels=channels).train()
    with torch.no_grad():
        encoder.family.blocks(encoder.vit)[0].mlp.up_proj.bias += 1e6  # as some channels of the large ones
    image = torch.randn(1, channels, 64, 64)
    bfloat16(on)
    with torch.autocast("cpu", dtype=torch.float16):
        assert not encoder.vit(pixel_values=image[:, :3]).last_hidden_state.isfinite().all()
        assert encoder(image).isfinite().all()


def test_adapters_are_trained_in_float32(tiny_encoder, bfloat16):
    encoder = load(tiny_encoder("dinov3"), LoRA(dropout=0)).train()
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    image = torch.randn(2, 3, 64, 64)
    gradients = []
    for on in (False, True):
        bfloat16(on)
        encoder.zero_grad()
        encoder(image).square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    for expected, gradient in zip(*gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_torch_compile_asks_once_for_the_format(tiny_encoder, monkeypatch):
    monkeypatch.undo()  # the tests' own answer
    explanation = torch._dynamo.explain(load(tiny_encoder("dinov3")))(torch.randn(1, 3, 64, 64))
    assert explanation.graph_break_count == 0, explanation.break_reasons
