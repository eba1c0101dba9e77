"""Histograms of a guide against the same numbers counted pixel by pixel."""

import numpy as np
import pytest

from nnunetv2_guidino.tools.guide.guide_scores import BINS, HALF, THRESHOLDS, guide_scores, histogram


@pytest.fixture
def case():
    """A guide with values on thresholds, a reference, and what is not to be ignored."""
    rng = np.random.default_rng(0)
    guide = rng.random((3, 20, 30)).astype(np.float32)
    guide[0, 0, :20] = np.arange(20, dtype=np.float32) / 20
    return guide, rng.random(guide.shape) < guide**2, rng.random(guide.shape) < 0.9


def test_dice_at_every_threshold(case):
    guide, truth, valid = case
    values, of_truth = guide[valid].astype(float), truth[valid]
    for threshold, found in zip(THRESHOLDS, histogram(*case).dice(), strict=True):
        mask = values > threshold
        assert found == 2 * (mask & of_truth).sum() / (mask.sum() + of_truth.sum())


def test_at_one_half_it_is_the_dice_of_guidino_guide(case):
    guide, truth, valid = case
    assert histogram(*case).dice()[HALF] == guide_scores(guide[valid], truth[valid])["dice"]


def test_calibration_error(case):
    guide, truth, valid = case
    values, of_truth = guide[valid], truth[valid]
    expected = 0
    for low in np.arange(BINS) / BINS:
        inside = (values > low) & (values <= low + 1 / BINS) | (low == 0) & (values == 0)
        if inside.any():
            expected += inside.mean() * abs(of_truth[inside].mean() - values[inside].mean())
    assert histogram(*case).calibration_error() == pytest.approx(expected, abs=1e-3)


def test_a_guide_that_says_the_share_of_foreground_is_calibrated():
    guide = np.repeat([0.22, 0.72], 50)[None]
    truth = np.r_[np.arange(50) < 11, np.arange(50) < 36][None]
    assert histogram(guide, truth, truth >= 0).calibration_error() == pytest.approx(0)
    assert histogram(guide, ~truth, truth >= 0).calibration_error() == pytest.approx(0.5 * (0.56 + 0.44))


def test_of_several_cases_and_of_none(case):
    one = histogram(*case)
    both = one + one
    assert both.pixels.sum() == 2 * one.pixels.sum()
    assert both.calibration_error() == pytest.approx(one.calibration_error())
    guide, truth, valid = case
    nothing = histogram(guide, truth, valid & False)
    assert np.isnan(nothing.calibration_error())
    assert np.isnan(nothing.dice()).all()
    assert np.isnan(histogram(guide * 0, truth & False, valid).dice()).all()
