"""Attention is torch's fused one in every family: no matrix of tokens × tokens is ever made."""

import pytest
import torch
from tiny_encoders import DEPTH, FAMILIES, PATCH
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder


class FusedAttention(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += func is nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


class Tensors(TorchDispatchMode):
    """The last two sides of all that is computed."""

    def __init__(self):
        super().__init__()
        self.sides = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.sides |= {tuple(t.shape[-2:]) for t in tree_leaves(result) if isinstance(t, Tensor)}
        return result


@pytest.mark.parametrize("lora", [None, LoRA()], ids=["frozen", "LoRA"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_makes_matrices_of_tokens(family, lora, tiny_encoder):
    folder = tiny_encoder(family)
    schemes = ("ZScoreNormalization",) * 3
    encoder = TokenEncoder(read_encoder_config(folder, None), None, schemes, 1, lora).train()
    image = torch.randn(1, 3, 7 * PATCH[family], 7 * PATCH[family])
    prefix = encoder.family.prefix_tokens(encoder.vit)
    with Tensors() as tensors, FusedAttention() as attention:
        tokens = encoder(image)
        if lora:
            tokens.sum().backward()
    assert attention.calls == DEPTH
    assert (49 + prefix, 49 + prefix) not in tensors.sides
    assert tensors.sides & {(49 + prefix, encoder.channels), (encoder.channels, 49)}  # they are noticed
