"""Models of earlier versions, made by tests/support/make_model.py, still predict the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import make_model
import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from PIL import Image

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.training.shared_plans import guide_of_checkpoint

MODELS = Path(__file__).resolve().parents[1] / "earlier_models"


@pytest.fixture(params=["0.1.0", "0.1.0-lora"])
def earlier(request):
    return MODELS / request.param


def test_the_logits_are_what_they_were(earlier):
    predictor = make_model.predictor(earlier / "model")
    assert not any(p.requires_grad for p in predictor.network.token_encoder.vit.parameters())
    found = make_model.logits(predictor, earlier / "images" / "disc_0000.png").numpy()
    # nnU-Net adds tiles up in float16; where a value lies between two of its steps, processors differ, seen: by one.
    np.testing.assert_allclose(found, np.load(earlier / "logits.npz")["logits"], rtol=2**-9, atol=1e-3)


def test_it_is_the_product_that_gates_them(earlier, tmp_path):
    """Another gate gives other outputs with the same weights."""
    shutil.copytree(earlier / "model", tmp_path / "model")
    plans = json.loads((earlier / "model" / "plans.json").read_text())
    plans["guidino"]["gating"] = "residual"  # the name of the gate's form before format 2
    (tmp_path / "model" / "plans.json").write_text(json.dumps(plans))
    found = make_model.logits(make_model.predictor(tmp_path / "model"), earlier / "images" / "disc_0000.png")
    assert np.abs(found.numpy() - np.load(earlier / "logits.npz")["logits"]).max() > 0.1


def test_the_checkpoint_alone_says_which_guide_it_has(earlier):
    guide = guide_of_checkpoint(earlier / "model" / "fold_0" / "checkpoint_final.pth")
    assert guide == GuideConfig.from_plans(json.loads((earlier / "model" / "plans.json").read_text()))
    assert guide.gate == "product"


def test_a_training_starts_from_its_weights(earlier, planned_trainer, monkeypatch, tiny_encoder):
    name, family = {"0.1.0": ("", "dinov3"), "0.1.0-lora": ("LoRA", "dinov2")}[earlier.name]
    monkeypatch.setenv("GUIDINO_ENCODER", str(tiny_encoder(family)))
    file = earlier / "model" / "fold_0" / "checkpoint_final.pth"
    trainer = planned_trainer(f"nnUNetTrainerGuiDINO{name}", guide={"gate": "product"})
    maybe_load_checkpoint(trainer, False, False, str(file))
    theirs = torch.load(file, weights_only=False)["network_weights"]
    assert torch.equal(trainer.network.tokenbook.prototypes, theirs["tokenbook.prototypes"])
    layers = [weight for key, weight in theirs.items() if ".lora_B." in key]
    ours = [weight for key, weight in trainer.network.state_dict().items() if ".lora_B." in key]
    assert len(ours) == len(layers)
    assert all(torch.equal(*pair) for pair in zip(ours, layers, strict=True))
    assert trainer.network.settings.encoder_source["folder"] == f"/tmp/guidino_make_model/{family}"


@pytest.mark.slow
def test_nnunet_s_command_predicts_the_same(earlier, tmp_path):
    command = Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder"
    arguments = ["-i", earlier / "images", "-o", tmp_path, "-m", earlier / "model", "-f", "0", "-device", "cpu"]
    environment = {**os.environ, **dict.fromkeys(make_model.FOLDERS, str(tmp_path)), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [command, *map(str, arguments), "-npp", "1", "-nps", "1"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    expected, found = (np.asarray(Image.open(folder / "disc.png")) for folder in (earlier, tmp_path))
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(found, expected)
