import numpy as np
import pytest
import torch
from guided_batches import LABELS, REGIONS, REGIONS_WITH_IGNORE, WITH_IGNORE, SumOfOutputs, guided_batch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

from nnunetv2_guidino.guide.late_fusion import WEIGHTS, can_fuse, fused
from nnunetv2_guidino.losses.guided import GuidedLoss
from nnunetv2_guidino.losses.late_fusion import best_weight, fusion_counts
from nnunetv2_guidino.losses.target import read_target
from nnunetv2_guidino.losses.terms import Step

MANAGERS = {
    "labels": LABELS, "ignore": WITH_IGNORE, "regions": REGIONS, "regions, ignore": REGIONS_WITH_IGNORE
}  # fmt: skip


@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize("size", [(16, 24), (6, 16, 24)], ids=["2d", "3d"])
@pytest.mark.parametrize("manager", MANAGERS.values(), ids=MANAGERS)
def test_each_weight_is_counted_as_nnunet_would(manager, size, guides):
    outputs, targets = guided_batch(manager, guides, *size)
    annotation = read_target(targets[0], manager)
    counts = fusion_counts(Step([outputs[0]], outputs[2], annotation, manager))
    classes = annotation.masks.shape[1]
    assert counts.shape == (len(WEIGHTS), 3, classes)
    for weight, found in zip(WEIGHTS, counts, strict=True):
        logits = fused(outputs[0], outputs[2], weight, classes)
        if manager.has_regions:
            one_hot = (logits.sigmoid() > 0.5).long()
        else:
            every = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
            one_hot = every[:, manager.foreground_labels]
        axes = [0, *range(2, logits.ndim)]
        tp, fp, fn, _ = get_tp_fp_fn_tn(one_hot, annotation.masks.long(), axes=axes, mask=annotation.valid.long())
        assert found.tolist() == [tp.tolist(), fp.tolist(), fn.tolist()]
    assert (len({str(found) for found in counts.tolist()}) > 1) == can_fuse(outputs[0].shape[1], guides, classes)


@pytest.mark.parametrize(
    ("counts", "best"),
    [
        # (tp, fp, fn) of each weight, one class
        ([[[5], [5], [5]], [[9], [1], [1]], [[6], [4], [4]]], 1),
        ([[[5], [5], [5]], [[5], [5], [5]], [[5], [5], [5]]], 0),  # nothing gained: none is added
        ([[[0], [0], [0]], [[0], [3], [0]], [[0], [0], [0]]], None),  # no foreground
        ([[[0], [0], [9]], [[0], [0], [9]], [[1], [0], [8]]], 2),
        # two classes: the mean decides, and one that is nowhere does not count
        ([[[9, 0], [0, 0], [0, 0]], [[5, 0], [5, 0], [5, 0]], [[9, 0], [1, 0], [0, 0]]], 0),
        ([[[9, 1], [1, 9], [1, 9]], [[8, 8], [2, 2], [2, 2]], [[1, 9], [9, 1], [9, 1]]], 1),
        ([[[8, 0], [2, 0], [2, 0]], [[8, 0], [2, 0], [2, 0]], [[9, 0], [1, 1], [1, 0]]], 0),  # found where it is not
    ],
)
def test_the_best_weight_has_the_highest_mean_dice(counts, best):
    assert best_weight(np.array(counts)) == best


def test_it_is_counted_only_where_nothing_is_trained():
    outputs, targets = guided_batch(WITH_IGNORE, 1, 16, 24)
    for asked in (False, True):
        loss = GuidedLoss(SumOfOutputs(), WITH_IGNORE, {}, late_fusion=asked)
        loss(outputs, targets)
        assert "fusion_counts" not in loss.last_terms()
        with torch.no_grad():
            loss(outputs, targets)
        assert ("fusion_counts" in loss.last_terms()) == asked
