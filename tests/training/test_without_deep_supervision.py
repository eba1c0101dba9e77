"""A user's trainer without nnU-Net's deep supervision: the network returns one segmentation and the guides."""

from pathlib import Path

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)

from nnunetv2_guidino.training import naming
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO


class nnUNetTrainerGuiDINOOneOutput(nnUNetTrainerNoDeepSupervision, nnUNetTrainerGuiDINO):  # noqa: N801
    pass


class nnUNetTrainerGuiDINOLoRAOneOutput(  # noqa: N801
    nnUNetTrainerNoDeepSupervision, naming.trainer_class("nnUNetTrainerGuiDINOLoRA")
):
    pass


LABELS = {"background": 0, "a": 1, "b": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


@pytest.fixture(autouse=True)
def _nnunet_without_data(monkeypatch):
    """Reduce the start of a training to the calls on the network."""
    monkeypatch.setattr(
        nnUNetTrainer, "on_train_start", lambda self: self.set_deep_supervision_enabled(self.enable_deep_supervision)
    )


@pytest.fixture(params=[nnUNetTrainerGuiDINOOneOutput, nnUNetTrainerGuiDINOLoRAOneOutput], ids=["frozen", "LoRA"])
def trainer(request, planned_trainer, monkeypatch):
    monkeypatch.setattr(naming, "trainer_class", lambda name: request.param)

    def make(**settings):
        trainer = planned_trainer("", **settings)
        trainer.initialize()
        return trainer

    return make


def batch(labels: int, channels: int = 1) -> dict[str, torch.Tensor]:
    """Return a batch of nnU-Net's augmentation without deep supervision, whose target is a tensor and no list."""
    torch.manual_seed(0)
    return {"data": torch.randn(2, 3, 32, 48), "target": torch.randint(0, labels, (2, channels, 32, 48)).float()}


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({}, batch(2)),
        ({"labels": LABELS}, batch(4)),
        ({"labels": REGIONS, "regions_class_order": [1, 2], "guide": {"guides": "classes"}}, batch(2, channels=2)),
    ],
    ids=["labels", "ignore", "regions, a guide for each"],
)
def test_it_trains_and_validates(settings, made, trainer):
    trainer = trainer(**settings)
    parameters = trainer.network.named_parameters()
    trained = {name: p.clone() for name, p in parameters if "lora_B" in name or name.startswith("tokenbook.proto")}
    assert (len(trained) > 1) == isinstance(trainer, nnUNetTrainerGuiDINOLoRAOneOutput)
    trainer.on_train_start()
    trainer.network.train()
    steps = [trainer.train_step(dict(made)) for _ in range(2)]
    assert all(np.isfinite(step["loss"]) and np.isfinite(step["guide_loss"]) for step in steps)
    for name, before in trained.items():
        assert not torch.equal(trainer.network.get_parameter(name), before), name
    trainer.network.eval()
    with torch.no_grad():
        scored = trainer.validation_step(dict(made))
        segmentation, guides = trainer.network(made["data"])
    assert len(scored["tp_hard"]) == len(trainer.label_manager.foreground_labels)
    assert segmentation.shape[2:] == made["data"].shape[2:]
    assert guides.shape[2:] != made["data"].shape[2:]
    assert not trainer.enable_deep_supervision


def test_nnunet_s_own_loss_sees_the_segmentation_as_it_would_without_us(trainer):
    trainer = trainer(guide={"lambda_guide": 0.0, "lambda_guide_dice": 0.0, "lambda_boundary": 0.0})
    made = batch(2)
    with torch.no_grad():
        segmentation, _ = trainer.network(made["data"])
        expected = nnUNetTrainer._build_loss(trainer)(segmentation, made["target"])
        loss = trainer.loss(trainer.network(made["data"]), [made["target"]])
    torch.testing.assert_close(loss, expected)


def test_the_validation_at_the_end_and_a_prediction_see_one_tensor(trainer, monkeypatch):
    trainer = trainer()
    image = torch.randn(1, 3, 32, 48)
    seen = []

    def validate(self, *_):
        self.set_deep_supervision_enabled(False)
        seen.append(self.network.eval()(image))
        self.set_deep_supervision_enabled(True)

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", validate)
    trainer.perform_actual_validation()
    assert seen[0].shape == (1, 2, 32, 48)
    assert len(trainer.network(image)) == 2  # trains on as before
    planned.save_model_folder(trainer)
    network = nnUNetTrainerGuiDINO.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 3, 2, enable_deep_supervision=False
    )
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    network.load_state_dict(torch.load(file, weights_only=False)["network_weights"])
    assert not any("lora_" in name for name, _ in network.named_parameters())
    torch.testing.assert_close(network.eval()(image), seen[0])
