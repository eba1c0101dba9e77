"""Each architecture under our trainers and stock nnU-Net's: initialised, trained, validated, and loaded to predict."""

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny_networks import DIMENSIONS

SIZE = {2: (64, 96), 3: (16, 32, 48)}


def batch_for(trainer):
    size = trainer.configuration_manager.patch_size
    downsample = DownsampleSegForDSTransform(trainer._get_deep_supervision_scales())
    targets = [downsample(segmentation=labels)["segmentation"] for labels in torch.randint(2, (2, 1, *size))]
    return {"data": torch.randn(2, 3, *size), "target": [torch.stack(scale) for scale in zip(*targets, strict=True)]}


def train_and_predict(trainer):
    trainer.initialize()
    trainer.network.train()
    batch = batch_for(trainer)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    assert torch.isfinite(torch.as_tensor(trainer.train_step(batch)["loss"]))
    after = trainer.network.state_dict()
    assert any(not torch.equal(after[key], before[key]) for key in after if ".seg_layers.0." in key)
    with torch.no_grad():
        assert torch.isfinite(torch.as_tensor(trainer.validation_step(batch)["loss"]))
        predicting = trainer.build_network_architecture(
            trainer.plans_manager, trainer.configuration_manager, 3, 2, enable_deep_supervision=False
        )
        predicting.load_state_dict(trainer.network.state_dict())
        assert predicting.eval()(batch["data"]).shape == (2, 2, *batch["data"].shape[2:])


@pytest.mark.parametrize(("name", "dimensions"), DIMENSIONS)
def test_guided(planned_trainer, name, dimensions):
    guide = {"gate_at": "input"} if name == "nnwnet" else {}
    train_and_predict(
        planned_trainer("nnUNetTrainerGuiDINO", guide=guide, patch_size=SIZE[dimensions], architecture=name)
    )


@pytest.mark.parametrize(("name", "dimensions"), DIMENSIONS)
def test_plain(planned_trainer, name, dimensions):
    ours = planned_trainer("nnUNetTrainerGuiDINO", patch_size=SIZE[dimensions], architecture=name)
    plans = {**ours.plans_manager.plans, "continue_training": False}
    stock = nnUNetTrainer(plans, ours.configuration_name, 0, ours.dataset_json, torch.device("cpu"))
    train_and_predict(stock)
