"""Compiled backward passes keep their number formats under autocast in float16, which trainings on CUDA use."""

from collections import Counter

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from nnunetv2_guidino.model.encoders import precision
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
ON_TOKENS = {"tuning": "lora", "layers": [1, 2], "widths": [4, 6]}


def formats_of_a_step(trainer, patch_size) -> Counter:
    """Return the number formats of the matrix products in the backward graphs of a compiled step."""
    formats = Counter()

    def forward(graph, inputs):
        return make_boxed_func(graph.forward)

    def backward(graph, inputs):
        formats.update(node.meta["val"].dtype for node in graph.graph.nodes if node.target in PRODUCTS)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    trainer.initialize()
    trainer.network.train()
    trainer.network = torch.compile(trainer.network, backend=aot_autograd(fw_compiler=forward, bw_compiler=backward))
    labels = torch.zeros(2, 1, *patch_size)
    labels[..., 8:24, 12:30] = 1
    half = (slice(None), slice(None), *[slice(None, None, 2)] * len(patch_size))
    with torch.autocast("cpu", dtype=torch.float16):
        trainer.train_step({"data": torch.randn(2, 3, *patch_size), "target": [labels, labels[half]]})
    return formats


@pytest.mark.parametrize(
    ("name", "patch_size", "expected"),
    [
        ("nnUNetTrainerGuiDINO", (32, 48), {torch.float32}),  # TokenBook and the guide's resizing
        ("nnUNetTrainerGuiDINOLoRA", (32, 48), {torch.float32, torch.bfloat16}),  # and the encoder
        ("nnUNetTrainerGuiDINOLoRA", (8, 32, 48), {torch.float32, torch.bfloat16}),
    ],
)
def test_nothing_of_the_guide_is_differentiated_in_float16(name, patch_size, expected, planned_trainer, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    guide = {"gate": "product"}  # others multiply features by matrices, in the features' format
    before = torch._functorch.config.backward_pass_autocast
    assert set(formats_of_a_step(planned_trainer(name, guide=guide, patch_size=patch_size), patch_size)) == expected
    assert torch._functorch.config.backward_pass_autocast == before  # other trainings in this process keep theirs


def test_an_adapted_network_on_tokens_is_not_either(planned_trainer, tiny_encoder, monkeypatch):
    """nnU-Net's autocast sets the format of the network's own layers, but not of the transformer below them."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    folder = tiny_encoder("dinov3")
    encoder = {"encoder_config": read_encoder_config(folder, None), "pretrained": str(folder)}
    trainer = planned_trainer("nnUNetTrainerGuiDINOBaseline", architecture="segdino", network={**ON_TOKENS, **encoder})
    formats = formats_of_a_step(trainer, (32, 48))
    assert formats[torch.bfloat16] > 10
    assert formats[torch.float16] < 10
