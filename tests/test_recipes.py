"""What docs/contributing.md says of adding things, followed to the letter: one file, one line, and it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned import save_model_folder

from nnunetv2_guidino import lists
from nnunetv2_guidino.lists import Entry, LossTerm
from nnunetv2_guidino.nnunet.plans import guide_settings
from nnunetv2_guidino.training.naming import trainer_class

GATING = '''
import torch
from torch import Tensor, nn
from nnunetv2_guidino.model.guide.gates import Gate

class LearnedStrength(Gate):
    """feature · (1 + strength · guide), with a strength for each channel that starts at one half."""

    needs_channels = True

    def __init__(self, channels: int):
        super().__init__(channels)
        self.strength = nn.Parameter(torch.full((channels,), 0.5))

    def factor(self, guide: Tensor) -> Tensor:
        return 1 + guide * self.strength.reshape(-1, *[1] * (guide.ndim - 2))
'''

GATE = '''
from nnunetv2_guidino.model.networks.contract import decode, encode
from nnunetv2_guidino.model.guide.positions import Position

class Finest(Position):
    """Gates the finest feature of the encoder alone."""

    needs_features = True

    @classmethod
    def gated_channels(cls, description, image_channels):
        return description.features[:1]

    def forward(self, network, patch, guide):
        finest, *others = encode(network, patch)
        return decode(network, [self.gates[0](finest, guide), *others], patch.shape[2:])
'''

TERM = '''
from torch import Tensor
from nnunetv2_guidino.model.guide.autocast import without_autocast
from nnunetv2_guidino.model.losses.terms import Step, mean_over_gpus

def sparse_term(step: Step) -> Tensor:
    """How much of the image the guides mark."""
    with without_autocast(step.guide_logits):
        guides = step.guide_logits.float().sigmoid()
        return mean_over_gpus(guides.sum(), guides.new_tensor(guides.numel()))
'''

ARCHITECTURE = (Path(__file__).parent / "support" / "tiny_architecture.py").read_text()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module; the name that it has."""

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return name

    return write


def one_step(trainer: Any, patch_size: tuple[int, ...], targets: int = 2) -> dict[str, Any]:
    """A step of training and one of validation, and what is logged of them."""
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    labels = torch.zeros(2, 1, *patch_size)
    labels[..., 8:24, 12:30] = 1
    scales = trainer._get_deep_supervision_scales()
    assert len(scales) == targets
    steps = [tuple(round(1 / scale) for scale in of_axes) for of_axes in scales]
    target = [labels[(slice(None), slice(None), *(slice(None, None, by) for by in axes))] for axes in steps]
    data = torch.randn(2, 3, *patch_size, generator=torch.Generator().manual_seed(0))
    trainer.on_train_epoch_end([trainer.train_step({"data": data, "target": target})])
    trainer.network.eval()
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step({"data": data, "target": target})])
    logged = {name: values[-1] for name, values in trainer.logger.local_logger.my_fantastic_logging.items() if values}
    assert all(np.isfinite(logged[name]) for name in ("train_losses", "val_losses", "guide_dice"))
    return logged


def predicts_as_it_was_trained(trainer: Any, patch_size: tuple[int, ...]) -> None:
    """The network that nnU-Net builds to predict takes all weights, and gives a plain tensor that equals."""
    weights = torch.load(save_model_folder(trainer), weights_only=False)["network_weights"]
    network = trainer_class("nnUNetTrainerGuiDINO").build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 3, 2, enable_deep_supervision=False
    )
    network.load_state_dict(weights)
    patch = torch.randn(1, 3, *patch_size)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.returns_guides = False
    torch.testing.assert_close(network.eval()(patch), trainer.network.eval()(patch))


@pytest.mark.parametrize("gate_at", ["skips", "bottleneck", "input"])
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
def test_how_the_guide_acts(patch_size, gate_at, module, planned_trainer, monkeypatch):
    line = Entry(f"{module('learned_strength', GATING)}:LearnedStrength", "a strength for each channel")
    monkeypatch.setitem(lists.GATES, "learned", line)
    trainer = planned_trainer(
        "nnUNetTrainerGuiDINO", guide={"gate": "learned", "gate_at": gate_at}, patch_size=patch_size
    )
    one_step(trainer, patch_size)
    strengths = [p for name, p in trainer.network.named_parameters() if name.endswith(".strength")]
    assert strengths
    assert all((p != 0.5).any() for p in strengths)  # they were trained
    predicts_as_it_was_trained(trainer, patch_size)


def test_where_the_guide_acts(module, planned_trainer, monkeypatch):
    line = Entry(f"{module('finest', GATE)}:Finest", "the finest skip alone")
    monkeypatch.setitem(lists.GATE_POSITIONS, "finest", line)
    trainer = planned_trainer("nnUNetTrainerGuiDINO", guide={"gate_at": "finest"})
    one_step(trainer, (32, 48))
    predicts_as_it_was_trained(trainer, (32, 48))


def test_a_term_of_the_loss(module, planned_trainer, monkeypatch):
    line = LossTerm(f"{module('sparsity', TERM)}:sparse_term", "how much the guide marks", weight=0.0, label="sparsity")
    monkeypatch.setitem(lists.LOSS_TERMS, "sparse", line)
    assert guide_settings({}, {})["lambda_sparse"] == 0  # and off, where plans do not name it
    trainer = planned_trainer("nnUNetTrainerGuiDINO", guide={"lambda_sparse": 0.5})
    logged = one_step(trainer, (32, 48))
    assert 0 < logged["train_sparse_loss"] < 1
    terms = {name: logged[f"val_{name}_loss"] for name in ("seg", "guide", "guide_dice", "boundary", "sparse")}
    expected = terms["seg"] + terms["guide"] + terms["guide_dice"] + 0.1 * terms["boundary"] + 0.5 * terms["sparse"]
    assert logged["val_losses"] == pytest.approx(expected, rel=1e-5)
    assert trainer.plans_manager.plans["guidino"]["lambda_sparse"] == 0.5
    predicts_as_it_was_trained(trainer, (32, 48))


@pytest.mark.parametrize("gate_at", ["skips", "bottleneck", "input"])
def test_an_architecture(gate_at, module, planned_trainer, monkeypatch):
    line = Entry(f"{module('an_architecture', ARCHITECTURE)}:TinyArchitecture", "one convolution down, one up")
    monkeypatch.setitem(lists.ARCHITECTURES, "tiny", line)
    trainer = planned_trainer("nnUNetTrainerGuiDINO", guide={"gate_at": gate_at}, architecture="tiny")
    logged = one_step(trainer, (32, 48))
    # Its one output has all the weight.
    terms = {name: logged[f"val_{name}_loss"] for name in ("seg", "guide", "guide_dice", "boundary")}
    expected = terms["seg"] + terms["guide"] + terms["guide_dice"] + 0.1 * terms["boundary"]
    assert logged["val_losses"] == pytest.approx(expected, rel=1e-5)
    assert trainer.loss.segmentation_loss.weight_factors == (1.0, 0.0)
    predicts_as_it_was_trained(trainer, (32, 48))


def test_an_architecture_is_trained_by_the_stock_trainer_too(module, planned_trainer, monkeypatch):
    """As the baseline of its guided self."""
    line = Entry(f"{module('an_architecture', ARCHITECTURE)}:TinyArchitecture", "one convolution down, one up")
    monkeypatch.setitem(lists.ARCHITECTURES, "tiny", line)
    trainer = planned_trainer("nnUNetTrainerGuiDINOBaseline", architecture="tiny")
    trainer.initialize()
    labels = torch.zeros(2, 1, 32, 48)
    batch = {"data": torch.randn(2, 3, 32, 48), "target": [labels, labels]}
    before = [p.clone() for p in trainer.network.parameters()]
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert any(not torch.equal(p, q) for p, q in zip(before, trainer.network.parameters(), strict=True))
