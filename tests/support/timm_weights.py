"""Fake pretrained weights of timm's networks: tiny and random, with timm's own names, in a folder as the hub has it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer

CARD = "---\nlicense: mit\n---\nA fake: tiny, random.\n"


def tiny_swin() -> SwinTransformer:
    """Of the width of tiny_networks' Swin-Unet, with six blocks in the third stage, as Swin-T has."""
    torch.manual_seed(1)
    return SwinTransformer(
        img_size=192, embed_dim=8, depths=(2, 2, 6, 2), num_heads=(1, 2, 2, 4), window_size=3, num_classes=5
    )


def tiny_resnet() -> ResNet:
    """Of the width of tiny_networks' H2Former."""
    torch.manual_seed(1)
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=5, stem_width=8, channels=(8, 16, 32, 64))


FAKES = {"swin_unet": tiny_swin, "h2former": tiny_resnet}


def save_fake(architecture: str, folder: Path, **changes: torch.Tensor) -> Path:
    """What the pretrained part of that architecture may start from; `changes` replace tensors, by timm's names."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = FAKES[architecture]().state_dict() | changes
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": f"a fake of {architecture}"}))
    (folder / "README.md").write_text(CARD)
    return folder
