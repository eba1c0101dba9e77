"""Switch nnU-Net's autocast off around parts that need float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast is off on the tensor's device."""
    if tensor.device.type == "mps":
        # Older versions of torch raise an error when they are asked for autocast on Apple's GPUs, and none is on there.
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
