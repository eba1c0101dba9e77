"""The names in a checkpoint are ours, whatever transformers and peft call their modules."""

import copy
import json
import re

import pytest
import torch
from tiny_encoders import FAMILIES
from torch import nn

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.families import ViT, family_of
from nnunetv2_guidino.model.encoders.names import network_to_stable, stable_names
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

# As transformers has called the parts of a block at some time in 5.x, and as our checkpoints call them.
BLOCKS = {
    "dinov3_vit": (
        ("layer.7.attention.q_proj.weight", "model.layer.7.attention.q_proj.weight"),
        "blocks.7.attention.query.weight",
    ),
    "dinov2": (
        ("encoder.layer.7.attention.attention.value.bias", "encoder.layer.7.attention.v_proj.bias"),
        "blocks.7.attention.value.bias",
    ),
    "dinov2_with_registers": (
        ("encoder.layer.7.attention.output.dense.weight", "encoder.layer.7.attention.o_proj.weight"),
        "blocks.7.attention.output.weight",
    ),
    "vit": (("encoder.layer.7.intermediate.dense.weight", "layers.7.mlp.fc1.weight"), "blocks.7.mlp.fc1.weight"),
    "ijepa": (("encoder.layer.7.output.dense.bias", "layers.7.mlp.fc2.bias"), "blocks.7.mlp.fc2.bias"),
    "timm_wrapper": (("timm_model.blocks.7.attn.qkv.weight",), "blocks.7.attn.qkv.weight"),
}


@pytest.mark.parametrize("model_type", BLOCKS)
def test_all_versions_names_become_one(model_type):
    family = family_of(model_type)
    versions, stable = BLOCKS[model_type]
    assert {family.stable_name(name) for name in versions} == {stable}
    assert family.stable_name(stable) == stable
    layer, _, last = versions[0].rpartition(".")
    assert family.stable_name(f"{layer}.base_layer.{last}") == stable
    adapter = stable.rpartition(".")[0] + ".lora_A.weight"
    assert family.stable_name(f"{layer}.lora_A.default.weight") == adapter


def test_names_that_would_become_one_stay():
    names = ["layers.0.norm1.weight", "layers.0.layernorm_before.weight"]
    assert stable_names(names, ViT()) == {name: name for name in names}


@pytest.mark.parametrize("lora", [None, LoRA()], ids=["frozen", "LoRA"])
@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_has_stable_names_and_takes_those_of_the_library(family, lora, tiny_encoder):
    architecture = read_encoder_config(tiny_encoder(family), [1, 2])

    def build() -> TokenEncoder:
        return TokenEncoder(architecture, [1, 2], ["ZScoreNormalization"] * 4, 64, lora)

    encoder, installed = build(), build()
    state = encoder.state_dict()
    assert not any(re.search(r"layer\.|base_layer|attention\.\w_proj|default|timm_model", name) for name in state)
    assert {name for name in state if not name.startswith("vit.")} == {"to_rgb.weight", "to_rgb.bias"}
    for other in (state, {f"vit.{name}": value for name, value in encoder.vit.state_dict().items()}):
        installed.load_state_dict({**state, **other} if other is state else {**keep(state, "to_rgb."), **other})
        for name, value in encoder.vit.state_dict().items():
            assert torch.equal(installed.vit.state_dict()[name], value), name
    nested = nn.ModuleDict({"token_encoder": build()})
    nested.load_state_dict({f"token_encoder.{name}": value for name, value in state.items()})
    with pytest.raises(RuntimeError, match="Unexpected key.*surplus"):
        installed.load_state_dict({**state, "vit.blocks.0.surplus": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        installed.load_state_dict(keep(state, "to_rgb."))


def test_a_network_s_state_dict_of_0_1_0_becomes_one_of_ours(tiny_encoder):
    architecture = read_encoder_config(tiny_encoder("dinov3"), None)
    encoder = TokenEncoder(architecture, None, ["ZScoreNormalization"] * 3, 64, LoRA())
    old = {f"token_encoder.vit.{name}": value for name, value in encoder.vit.state_dict().items()}
    new = {f"token_encoder.{name}": value for name, value in encoder.state_dict().items()}
    for state in (old, new):
        stable = network_to_stable({"network.layer.0.weight": torch.ones(1), **state}, encoder.family)
        assert stable.pop("network.layer.0.weight") == 1
        assert stable.keys() == new.keys()


def keep(state: dict, start: str) -> dict:
    return {name: value for name, value in state.items() if name.startswith(start)}


def test_parameters_that_no_pass_uses_may_come_and_go(tiny_encoder):
    encoder = TokenEncoder(read_encoder_config(tiny_encoder("vit"), None), None, ["ZScoreNormalization"] * 3, 64)
    state = encoder.state_dict()
    pooler = [name for name in state if "pooler" in name]
    assert pooler
    encoder.load_state_dict({name: value for name, value in state.items() if name not in pooler})
    encoder.load_state_dict({**state, "vit.embeddings.mask_token": torch.zeros(1, 1, 32)})


def test_frozen_and_adapted_encoders_call_their_own_weights_alike(tiny_encoder):
    architecture = read_encoder_config(tiny_encoder("dinov3"), None)
    frozen, adapted = (
        TokenEncoder(architecture, None, ["ZScoreNormalization"] * 3, 64, lora) for lora in (None, LoRA())
    )
    added = adapted.state_dict().keys() - frozen.state_dict().keys()
    assert added
    assert all(".lora_" in name for name in added)
    assert frozen.state_dict().keys() < adapted.state_dict().keys()


@pytest.mark.parametrize("lora", [None, LoRA(dropout=0)], ids=["frozen", "LoRA"])
def test_nothing_of_a_pass_is_kept_and_the_encoder_can_be_copied(lora, tiny_encoder):
    architecture = read_encoder_config(tiny_encoder("dinov2"), [1, 2, 3])
    encoder = TokenEncoder(architecture, [1, 2, 3], ["ZScoreNormalization"] * 4, 64, lora).train()
    image = torch.randn(1, 4, 64, 64)
    tokens = encoder(image)
    assert not encoder._hidden_tokens
    copied = copy.deepcopy(encoder)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(copied(image), tokens)
    assert copied.state_dict().keys() == encoder.state_dict().keys()
    assert not torch.equal(encoder(image), tokens)


def test_architecture_is_json(tiny_encoder):
    for family in FAMILIES:
        architecture = read_encoder_config(tiny_encoder(family), None)
        assert json.loads(json.dumps(architecture)) == architecture
