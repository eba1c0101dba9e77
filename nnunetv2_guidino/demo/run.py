"""Train a plain and a guided nnU-Net on the same images and compare them, without a hub, a GPU or data of your own.

The images are lesion-like phantoms on real photographs, the guide's encoder is a real DINOv2 ViT-S. Everything runs
through nnU-Net's own commands, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunetv2_guidino.demo.dataset import phantom_cases, read_cases, write_dataset
from nnunetv2_guidino.demo.dinov2 import export_dinov2, find_onnx
from nnunetv2_guidino.demo.picture import draw_comparison
from nnunetv2_guidino.nnunet.commands import run_command
from nnunetv2_guidino.plans import derive_plans

DATASET = "Dataset900_GuidinoDemo"
TRAIN_CASES, HELDOUT_CASES, PICTURED_CASES = 120, 24, 5
VALIDATION_CASES = 8  # at most, of those to train on: nnU-Net predicts each after the training
BATCH_SIZE = 6  # at most; nnU-Net plans for a GPU
LAYER = 11  # of 12: guides as well as the last one (docs/how_to/choose_an_encoder.md), with a block less to run


class Model(NamedTuple):
    trainer: str
    plans: str


MODELS = {
    "plain": Model("nnUNetTrainerGuiDINOBaseline", "nnUNetPlans"),
    "guided": Model("nnUNetTrainerGuiDINO", "nnUNetPlansGuidino"),
}


class Result(NamedTuple):
    dice: list[float]
    iou: list[float]
    training_seconds: float
    prediction_seconds: float


def at_least(minimum: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return int(text)

    return integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=Path("guidino_demo"),
        metavar="DIR",
        help="output folder (default: %(default)s); if it exists, DIR_2, DIR_3, ... is made instead",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="use the pairs in DIR/images and DIR/masks (0/1 or 0/255), reduced to the demo's size, "
        "instead of generated phantoms; a fifth is held out",
    )
    parser.add_argument("--epochs", type=at_least(1), default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--iterations",
        type=at_least(1),
        default=20,
        metavar="M",
        help="training iterations per epoch (default: %(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of the images and of both trainings (default: %(default)s)"
    )


def make_output_folder(wanted: Path) -> Path:
    """Make `wanted`, or else `wanted`_2, `wanted`_3, …: whatever an earlier run left stays."""
    folder, number = wanted.absolute(), 1
    while folder.exists():
        number += 1
        folder = wanted.absolute().with_name(f"{wanted.name}_{number}")
    folder.mkdir(parents=True)
    return folder


def write_plans(preprocessed: Path, encoder: Path) -> None:
    """Cap the planned batch size, and put the guided sibling of the plans beside them."""
    plans_file = preprocessed / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    configuration = plans["configurations"]["2d"]
    configuration["batch_size"] = min(configuration["batch_size"], BATCH_SIZE)
    plans_file.write_text(json.dumps(plans, indent=2))
    guided = derive_plans(plans, MODELS["guided"].plans, {"encoder": str(encoder), "layer": LAYER})
    (preprocessed / f"{MODELS['guided'].plans}.json").write_text(json.dumps(guided, indent=2))


def write_split(preprocessed: Path, cases: list[str]) -> None:
    """One fold that validates on few cases."""
    validation = min(VALIDATION_CASES, max(1, len(cases) // 5))
    split = {"train": cases[validation:], "val": cases[:validation]}
    (preprocessed / "splits_final.json").write_text(json.dumps([split]))


def score(truths: list[Path], predictions: list[Path]) -> tuple[list[float], list[float]]:
    """Dice and IoU of every case by nnU-Net's own measure; nan where truth and prediction are both empty."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    pairs = zip(truths, predictions, strict=True)
    metrics = [compute_metrics(str(a), str(b), NaturalImage2DIO(), [1])["metrics"][1] for a, b in pairs]
    return [m["Dice"] for m in metrics], [m["IoU"] for m in metrics]


def train_and_predict(name: str, trainer: str, root: Path, device: str) -> Result:
    dataset = root / "nnUNet_raw" / DATASET
    where = ["-tr", trainer, "-p", MODELS[name].plans, "-device", device]
    training_seconds = run_command("nnUNetv2_train", DATASET, "2d", "0", *where, root=root, label=f"train {name}")
    predicted = root / "predictions" / name
    folders = ["-i", str(dataset / "imagesTs"), "-o", str(predicted)]
    model = ["-d", DATASET, "-c", "2d", "-f", "0", "-npp", "0", "-nps", "0", *where]
    prediction_seconds = run_command("nnUNetv2_predict", *folders, *model, root=root, label=f"predict {name}")
    truths = sorted((dataset / "labelsTs").iterdir())
    dice, iou = score(truths, [predicted / truth.name for truth in truths])
    return Result(dice, iou, training_seconds, prediction_seconds)


def draw_picture(root: Path, model_folder: Path, results: dict[str, Result], device: str) -> None:
    """comparison.png, of the first held-out cases by name."""
    from nnunetv2_guidino.inspection.predictor import GuidePredictor

    dataset = root / "nnUNet_raw" / DATASET
    truths = sorted((dataset / "labelsTs").iterdir())[:PICTURED_CASES]
    images = [dataset / "imagesTs" / f"{truth.stem}_0000.png" for truth in truths]
    predictions = {
        name: [
            (root / "predictions" / name / truth.name, dice) for truth, dice in zip(truths, result.dice, strict=False)
        ]
        for name, result in results.items()
    }
    with (root / "logs" / "picture.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        predictor = GuidePredictor(model_folder, ["0"], "checkpoint_final.pth", device)
        guides = [predictor.predict([image]).guide[0] for image in images]
    draw_comparison(root / "comparison.png", images, truths, guides, predictions)


def print_table(results: dict[str, Result]) -> None:
    print(f"\n{'':8}{'Dice':>8}{'IoU':>8}{'training':>12}{'prediction':>12}")
    for name, result in results.items():
        print(
            f"{name:8}{np.nanmean(result.dice):8.3f}{np.nanmean(result.iou):8.3f}"
            f"{result.training_seconds:10.0f} s{result.prediction_seconds:10.0f} s"
        )


def run(args: argparse.Namespace) -> None:
    if args.data:
        train, heldout = read_cases(args.data, args.seed)
    else:
        train = phantom_cases("train", TRAIN_CASES, args.seed)
        heldout = phantom_cases("heldout", HELDOUT_CASES, args.seed)
    find_onnx()  # what is missing is said before anything is written
    root = make_output_folder(args.output)
    print(f"{len(train)} images to train on, {len(heldout)} held out; everything goes to {root}")
    dataset = root / "nnUNet_raw" / DATASET
    write_dataset(dataset, train, heldout)
    encoder = export_dinov2(root / "dinov2")
    counts = ["-npfp", "1", "-np", "1"]
    run_command("nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d", *counts, root=root, label="preprocess")
    write_plans(root / "nnUNet_preprocessed" / DATASET, encoder)
    write_split(root / "nnUNet_preprocessed" / DATASET, [case.name for case in train])

    suffix = f"_{args.epochs}epochs_{args.iterations}iterations_seed{args.seed}"
    trainers = {name: model.trainer + suffix for name, model in MODELS.items()}
    results = {name: train_and_predict(name, trainer, root, args.device) for name, trainer in trainers.items()}

    model_folder = root / "nnUNet_results" / DATASET / f"{trainers['guided']}__{MODELS['guided'].plans}__2d"
    draw_picture(root, model_folder, results, args.device)
    print_table(results)
    print(f"\n{root / 'comparison.png'}")
