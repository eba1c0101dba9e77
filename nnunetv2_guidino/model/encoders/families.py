"""Describe families of vision transformers: their modules, their configuration keys and the names of their tensors.

To add a family, write a subclass of Family that overrides the differences, and add a line to FAMILIES. A vision
transformer of transformers without a line counts as a plain Family.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from types import MappingProxyType
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
_SIZES = frozenset(
    {
        "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "image_size",
        "patch_size", "num_channels", "initializer_range", "drop_path_rate",
    }
)  # fmt: skip

# Sizes and switches of timm.create_model. Other arguments, such as checkpoint_path, name files and addresses.
_TIMM_ARGUMENTS = frozenset(
    {
        "act_layer", "attn_drop_rate", "attn_type", "class_token", "depth", "drop_path_rate", "drop_rate",
        "dynamic_img_pad", "dynamic_img_size", "embed_dim", "fc_norm", "final_norm", "global_pool", "img_size",
        "in_chans", "init_values", "mlp_ratio", "no_embed_class", "norm_layer", "num_heads", "num_reg_tokens",
        "patch_drop_rate", "patch_size", "pos_drop_rate", "pos_embed", "pre_norm", "proj_bias", "proj_drop_rate",
        "qk_norm", "qkv_bias", "qkv_fused", "ref_feat_shape", "reg_tokens", "rope_grid_indexing", "rope_grid_offset",
        "rope_rotate_half", "rope_temperature", "rope_type", "scale_attn_inner", "scale_attn_norm", "scale_mlp",
        "scale_mlp_norm", "swiglu_align_to", "swiglu_mlp", "use_abs_pos_emb", "use_fc_norm", "use_post_norm",
        "use_post_transformer_norm", "use_pre_transformer_norm", "use_rot_pos_emb",
    }
)  # fmt: skip


class Family:
    """A vision transformer of the library transformers, without any knowledge of its kind.

    Attributes:
        keys: Keys of the configuration that the transformer is built from; None for all keys of transformers' class.
        without_meaning: Further keys that may be in the configuration and have no effect on the transformer.
        allowed_inside: Allowed inner keys of each key whose value is a section.
        renamings: Patterns and replacements, applied one after the other to the name of a tensor.
    """

    keys: frozenset[str] | None = None
    without_meaning: frozenset[str] = frozenset()
    allowed_inside: Mapping[str, frozenset[str]] = MappingProxyType({})
    renamings: tuple[tuple[str, str], ...] = _RENAMINGS

    def blocks(self, vit: Any) -> nn.ModuleList | nn.Sequential:
        """Return the transformer blocks in their order. Blocks that are deleted from it are not run."""
        depth = vit.config.num_hidden_layers
        return next(m for m in vit.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)

    def final_norm(self, vit: Any) -> nn.Module | None:
        """Return the norm after the last block, None if it is unknown."""
        return getattr(vit, "norm", None) or getattr(vit, "layernorm", None)

    def patch_size(self, vit: Any) -> int:
        """Return the side of a patch in pixels; raise ValueError if patches are not square."""
        return _square(vit.config.patch_size)

    def width(self, vit: Any) -> int:
        """Return the number of channels of a token."""
        return int(vit.config.hidden_size)

    def prefix_tokens(self, vit: Any) -> int | None:
        """Return the number of tokens before the patch tokens, None if it is unknown."""
        del vit
        return None

    def forward_options(self, vit: Any) -> dict[str, bool]:
        """Return the arguments with which the forward pass takes images of any size."""
        # DINO's position embeddings follow the image size; the original ViT needs an argument for that.
        name = "interpolate_pos_encoding"
        return {name: True} if name in inspect.signature(vit.forward).parameters else {}

    def completed(self, architecture: dict[str, Any]) -> dict[str, Any]:
        """Return the architecture with the settings that make it take images of any size."""
        return architecture

    def stable_name(self, name: str) -> str:
        """Return the name in our checkpoints of a tensor that some version of transformers and peft calls `name`.

        A tensor of the encoder itself has the same name with and without LoRA's adapters.
        """
        return _renamed(name, self.renamings)


class ViT(Family):
    """The original vision transformer, with a class token and no register tokens."""

    keys = _SIZES | {
        "intermediate_size", "qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob", "encoder_stride",
        "pooler_output_size", "pooler_act",
    }  # fmt: skip

    def prefix_tokens(self, vit: Any) -> int:
        return 1 + getattr(vit.config, "num_register_tokens", 0)


class DINOv2(ViT):
    """DINOv2, with register tokens or without."""

    keys = _SIZES | {
        "mlp_ratio", "qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob", "layerscale_value",
        "use_swiglu_ffn", "use_mask_token", "num_register_tokens", "apply_layernorm", "reshape_hidden_states",
    }  # fmt: skip


class DINOv3(ViT):
    """DINOv3, with rotary position embeddings and register tokens."""

    keys = _SIZES | {
        "intermediate_size", "attention_dropout", "rope_theta", "query_bias", "key_bias", "value_bias", "proj_bias",
        "mlp_bias", "layerscale_value", "use_gated_mlp", "num_register_tokens", "pos_embed_shift", "pos_embed_jitter",
        "pos_embed_rescale", "apply_layernorm", "reshape_hidden_states",
    }  # fmt: skip


class Timm(Family):
    """A vision transformer of timm, in transformers' wrapper."""

    keys = frozenset({"architecture", "model_args"})
    without_meaning = frozenset(
        ["do_pooling", "global_pool", "initializer_range", "label_descriptions", "num_features", "pretrained_cfg"]
    )
    allowed_inside = MappingProxyType({"model_args": _TIMM_ARGUMENTS})
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

    def completed(self, architecture: dict[str, Any]) -> dict[str, Any]:
        return {**architecture, "model_args": {**(architecture.get("model_args") or {}), "dynamic_img_size": True}}


FAMILIES: dict[str, Family] = {
    "dinov3_vit": DINOv3(),
    "dinov2": DINOv2(),
    "dinov2_with_registers": DINOv2(),
    "vit": ViT(),
    "timm_wrapper": Timm(),
}


def family_of(model_type: str) -> Family:
    """Return the family of a model type of transformers."""
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
