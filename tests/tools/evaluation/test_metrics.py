"""Metrics against closed forms and against other libraries."""

from math import hypot, isclose, pi

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
from scipy.ndimage import gaussian_filter

from nnunetv2_guidino.tools.evaluation.metrics import class_metrics

NAN = float("nan")


def disc(radius: float, centre: tuple[float, float] = (100, 100)) -> np.ndarray:
    y, x = np.mgrid[:200, :220]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((200, 220), bool)
    mask[rows, columns] = True
    return mask


CLOSED_FORMS = {
    "same": (disc(30), disc(30), {"Dice": 1, "IoU": 1, "HD95": 0, "NSD": 1, "Precision": 1, "Recall": 1}),
    "single pixels": (
        box(slice(10, 11), slice(20, 21)),
        box(slice(13, 14), slice(24, 25)),
        {"Dice": 0, "IoU": 0, "HD95": 5, "NSD": 0, "Precision": 0, "Recall": 0},
    ),
    "square of 10 shifted by 2 columns": (
        box(slice(0, 10), slice(0, 10)),
        box(slice(0, 10), slice(2, 12)),
        # each has 36 surface pixels: the 10 of its outer side and the middle 6 of its inner side are 2 away
        {"Dice": 0.8, "IoU": 80 / 120, "HD95": 2, "NSD": 20 / 36, "Precision": 0.8, "Recall": 0.8},
    ),
    "rectangle within a square": (
        box(slice(0, 20), slice(0, 20)),
        box(slice(0, 20), slice(0, 10)),
        {"Dice": 2 * 200 / 600, "IoU": 0.5, "HD95": 10, "Precision": 1, "Recall": 0.5},
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms(name):
    reference, prediction, expected = CLOSED_FORMS[name]
    metrics = class_metrics(reference, prediction, (1, 1), 1, "penalize")
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)


def test_nsd_of_concentric_squares_by_hand():
    # surface pixels of the outer square are 2 from the inner one, and farther near the corners
    outer, inner = box(slice(10, 20), slice(10, 20)), box(slice(12, 18), slice(12, 18))
    at_2 = class_metrics(outer, inner, (1, 1), 2, "penalize")
    # all 20 of the inner surface, and 6 of each outer side: the columns and rows of the inner square
    assert at_2["NSD"] == pytest.approx((20 + 4 * 6) / (20 + 36))
    assert class_metrics(outer, inner, (1, 1), 1.9, "penalize")["NSD"] == 0
    assert class_metrics(outer, inner, (1, 1), hypot(2, 2), "penalize")["NSD"] == 1


def test_discs():
    small, large = disc(40), disc(60)
    metrics = class_metrics(large, small, (1, 1), 1, "penalize")
    assert metrics["HD95"] == pytest.approx(20, abs=1)
    assert metrics["Recall"] == pytest.approx((40 / 60) ** 2, rel=0.01)
    assert metrics["n_ref"] == pytest.approx(pi * 60**2, rel=0.01)
    assert class_metrics(large, small, (1, 1), 22, "penalize")["NSD"] == 1


def test_distance_is_in_the_unit_of_the_spacing():
    reference, prediction = np.zeros((2, 8, 8, 8), bool)
    reference[1, 1, 1] = prediction[3, 1, 1] = True
    assert class_metrics(reference, prediction, (5, 0.5, 0.5), 1, "penalize")["HD95"] == 10
    assert class_metrics(reference, prediction, (0.5, 5, 5), 1, "penalize") == pytest.approx(
        class_metrics(reference, prediction, (0.5, 5, 5), 1, "ignore")
    )


NOTHING, SOMETHING = np.zeros((30, 40), bool), np.ones((30, 40), bool)
EMPTY = [
    # reference, prediction, policy, Dice, NSD, HD95, precision, recall
    (SOMETHING, NOTHING, "penalize", 0, 0, 50, 0, 0),
    (NOTHING, SOMETHING, "penalize", 0, 0, 50, 0, 0),
    (SOMETHING, NOTHING, "ignore", 0, 0, NAN, NAN, 0),
    (NOTHING, SOMETHING, "ignore", 0, 0, NAN, 0, NAN),
    (NOTHING, NOTHING, "penalize", NAN, NAN, NAN, NAN, NAN),
    (NOTHING, NOTHING, "ignore", NAN, NAN, NAN, NAN, NAN),
]


@pytest.mark.parametrize(("reference", "prediction", "empty", *"abcde"), EMPTY)
def test_empty_masks(reference, prediction, empty, a, b, c, d, e):
    metrics = class_metrics(reference, prediction, (1, 1), 1, empty)
    found = [metrics[name] for name in ("Dice", "NSD", "HD95", "Precision", "Recall")]
    assert found == pytest.approx([a, b, c, d, e], nan_ok=True)


def blobs(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random, overlapping masks of several pieces that reach the image's border."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), 3)
    other = field + 0.5 * gaussian_filter(rng.normal(size=shape), 3)
    return field > np.quantile(field, 0.7), other > np.quantile(other, 0.75)


SHAPES = [
    ((60, 80), (1.0, 1.0)),
    ((60, 80), (0.7, 1.3)),
    ((14, 40, 36), (3.0, 0.8, 0.8)),
    ((1, 40, 36), (3.0, 1.0, 1.0)),
]


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_monai(shape, spacing, seed):
    reference, prediction = blobs(shape, seed)
    metrics = class_metrics(reference, prediction, spacing, 1.5, "penalize")
    y, y_pred = (torch.from_numpy(mask)[None, None] for mask in (reference, prediction))
    background = {"include_background": True}
    expected = {
        "Dice": compute_dice(y_pred.float(), y.float()),
        "IoU": compute_iou(y_pred.float(), y.float()),
        "HD95": compute_hausdorff_distance(y_pred, y, percentile=95, spacing=spacing, **background),
        "NSD": compute_surface_dice(y_pred, y, [1.5], spacing=spacing, **background),
    }
    assert [metrics[name] for name in expected] == pytest.approx([v.item() for v in expected.values()], rel=1e-5)


@pytest.mark.parametrize(("shape", "spacing"), SHAPES[:3])
def test_agrees_with_simpleitk(shape, spacing):
    """SimpleITK computes distance maps. Its contours leave out the image's border, so no mask touches it."""
    masks = [np.pad(mask, 3) for mask in blobs(shape, 0)]
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    for image in images:
        image.SetSpacing(spacing[::-1])
    surfaces = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    maps = [
        sitk.GetArrayFromImage(sitk.Abs(sitk.SignedMaurerDistanceMap(s, squaredDistance=False, useImageSpacing=True)))
        for s in surfaces
    ]
    on = [sitk.GetArrayFromImage(surface) > 0 for surface in surfaces]
    distances = [maps[1][on[0]], maps[0][on[1]]]
    metrics = class_metrics(*masks, spacing, 1.5, "penalize")
    assert metrics["HD95"] == pytest.approx(max(np.percentile(d, 95) for d in distances), rel=1e-5)
    assert metrics["NSD"] == pytest.approx(np.mean(np.concatenate(distances) <= 1.5), rel=1e-5)


def test_cropping_changes_nothing():
    reference, prediction = blobs((50, 60), 4)
    inner = class_metrics(reference, prediction, (1, 1), 1, "penalize")
    outer = class_metrics(np.pad(reference, 20), np.pad(prediction, 20), (1, 1), 1, "penalize")
    assert all(isclose(inner[name], outer[name]) for name in inner)


SHIFTED = box(slice(10, 30), slice(10, 30)), box(slice(10, 30), slice(11, 31))


@pytest.mark.parametrize("spacing", [0.3, 0.6, 0.7, float(np.float32(0.3)), float(np.float32(0.7)), 0.1, 1.1, 2.3])
def test_one_pixel_is_within_a_tolerance_of_one_pixel(spacing):
    """Rounded products and 32-bit spacings make distances slightly larger than the spacing."""
    for side in range(1, 41):
        masks = box(slice(0, side), slice(0, side)), box(slice(0, side), slice(1, side + 1))
        metrics = class_metrics(*masks, (spacing, spacing), spacing, "penalize")
        assert metrics["NSD"] == 1
        assert metrics["HD95"] == pytest.approx(spacing)


@pytest.mark.parametrize(("stored", "typed"), [(float(np.float32(0.3)), 0.3), (0.3, float(np.float32(0.3)))])
def test_a_typed_tolerance_is_the_stored_spacing(stored, typed):
    assert class_metrics(*SHIFTED, (stored, stored), typed, "penalize")["NSD"] == 1


def test_more_than_the_tolerance_is_more():
    assert class_metrics(*SHIFTED, (0.7, 0.7), 0.699, "penalize")["NSD"] < 1
    assert class_metrics(*SHIFTED, (1, 1), 0, "penalize")["NSD"] < 1
    assert class_metrics(SHIFTED[0], SHIFTED[0], (1, 1), 0, "penalize")["NSD"] == 1
