"""Families of vision transformers: where their parts lie, what describes them, and how their tensors are called.

To add one, write a class that differs from Family where it must, and give it a line in FAMILIES. A vision transformer
of transformers that has no line is taken for a Family.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

# transformers renames modules from version to version. These patterns turn the names of all of its 5.x so far into the
# names in our checkpoints, in turn; to a name that a later version invents belongs a line here.
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

# Of timm.create_model: sizes and switches. Others name files and addresses, such as checkpoint_path and cache_dir.
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
    """A vision transformer of transformers, of which no more is known than what they have in common.

    Attributes:
        keys: Those of its configuration by which it is built; None for all that transformers' own class has.
        without_meaning: Other keys that are written and that say nothing about what is built.
        allowed_inside: Of a key that holds settings of its own, the keys of those.
        renamings: Patterns and replacements, applied one after the other to the name of a tensor.
    """

    keys: frozenset[str] | None = None
    without_meaning: frozenset[str] = frozenset()
    allowed_inside: Mapping[str, frozenset[str]] = MappingProxyType({})
    renamings: tuple[tuple[str, str], ...] = _RENAMINGS

    def blocks(self, vit: Any) -> nn.ModuleList | nn.Sequential:
        """The transformer blocks in their order; what is deleted from it is not run."""
        depth = vit.config.num_hidden_layers
        return next(m for m in vit.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)

    def final_norm(self, vit: Any) -> nn.Module | None:
        """The norm that the last block's tokens pass; None if it is not known."""
        return getattr(vit, "norm", None) or getattr(vit, "layernorm", None)

    def patch_size(self, vit: Any) -> int:
        """Side of a patch in pixels; raises ValueError if patches are not square."""
        return _square(vit.config.patch_size)

    def width(self, vit: Any) -> int:
        """Channels of a token."""
        return int(vit.config.hidden_size)

    def prefix_tokens(self, vit: Any) -> int | None:
        """How many tokens lie before those of the patches; None if it is not known."""
        del vit
        return None

    def forward_options(self, vit: Any) -> dict[str, bool]:
        """What the forward pass must be told to take images of any size."""
        # DINO's position embeddings follow the image size; the original ViT has to be told to.
        name = "interpolate_pos_encoding"
        return {name: True} if name in inspect.signature(vit.forward).parameters else {}

    def completed(self, architecture: dict[str, Any]) -> dict[str, Any]:
        """The architecture with what makes it take images of any size."""
        return architecture

    def stable_name(self, name: str) -> str:
        """The name in our checkpoints of a tensor that some version of transformers and peft calls `name`.

        An encoder's own tensors are called alike with and without LoRA's adapters.
        """
        return _renamed(name, self.renamings)


class ViT(Family):
    """The original vision transformer, with a class token alone."""

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
    """timm's vision transformers, in transformers' wrapper."""

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
    """The family of what transformers calls `model_type`."""
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
