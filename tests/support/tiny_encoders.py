"""Tiny random models of each encoder family; stand-ins for weights that cannot be downloaded here."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModel,
    BertConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    PretrainedConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)

WIDTH = 32
DEPTH = 3
_SIZE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2}
_TIMM = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}

CONFIGS: dict[str, PretrainedConfig] = {
    "dinov3": DINOv3ViTConfig(**_SIZE, intermediate_size=64, num_register_tokens=4, patch_size=16),
    "dinov2": Dinov2Config(**_SIZE, image_size=56, patch_size=14),
    "dinov2_registers": Dinov2WithRegistersConfig(**_SIZE, image_size=56, patch_size=14, num_register_tokens=4),
    "vit": ViTConfig(**_SIZE, intermediate_size=64, image_size=64, patch_size=16),
    "timm_dinov3": TimmWrapperConfig(architecture="vit_small_patch16_dinov3", model_args=_TIMM),
    "timm_dinov2": TimmWrapperConfig(architecture="vit_small_patch14_dinov2", model_args=_TIMM),
    # its attention multiplies by the weight of `qkv` and does not call it
    "timm_eva": TimmWrapperConfig(architecture="eva_giant_patch14_224", model_args=_TIMM),
    # not encoders of patch tokens
    "swin": SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1]),
    "bert": BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=99),
}
FAMILIES = ("dinov3", "dinov2", "dinov2_registers", "vit", "timm_dinov3", "timm_dinov2")
PATCH = {family: 14 if "dinov2" in family else 16 for family in FAMILIES}


def save_tiny_encoder(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(CONFIGS[family]).save_pretrained(folder)
    return folder
