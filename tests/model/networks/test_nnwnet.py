"""What is nnWNet's own: levels and widths, as planned or as the paper has them."""

import planned
import pytest
import torch

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.building_blocks import resized
from nnunetv2_guidino.model.networks.nnwnet import NNWNet


def arch_kwargs(patch_size, strides, as_planned=False):
    configuration = next(iter(planned.plans({}, patch_size=patch_size).plans["configurations"].values()))
    configuration["architecture"]["arch_kwargs"] |= {
        "strides": strides,
        "features_per_stage": [32 * 2**level for level in range(len(strides))],
    }
    return NNWNet.planned(configuration, **(NNWNet.planned_widths(configuration) if as_planned else {}))


def test_levels_are_the_paper_s_with_the_planned_strides():
    strides = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    kwargs = arch_kwargs((20, 320, 256), strides)
    assert kwargs["strides"] == strides[:5]
    assert kwargs["widths"] == [32, 64, 128, 256, 320]
    assert kwargs["global_widths"] == [16, 32, 64, 128, 160]


def test_levels_that_are_not_planned_halve_the_sides_that_are_long_enough():
    kwargs = arch_kwargs((8, 64), [[1, 1], [2, 2]])
    assert kwargs["strides"] == [[1, 1], [2, 2], [1, 2], [1, 2], [1, 2]]
    assert kwargs["widths"] == [16, 32, 64, 128, 256]


def test_planned_levels_and_widths():
    strides = [[1, 1], [2, 2], [2, 2]]
    kwargs = arch_kwargs((64, 64), strides, as_planned=True)
    assert (kwargs["strides"], kwargs["widths"]) == (strides, [32, 64, 128])


def test_levels_and_widths_must_match():
    with pytest.raises(GuidinoError, match="3 strides, 5 widths and 5 global_widths"):
        NNWNet(1, 2, True, [[1, 1], [2, 2], [2, 2]])


def test_resizing_to_the_same_size_costs_nothing():
    tensor = torch.randn(1, 2, 3, 4)
    assert resized(tensor, (3, 4)) is tensor
