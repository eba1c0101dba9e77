"""Parts that are computed in float32, whatever nnU-Net's autocast says around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Autocast off on the tensor's device; Apple's refuses to be asked in older versions of torch, and has none on."""
    if tensor.device.type == "mps":
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
