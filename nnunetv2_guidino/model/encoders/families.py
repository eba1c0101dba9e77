"""Families of vision transformers: the places of their parts, the keys that describe them, the names of their tensors.

To add one, write a class that differs from Family where it must, and give it a line in FAMILIES. Family serves all
other vision transformers of transformers.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Collection
from typing import Any

from torch import nn

# transformers renames modules from version to version. These patterns, applied one after the other, turn the names of
# all versions 5.x so far into the names in our checkpoints. A name that a later version introduces needs a line here.
_RENAMINGS = (
    (r"^vision_model\.", ""),
    (r"^(?:model\.|encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"^(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.output\.dense\.", r".attention.output."),
    (r"\.attention\.q_proj\.", r".attention.query."),
    (r"\.attention\.k_proj\.", r".attention.key."),
    (r"\.attention\.v_proj\.", r".attention.value."),
    (r"\.attention\.o_proj\.", r".attention.output."),
    (r"^(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


class Family:
    """Any vision transformer of transformers.

    Attributes:
        keys: The keys of its configuration that describe it; none stands for all that its type adds to the common ones.
        renamings: Patterns and replacements, applied one after the other to the name of a tensor.
    """

    keys: frozenset[str] = frozenset()
    renamings: tuple[tuple[str, str], ...] = _RENAMINGS

    def blocks(self, vit: Any) -> nn.ModuleList | nn.Sequential:
        """Return the transformer blocks in their order; blocks that are deleted from the list do not run."""
        depth = vit.config.num_hidden_layers
        return next(m for m in vit.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)

    def final_norm(self, vit: Any) -> nn.Module | None:
        """Return the norm that the last block's tokens pass; None if it is not known."""
        return getattr(vit, "norm", None) or getattr(vit, "layernorm", None)

    def patch_size(self, vit: Any) -> int:
        """Return the side of a patch in pixels; raise ValueError if patches are not square."""
        return _square(vit.config.patch_size)

    def width(self, vit: Any) -> int:
        """Return the number of channels of a token."""
        return int(vit.config.hidden_size)

    def prefix_tokens(self, vit: Any) -> int | None:
        """Return the number of tokens before those of the patches; None if it is not known."""
        del vit
        return None

    def forward_options(self, vit: Any) -> dict[str, bool]:
        """Return the arguments with which the forward pass takes images of any size."""
        # DINO's position embeddings follow the image size; the original ViT has to be told to.
        name = "interpolate_pos_encoding"
        return {name: True} if name in inspect.signature(vit.forward).parameters else {}

    def inner_keys(self, key: str) -> Collection[str]:
        """Return the keys that the value of a key may have; none if the value has no keys."""
        del key
        return ()

    def completed(self, architecture: dict[str, Any]) -> dict[str, Any]:
        """Return the architecture with the options that let it take images of any size."""
        return architecture

    def stable_name(self, name: str) -> str:
        """Return the name in our checkpoints of a tensor that some version of transformers and peft calls `name`.

        An encoder's own tensors have the same names with and without LoRA's adapters.
        """
        return _renamed(name, self.renamings)


class ViT(Family):
    """The original vision transformer, DINOv2 and DINOv3: a class token, register tokens if any, and the patches."""

    def prefix_tokens(self, vit: Any) -> int:
        return 1 + getattr(vit.config, "num_register_tokens", 0)


class Timm(Family):
    """A vision transformer of timm, in transformers' wrapper."""

    keys = frozenset({"architecture", "model_args"})
    renamings = ((r"^timm_model\.", ""),)

    def blocks(self, vit: Any) -> nn.ModuleList | nn.Sequential:
        return vit.timm_model.blocks

    def final_norm(self, vit: Any) -> nn.Module | None:
        return vit.timm_model.norm

    def patch_size(self, vit: Any) -> int:
        return _square(vit.timm_model.patch_embed.patch_size)

    def width(self, vit: Any) -> int:
        return int(vit.timm_model.num_features)

    def prefix_tokens(self, vit: Any) -> int:
        return int(vit.timm_model.num_prefix_tokens)

    def inner_keys(self, key: str) -> Collection[str]:
        if key != "model_args":
            return ()
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        # timm.create_model takes more, which name files and addresses, such as checkpoint_path
        return {*inspect.signature(VisionTransformer).parameters, *inspect.signature(Eva).parameters}

    def completed(self, architecture: dict[str, Any]) -> dict[str, Any]:
        return {**architecture, "model_args": {**(architecture.get("model_args") or {}), "dynamic_img_size": True}}


FAMILIES: dict[str, Family] = {
    "dinov3_vit": ViT(),
    "dinov2": ViT(),
    "dinov2_with_registers": ViT(),
    "vit": ViT(),
    "timm_wrapper": Timm(),
}


def family_of(model_type: str) -> Family:
    """Return the family of transformers' `model_type`."""
    return FAMILIES.get(model_type) or Family()


@functools.lru_cache(maxsize=2**16)  # nnU-Net asks for all names once for each name in a checkpoint
def _renamed(name: str, renamings: tuple[tuple[str, str], ...]) -> str:
    name = re.sub(r"\.base_layer\.", ".", name)
    name = re.sub(r"\.lora_([AB])\.default\.", r".lora_\1.", name)
    for pattern, replacement in renamings:
        name = re.sub(pattern, replacement, name)
    return name


def _square(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"patches of {height}×{width} pixels are not square")
    return int(height)
