"""Images of any modality as what a screen shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def displayed(image: Array) -> Array:
    """An image (C, …) scaled to 0…1 as (3, …) if it has three channels, else the first one as (1, …)."""
    low, high = np.percentile(image, (0.5, 99.5))
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return image if len(image) == 3 else image[:1]
