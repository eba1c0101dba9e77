"""The weight of late fusion is chosen by an epoch's validation, and lies in the checkpoint."""

import numpy as np
import pytest
import torch
from two_processes import batches

from nnunetv2_guidino.guide.late_fusion import WEIGHTS


class Knowing(torch.nn.Module):
    """In place of a TokenBook: its one guide is what it is told."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.told = logits
        self.weights = torch.ones(1, 8) / 8

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.told


REGION = {"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": [1]}


@pytest.fixture(params=[{}, REGION], ids=["labels", "region"])
def validated(request, planned_trainer):
    """Runs one epoch's validation with a guide that is right, or wrong everywhere."""

    def run(right: bool, **guide):
        trainer = planned_trainer("nnUNetTrainerGuiDINO_seed0", guide=guide, batch_size=4, **request.param)
        trainer.initialize()
        batch = batches(trainer)[-1]
        batch["target"] = [target[:, :1] for target in batch["target"]]
        foreground = (batch["target"][0] > 0).any(1, keepdim=True).float()
        trainer.network.tokenbook = Knowing((2 * foreground - 1) * (8 if right else -8))
        trainer.network.eval()
        with torch.no_grad():
            trainer.on_validation_epoch_end([trainer.validation_step(batch)])
        return trainer, batch

    return run


def test_a_guide_that_is_right_is_added_and_one_that_is_wrong_is_not(validated):
    """The pseudo Dice, by which nnU-Net keeps its best checkpoint, is that of the prediction."""
    for right in (True, False):
        trainer, batch = validated(right)
        assert trainer.network.late_fusion.weight == (WEIGHTS[-1] if right else 0)
        trainer.set_deep_supervision_enabled(False)
        with torch.no_grad():
            logits = trainer.network(batch["data"])
        labels = trainer.label_manager
        predicted = logits > 0 if labels.has_regions else logits.argmax(1, keepdim=True) == 1
        truth = batch["target"][0][:, :1] == 1
        dice = 2 * (predicted[:, :1] & truth).sum() / (predicted[:, :1].sum() + truth.sum())
        logged = trainer.logger.get_value("dice_per_class_or_region", step=-1)
        np.testing.assert_allclose(logged[0], dice, rtol=1e-5)


def test_without_late_fusion_nothing_is_added(validated):
    trainer, _ = validated(right=True, late_fusion=False)
    assert trainer.network.late_fusion.weight == 0


def test_fold_all_validates_on_what_it_is_trained_on(planned_trainer):
    for fold, counted in ((0, True), ("all", False)):
        trainer = planned_trainer("nnUNetTrainerGuiDINO", fold=fold)
        trainer.initialize()
        assert trainer.loss.late_fusion == counted


def test_an_epoch_without_foreground_leaves_the_weight_as_it_is(validated):
    trainer, batch = validated(right=True)
    batch["target"] = [torch.zeros_like(target) for target in batch["target"]]
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(batch)])
    assert trainer.network.late_fusion.weight == WEIGHTS[-1]
