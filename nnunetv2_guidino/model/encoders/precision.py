"""The number format in which a vision transformer multiplies matrices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

LARGEST_FLOAT16 = 65504
# Other images than those of the measurement have larger activations, and adapters move them.
MARGIN = 8


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 without emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not hasattr(torch.cpu, "get_capabilities"):  # earlier versions of torch cannot say
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def native_precision(
    device: torch.device, training: bool, fits_float16: bool = False
) -> AbstractContextManager[object]:
    """Matrices are multiplied in bfloat16 where the device has it, else in float32 or, on GPUs, in float16 if it fits.

    nnU-Net's autocast on GPUs is in float16, which ends at 65504: the residual stream of large DINOv3 goes beyond.
    bfloat16 has float32's range. Norms, the residual stream and all parameters stay in float32.

    CPUs predict in float32, as nnU-Net does there: bfloat16 moves the Dice of single cases by some thousandths
    (docs/tools/number_formats.py). A training's own randomness is far larger.
    """
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    if has_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=training or device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.float16, enabled=fits_float16 and device.type == "cuda")


def largest_activation(vit: nn.Module, run: Callable[[Tensor], object], size: int) -> float:
    """The largest absolute value that goes into a matrix product of a transformer, or comes out of one.

    It is measured in float32 on two images: normal noise, and one that is zero everywhere.

    Args:
        vit: The transformer.
        run: A pass through it, of images (2, 3, size, size).
        size: Pixels of a side.
    """
    largest: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        largest.extend(tensor.detach().abs().amax() for tensor in (*inputs, output))

    products = [module for module in vit.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    hooks = [module.register_forward_hook(look) for module in products]
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise, torch.zeros_like(noise)]).to(next(vit.parameters()).device)
    try:
        with torch.no_grad():
            run(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(largest).amax())


def fits_float16(activation: object) -> bool:
    """Whether products in float16 are safe, given the largest activation; without a number they are not."""
    return isinstance(activation, (int, float)) and MARGIN * activation <= LARGEST_FLOAT16
