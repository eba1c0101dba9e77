"""Late fusion is fitted to training batches, and neither network nor guide learns from it."""

import pytest
import torch
from two_processes import batches

REGION = {"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": [1]}


class Knowing(torch.nn.Module):
    """A substitute for the TokenBook whose only guide is given."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.told = logits
        self.weights = torch.ones(1, 8) / 8
        self.guides = 1

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.told


@pytest.fixture(params=[{}, REGION], ids=["labels", "region"])
def trained(request, planned_trainer):
    """Train some steps on one batch with a guide that is right, or wrong everywhere."""

    def run(right: bool, steps: int = 6, **guide):
        trainer = planned_trainer("nnUNetTrainerGuiDINO_seed0", guide=guide, batch_size=4, **request.param)
        trainer.initialize()
        batch = batches(trainer)[-1]
        batch["target"] = [target[:, :1] for target in batch["target"]]
        foreground = (batch["target"][0] > 0).any(1, keepdim=True).float()
        trainer.network.tokenbook = Knowing((2 * foreground - 1) * (8 if right else -8))
        trainer.network.train()
        trainer.on_train_epoch_end([trainer.train_step(batch) for _ in range(steps)])
        return trainer

    return run


def test_the_weight_of_a_right_guide_grows_and_that_of_a_wrong_one_falls(trained):
    assert (trained(right=True).network.late_fusion.weight > 0).all()
    assert (trained(right=False).network.late_fusion.weight < 0).all()


def test_the_network_is_trained_as_without_late_fusion(planned_trainer):
    states = []
    for late_fusion in (True, False):
        trainer = planned_trainer("nnUNetTrainerGuiDINO_seed0", guide={"late_fusion": late_fusion})
        trainer.initialize()
        trainer.network.train()
        losses = [trainer.train_step(batch)["loss"].item() for batch in batches(trainer)[:2]]
        states.append({**trainer.network.state_dict(), "losses": torch.tensor(losses)})
    with_fusion, without = states
    for name, weight in without.items():
        if name != "_extra_state":
            torch.testing.assert_close(with_fusion[name], weight, msg=name)


def test_validation_changes_nothing(trained):
    trainer = trained(right=True)
    before = {name: weight.clone() for name, weight in trainer.network.state_dict().items()}
    batch = batches(trainer)[0]
    batch["target"] = [target[:, :1] for target in batch["target"]]
    trainer.network.eval()
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(batch)])
    after = trainer.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_pseudo_dice_is_that_of_the_prediction(trained):
    """nnU-Net chooses its best checkpoint by the pseudo Dice."""
    trainer = trained(right=True)
    network = trainer.network.eval()
    with torch.no_grad():
        network.late_fusion.weight.fill_(2)
    batch = batches(trainer)[-1]
    batch["target"] = [target[:, :1] for target in batch["target"]]
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(batch)])
        trainer.set_deep_supervision_enabled(False)
        logits = network(batch["data"])
    predicted = logits > 0 if trainer.label_manager.has_regions else logits.argmax(1, keepdim=True) == 1
    truth = batch["target"][0] == 1
    dice = 2 * (predicted[:, :1] & truth).sum() / (predicted[:, :1].sum() + truth.sum())
    logged = trainer.logger.get_value("dice_per_class_or_region", step=-1)[0]
    assert logged == pytest.approx(dice.item(), rel=1e-5)


def test_without_late_fusion_nothing_is_fitted(trained):
    assert trained(right=True, steps=1, late_fusion=False).network.late_fusion is None
