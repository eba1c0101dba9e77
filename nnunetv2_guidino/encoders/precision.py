"""The number format in which a vision transformer computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 without emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not hasattr(torch.cpu, "get_capabilities"):  # earlier versions of torch cannot say
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def native_precision(device: torch.device, training: bool) -> AbstractContextManager[object]:
    """Matrices are multiplied in bfloat16 where the device has it, else in float32, never in autocast's float16.

    nnU-Net's autocast on GPUs is in float16, which ends at 65504: the residual stream of large DINOv3 goes beyond.
    bfloat16 has float32's range. Norms, the residual stream and all parameters stay in float32.

    CPUs predict in float32, as nnU-Net does there: bfloat16 moves the Dice of single cases by some thousandths
    (tests/support/number_formats.py). A training's own randomness is far larger.
    """
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    wanted = training or device.type == "cuda"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted and has_bfloat16(device))
