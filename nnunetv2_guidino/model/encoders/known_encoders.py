"""List pretrained encoders that fit, with the facts that help to choose one. Other encoders may be used too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnunetv2_guidino.printable import align

DINOV3_LICENCE = "dinov3-license"


@dataclass(frozen=True)
class KnownEncoder:
    """Facts about one encoder. The tests compare those about the architecture with transformers and timm.

    Args:
        name: Name on the Hugging Face hub.
        licence: Name of the licence in the model card.
        gated: True if the hub asks users to accept the licence first.
        patch: Side of a patch in pixels.
        width: Number of channels of a token.
        depth: Number of blocks.
        registers: Number of register tokens.
        parameters: Number of parameters of the whole transformer.
        layer: Recommended block; None if no block was measured.
        trained_on: Images that the weights were trained on.
        architecture: Architecture as read_encoder_config returns it, to build the encoder without its files.
    """

    name: str
    licence: str
    gated: bool
    patch: int
    width: int
    depth: int
    registers: int
    parameters: int
    trained_on: str
    architecture: dict[str, Any]
    layer: int | None = None


def _dinov3(size: str, width: int, mlp: int, depth: int, heads: int, gated_mlp: bool, parameters: int) -> KnownEncoder:
    return KnownEncoder(
        name=f"facebook/dinov3-vit{size}16-pretrain-lvd1689m",
        licence=DINOV3_LICENCE,
        gated=True,
        patch=16,
        width=width,
        depth=depth,
        registers=4,
        parameters=parameters,
        trained_on="1.7 billion web images",
        architecture={
            "model_type": "dinov3_vit",
            "patch_size": 16,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "use_gated_mlp": gated_mlp,
            "num_register_tokens": 4,
        },
    )


def _timm_dinov3(size: str, width: int, depth: int, parameters: int) -> KnownEncoder:
    return KnownEncoder(
        name=f"timm/vit_{size}_patch16_dinov3.lvd1689m",
        licence=DINOV3_LICENCE,
        gated=False,
        patch=16,
        width=width,
        depth=depth,
        registers=4,
        parameters=parameters,
        trained_on="1.7 billion web images",
        architecture={
            "model_type": "timm_wrapper",
            "architecture": f"vit_{size}_patch16_dinov3",
            "model_args": {"dynamic_img_size": True},
        },
    )


def _dinov2(
    name: str,
    width: int,
    depth: int,
    parameters: int,
    registers: int = 0,
    licence: str = "apache-2.0",
    trained_on: str = "142 million web images",
    layer: int | None = None,
) -> KnownEncoder:
    return KnownEncoder(
        name=name,
        licence=licence,
        gated=False,
        patch=14,
        width=width,
        depth=depth,
        registers=registers,
        parameters=parameters,
        trained_on=trained_on,
        layer=layer,
        architecture={
            "model_type": "dinov2_with_registers" if registers else "dinov2",
            "patch_size": 14,
            "image_size": 518,
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": width // 64,
            "use_swiglu_ffn": width == 1536,
            **({"num_register_tokens": registers} if registers else {}),
        },
    )


_CHEST = "chest X-rays, from DINOv2 ViT-B"
KNOWN_ENCODERS = {
    encoder.name: encoder
    for encoder in (
        _dinov3("s", 384, 1536, 12, 6, False, 21_596_544),
        _dinov3("splus", 384, 1536, 12, 6, True, 28_692_864),
        _dinov3("b", 768, 3072, 12, 12, False, 85_660_416),
        _dinov3("l", 1024, 4096, 24, 16, False, 303_129_600),
        _dinov3("hplus", 1280, 5120, 32, 20, True, 840_592_640),
        _dinov3("7b", 4096, 8192, 40, 32, True, 6_716_362_752),
        _timm_dinov3("small", 384, 12, 21_586_944),
        _timm_dinov3("small_plus", 384, 12, 28_683_264),
        _timm_dinov3("base", 768, 12, 85_641_216),
        _timm_dinov3("large", 1024, 24, 303_079_424),
        _timm_dinov3("huge_plus", 1280, 32, 840_509_440),
        _timm_dinov3("7b", 4096, 40, 6_716_030_976),
        # measured on Kvasir-SEG: docs/how_to/choose_an_encoder.md
        _dinov2("facebook/dinov2-small", 384, 12, 22_056_576, layer=12),
        _dinov2("facebook/dinov2-base", 768, 12, 86_580_480),
        _dinov2("facebook/dinov2-large", 1024, 24, 304_368_640),
        _dinov2("facebook/dinov2-giant", 1536, 40, 1_136_480_768),
        _dinov2("facebook/dinov2-with-registers-small", 384, 12, 22_058_112, registers=4),
        _dinov2("facebook/dinov2-with-registers-base", 768, 12, 86_583_552, registers=4),
        _dinov2("facebook/dinov2-with-registers-large", 1024, 24, 304_372_736, registers=4),
        _dinov2("facebook/dinov2-with-registers-giant", 1536, 40, 1_136_486_912, registers=4),
        _dinov2("microsoft/rad-dino", 768, 12, 86_580_480, licence="mit", trained_on=_CHEST),
        _dinov2("microsoft/rad-dino-maira-2", 768, 12, 86_580_480, licence="msrla", trained_on=_CHEST),
    )
}


def list_encoders() -> str:
    """Return a table of all known encoders as text; this needs no internet."""
    rows = [("name", "licence", "gated", "patch", "width", "blocks", "registers", "parameters", "layer", "trained on")]
    for encoder in KNOWN_ENCODERS.values():
        parameters = f"{encoder.parameters / 1e6:.1f} M"
        sizes = (encoder.patch, encoder.width, encoder.depth, encoder.registers)
        layer = "last" if encoder.layer is None else encoder.layer
        gated = "yes" if encoder.gated else "no"
        row = (encoder.name, encoder.licence, gated, *sizes, parameters, layer, encoder.trained_on)
        rows.append(tuple(map(str, row)))  # type: ignore[arg-type]
    return align(rows)
