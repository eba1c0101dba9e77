"""Two processes on the CPU stand for two GPUs: they train the same weights as one process on the whole batch."""

from typing import Any

import numpy as np
import pytest
import torch
from guided_batches import WITH_IGNORE, guided_batch
from torch.multiprocessing.spawn import spawn
from two_processes import NoLoss, loss_of_half, train, unseeded

from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss

pytestmark = pytest.mark.slow

TRAININGS: dict[str, dict[str, Any]] = {
    "labels": {"labels": {"background": 0, "a": 1, "b": 2}},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "b": 2}, "regions_class_order": [1, 2]},
    "volumes, a guide for each class": {
        "labels": {"background": 0, "a": 1, "b": 2},
        "patch_size": (8, 32, 48),
        "guide": {"guides": "classes", "slice_stride": 2},
    },
    "gate at the input, no guide loss": {"guide": {"gate_at": "input", "lambda_guide": 0.0}},
    "LoRA": {"guide": {"lora": {"dropout": 0.0}}},
}


@pytest.mark.parametrize(
    ("name", "compiled"),
    [*((name, False) for name in TRAININGS), ("LoRA", True)],
    ids=[*TRAININGS, "LoRA, compiled, several buckets"],
)
def test_two_processes_train_as_one_does(name, compiled, planned_trainer, tmp_path):
    settings = TRAININGS[name]
    # Late fusion is fitted to random pixels of one GPU's patches (see the next test).
    settings = {**settings, "guide": {**settings.get("guide", {}), "late_fusion": False}}
    train(0, 1, tmp_path, settings)
    spawn(train, args=(2, tmp_path, settings, compiled), nprocs=2)
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("1_0", "2_0", "2_1"))
    for name, weight in one["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-5, atol=1e-5, msg=name)
    assert any("guide_dice" in name for name in one["logged"])
    for name, values in one["logged"].items():
        for rank in (first, second):
            np.testing.assert_allclose(rank["logged"][name], values, rtol=1e-4, err_msg=name)


def test_late_fusion_is_the_same_on_all_gpus(planned_trainer, tmp_path):
    spawn(train, args=(2, tmp_path, TRAININGS["labels"]), nprocs=2)
    first, second = (torch.load(tmp_path / f"2_{rank}.pt", weights_only=False)["weights"] for rank in (0, 1))
    for name in ("late_fusion.weight", "late_fusion.bias"):
        assert first[name].abs().sum() > 0
        assert torch.equal(first[name], second[name])


ON_TOKENS: dict[str, Any] = {"tuning": "lora", "layers": [1, 2, 3], "widths": [4, 6, 8]}


@pytest.mark.parametrize(
    ("guide", "network"),
    [({"lora": None}, None), ({"lora": {}}, None), ({}, ON_TOKENS)],
    ids=["frozen", "LoRA", "LoRA of a network on tokens"],
)
def test_without_a_seed_the_processes_begin_and_stay_alike(guide, network, planned_trainer, tiny_encoder, tmp_path):
    settings: dict[str, Any] = {"guide": guide}
    if network is not None:
        folder = tiny_encoder("dinov3")
        of_folder = {"encoder_config": read_encoder_config(folder, None), "pretrained": str(folder)}
        settings |= {"architecture": "segdino", "network": {**network, **of_folder}}
    spawn(unseeded, args=(tmp_path, settings), nprocs=2)
    first, second = (torch.load(tmp_path / f"unseeded_{rank}.pt", weights_only=False) for rank in (0, 1))
    adapted = bool(network) or guide["lora"] is not None
    assert any(".lora_A." in name for name in first["before"]) == adapted
    for when in ("before", "after"):
        for name, parameter in first[when].items():
            assert torch.equal(second[when][name], parameter), f"{name} {when} training"
    trained = [name for name, parameter in first["before"].items() if not torch.equal(first["after"][name], parameter)]
    assert any(name.startswith("tokenbook.") for name in trained)
    assert any(".lora_B." in name for name in trained) == adapted


def test_ignored_pixels_weigh_the_same_wherever_they_are(tmp_path):
    outputs, targets = guided_batch(WITH_IGNORE, 2, 16, 24)
    GuidedLoss(NoLoss(), WITH_IGNORE, {"guide": 1.0, "boundary": 1.0})(outputs, targets).backward()
    spawn(loss_of_half, args=(tmp_path,), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for output, *gradients in zip((outputs[0], outputs[2]), *halves, strict=True):
        # DistributedDataParallel takes the mean over the GPUs
        torch.testing.assert_close(torch.cat(gradients) / 2, output.grad, rtol=1e-5, atol=1e-7)
