"""Read the place of an image's pixels from its file: spacing, origin and direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]

# Headers are written with few digits. Of the spacing a thousandth may differ, of a corner's place a tenth of a pixel.
SPACING_TOLERANCE = 1e-3
PLACE_TOLERANCE = 0.1


def affine_of(properties: Mapping[str, Any]) -> Affine | None:
    """Affine (4, 4) from a pixel's index (x, y, z) to its place, out of what nnU-Net's readers return.

    A 2D image lies in the plane z = 0. Where a reader turns the image (…WithReorient) it is that of the turned image,
    which fits the array. None for formats without a place (PNG, BMP, TIFF).
    """
    if "sitk_stuff" in properties:
        stored = properties["sitk_stuff"]
        sides = len(stored["spacing"])
        direction = np.reshape(stored["direction"], (sides, sides))
        sides = min(sides, 3)  # the fourth axis of a file are its channels
        affine = np.eye(4)
        affine[:sides, :sides] = direction[:sides, :sides] * np.asarray(stored["spacing"][:sides])
        affine[:sides, 3] = stored["origin"][:sides]
        return affine
    if "nibabel_stuff" in properties:
        stored = properties["nibabel_stuff"]
        return np.asarray(stored.get("reoriented_affine", stored["original_affine"]), np.float64)
    return None


def same_spacing(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return True if two spacings are equal up to the digits that headers lose."""
    return len(one) == len(other) and np.allclose(one, other, rtol=SPACING_TOLERANCE, atol=0)


def place_difference(found: Affine | None, expected: Affine | None, shape: Sequence[int]) -> str | None:
    """Describe the difference between the places of two images of one shape; None if there is none.

    They do if each corner of the image lies in both at the same point, to a tenth of a pixel.

    Args:
        shape: (H, W) or (D, H, W) of the arrays.
    """
    if found is None or expected is None:
        return None
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return "has an affine with values that are no numbers"
    sides = np.array([*shape[::-1], 1][:3])
    corners = np.array(list(product(*((0, side - 1) for side in sides))))
    gaps = corners @ (found - expected)[:3, :3].T + (found - expected)[:3, 3]
    pixel = np.linalg.norm(expected[:3, :3], axis=0)[sides > 1].min(initial=np.inf)
    gap = float(np.linalg.norm(gaps, axis=1).max())
    if gap <= PLACE_TOLERANCE * (pixel if np.isfinite(pixel) else 1.0):
        return None
    return "; ".join(_differences(found, expected)) or f"lies up to {gap:.3g} (unit of the spacing) away"


def _differences(found: Affine, expected: Affine) -> list[str]:
    differences = []
    turned, straight = _direction(found), _direction(expected)
    if not np.allclose(turned, straight, atol=1e-2):
        axes = [axis for i, axis in enumerate("xyz") if np.allclose(turned[:, i], -straight[:, i], atol=1e-2)]
        flipped = f" (flipped along {', '.join(axes)})" if axes else ""
        differences.append(f"has direction {_numbers(turned)}, its reference has {_numbers(straight)}{flipped}")
    if not np.allclose(found[:3, 3], expected[:3, 3], rtol=1e-4, atol=1e-3 * np.linalg.norm(expected[:3, 0])):
        differences.append(f"has origin {_numbers(found[:3, 3])}, its reference has {_numbers(expected[:3, 3])}")
    return differences


def _direction(affine: Affine) -> Affine:
    """Unit vectors of the axes, as columns."""
    return affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-30)


def _numbers(values: Affine) -> str:
    return f"({', '.join(f'{value:.4g}' for value in (values + 0.0).ravel())})"
