"""Networks on random images: every form of target, images and volumes, and nothing left behind."""

import json

import planned
import pytest
import torch

from nnunetv2_guidino.lab.cost.random_training import BareEncoder, Training, build_trainer, dummy_batch
from nnunetv2_guidino.lab.cost.timing import GUIDED, LORA, TRAINERS
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.losses.boundary import boundary_band
from nnunetv2_guidino.model.losses.target import read_target
from nnunetv2_guidino.tools.doctor.rehearsal import Prediction

REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}


def trainer_of(folder, network, patch_size=(32, 48), dataset=None, encoder=None):
    guide = {"min_input_size": 64, "prototypes": 8, "encoder": encoder or "facebook/dinov2-small"}
    plans = planned.plans(guide, patch_size=patch_size).plans
    (configuration,) = plans["configurations"]
    (folder / "plans.json").write_text(json.dumps(plans))
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(described | (dataset or {})))
    return build_trainer(Training(folder / "plans.json", configuration, TRAINERS[network]))


@pytest.mark.parametrize("dataset", [{}, REGIONS], ids=["labels", "regions with ignore label"])
@pytest.mark.parametrize("patch_size", [(32, 48), (4, 32, 48)], ids=["images", "volumes"])
def test_guided_networks_train_and_predict(planned_dataset, tiny_encoder, dataset, patch_size, monkeypatch):
    trainer = trainer_of(planned_dataset, GUIDED, patch_size, dataset, str(tiny_encoder("dinov3")))
    batch = dummy_batch(trainer)
    before = trainer.network.tokenbook.prototypes.detach().clone()
    assert torch.isfinite(torch.as_tensor(trainer.train_step(batch)["loss"]))
    assert not torch.equal(trainer.network.tokenbook.prototypes, before)
    prediction = Prediction(trainer)
    seen = []
    monkeypatch.setattr(type(trainer.network), "forward", _counted(type(trainer.network).forward, seen))
    for action, passes in ((prediction.tile, 1), (prediction.image, prediction.mirrored), (prediction.folds, 5)):
        seen.clear()
        action()
        assert len(seen) == passes
    bare, modes = BareEncoder(trainer), []
    bare.encode.register_forward_hook(lambda module, args, output: modes.append(module.training))
    for training in (True, False):  # a CPU trains in bfloat16, and predicts in float32
        bare(batch["data"], training)
    assert modes == [True, False]
    assert bare.encode.training


def _counted(forward, seen):
    def call(self, patch):
        seen.append(patch.shape)
        return forward(self, patch)

    return call


@pytest.mark.parametrize(("network", "shared"), [(GUIDED, True), (LORA, False)])
def test_folds_have_a_frozen_encoder_in_common_and_nothing_else(planned_dataset, tiny_encoder, network, shared):
    trainer = trainer_of(planned_dataset, network, encoder=str(tiny_encoder("dinov3")))
    first, second, *_ = Prediction(trainer).predictor.list_of_parameters
    names = [name for name, tensor in first.items() if name.startswith("token_encoder.") and tensor.any()]
    assert all(torch.equal(first[name], second[name]) for name in names) == shared
    assert not any(torch.equal(first[f"tokenbook.{name}"], second[f"tokenbook.{name}"]) for name in ("prototypes",))
    assert all(first[name].data_ptr() != second[name].data_ptr() for name in names)


@pytest.mark.parametrize(("network", "passes"), [(GUIDED, 1), (LORA, 5)])
def test_an_ensemble_encodes_a_tile_as_often_as_its_encoders_differ(
    planned_dataset, tiny_encoder, network, passes, monkeypatch
):
    prediction = Prediction(trainer_of(planned_dataset, network, encoder=str(tiny_encoder("dinov3"))))
    prediction.folds()  # the first image: what is equal is not known yet
    encoded, encode = [], TokenEncoder._encode
    monkeypatch.setattr(TokenEncoder, "_encode", lambda *args: encoded.append(1) or encode(*args))
    prediction.folds()
    assert len(encoded) == passes


def test_an_encoder_that_is_not_here_is_built_by_its_architecture(planned_dataset, monkeypatch):
    monkeypatch.setattr("nnunetv2_guidino.lab.cost.random_training.is_cached", lambda encoder: False)
    trainer = trainer_of(planned_dataset, GUIDED)
    assert trainer.network.token_encoder.channels == 384


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "b": 2}, {"background": 0, "both": [1, 2], "b": 2}])
def test_edges_of_dummy_labels_are_as_thin_as_those_of_masks(labels, planned_trainer):
    regions = {"regions_class_order": [1, 2]} if "both" in labels else {}
    trainer = planned_trainer("nnUNetTrainerGuiDINO", labels=labels, **regions)
    trainer.initialize()
    masks, valid = read_target(dummy_batch(trainer)["target"][0], trainer.label_manager)
    inside = masks.flatten(2).float().mean((0, 2))
    assert ((inside > 0.2) & (inside < 0.8)).all()
    assert boundary_band(masks, valid).float().mean() < 0.1
