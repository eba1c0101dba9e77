"""Each architecture through nnU-Net's own commands, plain and guided: train, predict, share; offline once trained."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from nnunet_workspace import DATASET, Workspace
from timm_weights import FAKES, save_fake
from tiny_networks import ON_TOKENS, SETTINGS

SUPPORT = Path(__file__).parents[2] / "support"
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "no_network")}
LENGTH = "_1epochs_1iterations_seed0"
TRAINERS = [f"nnUNetTrainerGuiDINO{kind}{LENGTH}" for kind in ("BaselinePaper", "Paper")]
MODELS = [(trainer, name) for name in SETTINGS for trainer in TRAINERS]
CASES = 2


def settings_of(name: str, folder: Path) -> dict:
    """Tiny ones, to start from the weights in that folder; the tiny transformer has three blocks."""
    settings = {key: value for key, value in SETTINGS[name].items() if key != "encoder_config"}
    if name in FAKES or name in ON_TOKENS:
        settings["pretrained"] = str(folder)
    if name.startswith("segdino"):
        settings["layers"] = [1, 2, 3]
    if name == "segdino":
        settings["widths"] = [4, 6, 8]
    return settings


def run(workspace: Workspace, commands: list[list], **environment: str) -> str:
    file = workspace.root / "commands.json"
    file.write_text(json.dumps([[str(word) for word in command] for command in commands]))
    several = SUPPORT / "several_commands.py"
    return workspace.run(Path(sys.executable).name, several, file, nnUNet_n_proc_DA="0", **environment)


def archive(folder: Path, trainer: str, name: str) -> Path:
    return folder / f"{trainer}__{name}.zip"


def of_model(trainer: str, name: str) -> list[str]:
    return ["-d", "901", "-c", "2d", "-f", "0", "-tr", trainer, "-p", name]


def predicting(trainer: str, name: str, images: Path, output: Path, *options: str) -> list:
    folders = ("-i", images, "-o", output / f"{trainer}__{name}")
    return ["nnUNetv2_predict", *folders, *of_model(trainer, name), *("-device", "cpu", "-npp", 0, "-nps", 0), *options]


def training(trainer: str, name: str, *options: object) -> list:
    return ["nnUNetv2_train", 901, "2d", 0, "-tr", trainer, "-p", name, "-device", "cpu", *options]


def recorded_folder(workspace: Workspace, trainer: str, name: str) -> str | None:
    """Of the weights that the network started from, by the trained model's plans."""
    plans = json.loads((workspace.model_folder(trainer, name) / "plans.json").read_text())
    return plans["configurations"]["2d"]["architecture"].get("pretrained_source", {}).get("folder")


def exporting(trainer: str, name: str, file: Path) -> list:
    return ["nnUNetv2_export_model_to_zip", *of_model(trainer, name), "-o", file, "--not_strict"]


@pytest.mark.slow
def test_train_predict_and_share(workspace, tiny_encoder, guidino, monkeypatch, tmp_path):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, workspace.environment[variable])
    weights = {name: save_fake(name, tmp_path / "weights" / name) for name in FAKES}
    encoder = shutil.copytree(tiny_encoder("dinov3"), tmp_path / "weights" / "dinov3")
    for name in SETTINGS:
        settings = settings_of(name, weights.get(name, encoder))
        changes = [f"--set=architecture.{key}={json.dumps(value)}" for key, value in settings.items()]
        changes.append("--set=configurations.2d.batch_size=2")
        guide = ("--encoder", encoder, "--min-input-size", 64, "--prototypes", 8)
        guidino("plan", "-d", 901, "-o", name, "--architecture", name, *guide, *changes)
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((workspace.raw / DATASET / "imagesTr").iterdir())[:CASES]:
        shutil.copy(image, images)

    first, second = ((trainer, "swin_unet") for trainer in TRAINERS)
    checkpoint = workspace.model_folder(*first) / "fold_0" / "checkpoint_final.pth"
    tuned = (TRAINERS[0].replace("seed0", "seed1"), first[1])
    before, after, both = (tmp_path / name for name in ("before", "after", "both"))
    run(
        workspace,
        [
            *(training(*model) for model in MODELS),
            training(*tuned, "-pretrained_weights", checkpoint),
            *(predicting(*model, images, before, "--save_probabilities") for model in MODELS),
            ["nnUNetv2_ensemble", "-i", *(before / f"{t}__{n}" for t, n in (first, second)), "-o", both, "-np", 1],
            *(exporting(*model, archive(tmp_path, *model)) for model in MODELS),
        ],
    )
    assert len(list(both.glob("*.png"))) == CASES
    for trainer, name in MODELS:
        folder = weights.get(name, encoder if name in ON_TOKENS else None)
        assert recorded_folder(workspace, trainer, name) == (folder and str(folder)), name
    assert recorded_folder(workspace, *tuned) is None

    shutil.rmtree(tmp_path / "weights")
    elsewhere = Workspace(tmp_path / "elsewhere")
    for empty in (elsewhere.raw, elsewhere.preprocessed, elsewhere.results):
        empty.mkdir(parents=True)
    run(
        elsewhere,
        [
            *(["nnUNetv2_install_pretrained_model_from_zip", archive(tmp_path, *model)] for model in MODELS),
            *(predicting(*model, images, after) for model in MODELS),
        ],
        **NO_NETWORK,
    )
    for trainer, name in MODELS:
        there, here = (folder / f"{trainer}__{name}" for folder in (before, after))
        pictures = {path.name: path.read_bytes() for path in there.glob("*.png")}
        assert len(pictures) == CASES
        assert {path.name: path.read_bytes() for path in here.glob("*.png")} == pictures, name
