import numpy as np
import pytest
import torch
from guided_batches import LABELS, REGIONS, REGIONS_WITH_IGNORE, WITH_GAP, WITH_IGNORE, as_target

from nnunetv2_guidino.model.losses.target import read_target


@pytest.mark.parametrize(
    ("manager", "labels", "masks", "valid"),
    [
        (LABELS, [0, 1, 2, 2], [[0, 1, 0, 0], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (WITH_IGNORE, [0, 1, 2, 3], [[0, 1, 0, 0], [0, 0, 1, 0]], [1, 1, 1, 0]),
        (WITH_GAP, [0, 1, 3, 3], [[0, 1, 0, 0], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (REGIONS, [0, 1, 2, 2], [[0, 1, 1, 1], [0, 0, 1, 1]], [1, 1, 1, 1]),
        (REGIONS_WITH_IGNORE, [0, 1, 2, 3], [[0, 1, 1, 0], [0, 0, 1, 0]], [1, 1, 1, 0]),
    ],
    ids=["labels", "ignore", "gap", "regions", "regions, ignore"],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_target_says_the_same_in_each_form(manager, labels, masks, valid, dtype):
    target = as_target(torch.tensor(labels)[None, None], manager)
    annotation = read_target(target.to(dtype) if manager.has_regions else target, manager)
    assert annotation.masks[0, :, 0].int().tolist() == masks
    assert annotation.valid[0, 0, 0].int().tolist() == valid
    assert annotation.foreground[0, 0, 0].int().tolist() == np.max(masks, axis=0).tolist()
