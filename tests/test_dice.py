"""Training, probe and inspection count a guide's Dice by one formula."""

import numpy as np
import pytest
import torch

from nnunetv2_guidino.model.losses.dice import dice
from nnunetv2_guidino.model.losses.guide_loss import guide_counts
from nnunetv2_guidino.model.losses.target import Annotation
from nnunetv2_guidino.tools.guide.guide_scores import guide_scores


def test_the_formula():
    assert dice(3, 1, 2) == pytest.approx(6 / 9)
    assert dice(0, 1, 0) == 0
    assert np.isnan(dice(0, 0, 0))


def test_counts_of_training_and_scores_of_inspection_agree():
    generator = torch.Generator().manual_seed(0)
    guide, truth = torch.rand(1, 1, 9, 9, generator=generator), torch.rand(1, 1, 9, 9, generator=generator) > 0.6
    counts = guide_counts(guide, Annotation(truth, torch.ones_like(truth)))
    expected = dice(*(int(counts[f"guide_{name}"]) for name in ("tp", "fp", "fn")))
    assert guide_scores(guide.numpy().ravel(), truth.numpy().ravel())["dice"] == pytest.approx(expected)
