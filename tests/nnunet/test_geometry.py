"""Where images lie."""

import numpy as np
import pytest

from nnunetv2_guidino.nnunet.geometry import affine_of, place_difference, same_spacing

SHAPE = (6, 20, 30)
PLACE = np.array([[0.7, 0, 0, -12.5], [0, 0.7, 0, 40.0], [0, 0, 3.0, 7.0], [0, 0, 0, 1]])


def moved(x: float) -> np.ndarray:
    place = PLACE.copy()
    place[0, 3] += x
    return place


def test_a_tenth_of_a_pixel_is_borne():
    assert place_difference(PLACE, PLACE, SHAPE) is None
    assert place_difference(moved(0.069), PLACE, SHAPE) is None
    assert "has origin" in str(place_difference(moved(0.071), PLACE, SHAPE))


def test_small_differences_add_up_over_an_image():
    place = PLACE.copy()
    place[0, 0] *= 1.0009
    assert place_difference(place, PLACE, SHAPE) is None
    assert "away" in str(place_difference(place, PLACE, (6, 20, 3000)))


def test_values_that_are_no_numbers():
    assert "no numbers" in str(place_difference(moved(np.nan), PLACE, SHAPE))
    assert not same_spacing((np.nan, 1), (np.nan, 1))


def test_spacings_are_compared_by_their_ratio():
    assert same_spacing((0.7, 3.0), (0.70001, 3.0))
    assert not same_spacing((1e-9, 1), (5e-9, 1))
    assert not same_spacing((1, 1), (1, 1, 1))


def test_affine_of_a_reader():
    assert affine_of({"spacing": (999, 1, 1)}) is None
    itk = {"spacing": (2.0, 3.0), "origin": (5.0, 6.0), "direction": (0.0, -1.0, 1.0, 0.0)}
    expected = [[0, -3, 0, 5], [2, 0, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert affine_of({"sitk_stuff": itk}).tolist() == expected
    assert affine_of({"nibabel_stuff": {"original_affine": PLACE}}) == pytest.approx(PLACE)
    turned = {"original_affine": PLACE, "reoriented_affine": moved(1)}
    assert affine_of({"nibabel_stuff": turned}) == pytest.approx(moved(1))
