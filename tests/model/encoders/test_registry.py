import pytest
from tiny_encoders import FAMILIES

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.tools.plan.encoder_cost import encoder_cost


@pytest.mark.parametrize("name", KNOWN_ENCODERS)
def test_facts_are_the_library_s(name):
    import torch

    from nnunetv2_guidino.model.encoders.architecture import build_vit
    from nnunetv2_guidino.model.encoders.families import family_of

    known = KNOWN_ENCODERS[name]
    with torch.device("meta"):
        vit = build_vit(known.architecture)
    assert sum(p.numel() for p in vit.parameters()) == known.parameters
    family = family_of(vit.config.model_type)
    assert len(family.blocks(vit)) == known.depth
    assert family.patch_size(vit) == known.patch
    assert family.width(vit) == known.width
    assert family.prefix_tokens(vit) == 1 + known.registers
    assert known.layer is None or known.layer <= known.depth


def test_list_needs_no_network_and_names_all(capsys):
    assert main(["encoder", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in KNOWN_ENCODERS)


def test_cost_of_a_dinov2_small():
    """Against the formula: 24 C² operations a token in each block's matrices, 4 n² C in its attention."""
    small = KNOWN_ENCODERS["facebook/dinov2-small"]
    cost = encoder_cost(small.architecture, None, 256, (128, 128))
    assert cost.tokens == 18 * 18
    assert cost.parameters == small.parameters
    n, c = 1 + 18 * 18, 384
    embedding = 2 * 18 * 18 * 3 * 14 * 14 * c
    assert cost.flops == pytest.approx(12 * (24 * n * c * c + 4 * n * n * c) + embedding, rel=1e-3)
    assert cost.activation_bytes == 0  # frozen


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_keeps_activations_and_few_layers_cost_less(family, tiny_encoder):
    from nnunetv2_guidino.model.encoders.architecture import read_encoder_config

    config = read_encoder_config(tiny_encoder(family), None)
    whole, half = (encoder_cost(config, layer, 64, (64, 64), lora=LoRA()) for layer in (None, 1))
    assert 0 < half.activation_bytes < whole.activation_bytes
    assert half.flops < whole.flops
    assert encoder_cost(config, None, 128, (64, 64)).tokens > whole.tokens


@pytest.mark.parametrize("family", ["dinov3", "dinov2", "timm_dinov3"])
def test_kept_activations_are_those_of_a_real_pass(family, tiny_encoder):
    import torch

    from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
    from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

    architecture = read_encoder_config(tiny_encoder(family), None)
    encoder = TokenEncoder(architecture, None, ["ZScoreNormalization"] * 3, 256, LoRA()).train()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no address is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(torch.randn(1, 3, 256, 256))
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    cost = encoder_cost(architecture, None, 256, (256, 256), lora=LoRA())
    assert cost.activation_bytes == pytest.approx(measured, rel=0.1)
