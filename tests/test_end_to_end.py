"""Through nnU-Net's own commands: train, resume after a kill, validate, predict, share; offline where it must be."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunet_workspace import DATASET, TINY_PLANS, Workspace
from PIL import Image

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.lab.benchmark.collect import training_curve

pytestmark = pytest.mark.slow

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent / "no_network"), *filter(None, [os.environ.get("PYTHONPATH")])]
    ),
}


@pytest.fixture(params=["dinov3", "dinov2-small", "timm_dinov3"])
def encoder(request, tmp_path, tiny_encoder, dinov2_small) -> Path:
    """A copy that the test may delete: a tiny random DINOv3 (4 registers), the real DINOv2 ViT-S, and timm's DINOv3."""
    original = dinov2_small if request.param == "dinov2-small" else tiny_encoder(request.param)
    return shutil.copytree(original, tmp_path / request.param)


def predict(workspace, trainer, output: Path, **environment) -> dict[str, bytes]:
    workspace.run(
        *("nnUNetv2_predict", "-i", workspace.raw / DATASET / "imagesTr", "-o", output, "-d", 901, "-c", "2d", "-f", 0),
        *("-tr", trainer, "-p", TINY_PLANS, "-device", "cpu", "-npp", 0, "-nps", 0),
        **environment,
    )
    predictions = {path.name: path.read_bytes() for path in sorted(output.glob("*.png"))}
    assert len(predictions) == 12
    return predictions


def kill_in_second_epoch(workspace, trainer, **environment) -> None:
    log = workspace.root / "killed.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            workspace.command("nnUNetv2_train", 901, "2d", 0, "-tr", trainer, "-p", TINY_PLANS, "-device", "cpu"),
            env={**workspace.environment, **environment, "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while "Epoch 1" not in log.read_text():
            assert process.poll() is None, log.read_text()[-8000:]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_train_resume_validate_predict_and_share_without_the_encoder(workspace, encoder, tmp_path):
    adapted = "LoRA" if encoder.name == "timm_dinov3" else ""
    trainer = f"nnUNetTrainerGuiDINO{adapted}_3epochs_10iterations_seed{len(encoder.name)}"
    folder = workspace.model_folder(trainer)
    kill_in_second_epoch(workspace, trainer, GUIDINO_ENCODER=str(encoder))
    assert {p.name for p in (folder / "fold_0").glob("checkpoint*")} == {"checkpoint_best.pth"}

    whole = (folder / "plans.json").read_text()
    (folder / "plans.json").write_text(whole[:500])  # as a kill in version 0.1.0, and in stock nnU-Net, can leave it
    shutil.rmtree(encoder)
    resumed = workspace.train(trainer, "--c", **OFFLINE)
    assert "Epoch 0" not in resumed
    told = ("train losses: seg ", "val losses: seg ", "Guide Dice ", "Late fusion with weight ")
    for line in ("Epoch 2", *told, "Mean Validation Dice"):
        assert line in resumed
    # what reads the log finds the guide's Dice alone in its line
    curve = training_curve(SimpleNamespace(folder=folder / "fold_0"))["guide_dice"]
    assert [f"{dice:.4f}" for dice in curve[1:]] == re.findall(r"Guide Dice (\S+)", resumed)
    assert "Mean Validation Dice" in workspace.train(trainer, "--val", **OFFLINE)
    with np.load(folder / "fold_0" / "guide_progress.npz") as recorded:
        assert recorded["finished"].tolist() == [0, 1, 2, 3]  # before and after the kill
    assert (folder / "fold_0" / "guide_progress.png").is_file()
    assert "guide_progress.png could not" not in resumed

    section = json.loads((folder / "plans.json").read_text())["guidino"]
    assert section["encoder_source"]["folder"] == str(encoder)
    before = predict(workspace, trainer, tmp_path / "before", **OFFLINE)
    assert any(np.asarray(Image.open(p)).any() for p in (tmp_path / "before").glob("*.png"))

    archive = tmp_path / "model.zip"
    workspace.run(
        "nnUNetv2_export_model_to_zip",
        "-d",
        901,
        "-o",
        archive,
        "-c",
        "2d",
        "-f",
        0,
        "-tr",
        trainer,
        "-p",
        TINY_PLANS,
        "--not_strict",
    )
    elsewhere = Workspace(tmp_path / "elsewhere")
    for empty in (elsewhere.raw, elsewhere.preprocessed, elsewhere.results):
        empty.mkdir(parents=True)
    elsewhere.run("nnUNetv2_install_pretrained_model_from_zip", archive, **OFFLINE)
    elsewhere.raw = workspace.raw
    after = predict(elsewhere, trainer, tmp_path / "after", **OFFLINE)
    assert after == before


def test_baseline_and_residual_encoder_plans(workspace, tiny_encoder, trained_models):
    encoder = {"GUIDINO_ENCODER": str(tiny_encoder("dinov3"))}
    weights = torch.load(trained_models["plain"] / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert weights["trainer_name"] == trained_models["plain"].name.split("__")[0]
    assert not any("token" in name for name in weights["network_weights"])
    workspace.run("nnUNetv2_plan_experiment", "-d", 901, "-pl", "nnUNetPlannerResEncM")
    trainer = "nnUNetTrainerGuiDINO_1epochs_1iterations"
    workspace.train(trainer, plans="nnUNetResEncUNetMPlans", **encoder)
    best = workspace.run(
        *("nnUNetv2_find_best_configuration", 901, "-c", "2d", "-tr", trainer, "-p", "nnUNetResEncUNetMPlans", "-f", 0),
        "--disable_ensembling",
    )
    assert trainer in best


def test_two_planned_guides_side_by_side(workspace, tiny_encoder, monkeypatch):
    """Each plans file has a results folder of its own, which says with what it was trained."""
    for name, value in workspace.environment.items():
        if name.startswith("nnUNet_"):
            monkeypatch.setenv(name, value)
    trainer = "nnUNetTrainerGuiDINO_1epochs_1iterations"
    for family, gate_at in (("dinov2", "input"), ("vit", "bottleneck")):
        plans = f"nnUNetPlans_{family}"
        options = ["--encoder", str(tiny_encoder(family)), "--gate-at", gate_at]
        assert main(["plan", "-d", "901", "-p", TINY_PLANS, "-o", plans, *options]) == 0
        workspace.train(trainer, plans=plans, GUIDINO_ENCODER="/gone")
    for family, gate_at in (("dinov2", "input"), ("vit", "bottleneck")):
        folder = workspace.model_folder(trainer, f"nnUNetPlans_{family}")
        section = json.loads((folder / "plans.json").read_text())["guidino"]
        assert (section["encoder_config"]["model_type"], section["gate_at"]) == (family, gate_at)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_equal_seeds_give_equal_losses(workers, workspace, tiny_encoder, monkeypatch):
    from nnunetv2.run.run_training import get_trainer_from_args

    for name, value in workspace.environment.items():
        if name.startswith("nnUNet_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    monkeypatch.setenv("GUIDINO_ENCODER", str(tiny_encoder("dinov3")))

    def losses(seed: int) -> list[float]:
        name = f"nnUNetTrainerGuiDINO_1epochs_2iterations_seed{seed}"
        trainer = get_trainer_from_args("901", "2d", 0, name, TINY_PLANS, device=torch.device("cpu"))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        values = [float(trainer.train_step(next(trainer.dataloader_train))["loss"]) for _ in range(4)]
        values.append(float(trainer.validation_step(next(trainer.dataloader_val))["loss"]))
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if workers != "0":
                loader._finish()
        return values

    first = losses(7)
    assert losses(7) == first
    assert losses(8) != first


def test_unknown_variant_shows_the_grammar_at_the_command_line(workspace):
    done = subprocess.run(
        workspace.command("nnUNetv2_train", 901, "2d", 0, "-tr", "nnUNetTrainerGuiDINO_2epoch", "-device", "cpu"),
        env=workspace.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "nnUNetTrainerGuiDINO[Paper][LoRA][_<N>epochs][_<M>iterations][_<n>cases][_seed<k>]" in done.stderr
