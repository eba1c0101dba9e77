"""Train a plain and a guided nnU-Net on the same images by nnU-Net's own commands, in a new folder."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nnunetv2_guidino.bounds import COUNT, SEED
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.lab.demo.demo_data import Pair, phantom_cases, read_cases, write_dataset
from nnunetv2_guidino.lab.demo.dinov2 import export_dinov2, find_onnx
from nnunetv2_guidino.nnunet.commands import run_command
from nnunetv2_guidino.nnunet.plans_file import PlansFile

DATASET = "Dataset900_GuidinoDemo"
TRAIN_CASES, HELDOUT_CASES, PICTURED_CASES = 120, 24, 5
VALIDATION_CASES = 8  # at most, of the training cases: nnU-Net predicts each after the training
BATCH_SIZE = 6  # at most; nnU-Net plans for a GPU
LAYER = 11  # of 12: as good a guide as the last layer's (docs/how_to/choose_an_encoder.md), with a block less to run


class Model(NamedTuple):
    """A model of the demo."""

    trainer: str
    plans: str


MODELS = {
    "plain": Model("nnUNetTrainerGuiDINOBaseline", "nnUNetPlans"),
    "guided": Model("nnUNetTrainerGuiDINO", "nnUNetPlansGuidino"),
}


class Result(NamedTuple):
    """The scores of one model on the held-out cases, and its durations."""

    dice: list[float]
    iou: list[float]
    training_seconds: float
    prediction_seconds: float


def make_output_folder(wanted: Path) -> Path:
    """Make `wanted`, or else `wanted`_2, `wanted`_3, …; the output of earlier runs stays.

    Raises:
        GuidinoError: If it cannot be made.
    """
    wanted = wanted.absolute()
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            raise GuidinoError(f"{folder} cannot be made: {error.strerror or error}") from error


def write_plans(preprocessed: Path, encoder: Path) -> None:
    """Limit the planned batch size, and write guided plans beside the planned ones."""
    planned = PlansFile.read(preprocessed / "nnUNetPlans.json")
    batch_size = min(planned.configuration("2d").batch_size, BATCH_SIZE)
    limited = planned.with_configuration("2d", batch_size=batch_size)
    limited.write()
    limited.with_guide({"encoder": str(encoder), "layer": LAYER}, plans_name=MODELS["guided"].plans).write()


def write_split(preprocessed: Path, cases: list[str]) -> None:
    """Write a split with one fold that validates on few cases."""
    validation = min(VALIDATION_CASES, max(1, len(cases) // 5))
    split = {"train": cases[validation:], "val": cases[:validation]}
    write_json(preprocessed / "splits_final.json", [split])


def score(truths: list[Path], predictions: list[Path]) -> tuple[list[float], list[float]]:
    """Return Dice and IoU of each case by nnU-Net's own code; NaN if truth and prediction are both empty."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    pairs = zip(truths, predictions, strict=True)
    metrics = [compute_metrics(str(a), str(b), NaturalImage2DIO(), [1])["metrics"][1] for a, b in pairs]
    return [m["Dice"] for m in metrics], [m["IoU"] for m in metrics]


def train_and_predict(name: str, trainer: str, root: Path, device: str) -> Result:
    """Train one model on fold 0, predict the held-out images, and score them."""
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
    """Draw comparison.png: a row for each of the first held-out cases by name."""
    from matplotlib.figure import Figure

    from nnunetv2_guidino.display import draw_outline
    from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

    dataset = root / "nnUNet_raw" / DATASET
    truths = sorted((dataset / "labelsTs").iterdir())[:PICTURED_CASES]
    images = [dataset / "imagesTs" / f"{truth.stem}_0000.png" for truth in truths]
    with (root / "logs" / "picture.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        predictor = GuidePredictor(model_folder, ["0"], "checkpoint_final.pth", device)
        guides = [predictor.predict([image]).guide[0] for image in images]
    titles = ["image", "truth", "guide", *results]
    figure = Figure(figsize=(2 * len(titles), 2.15 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for row, (axes, image, truth) in enumerate(zip(grid, images, truths, strict=True)):
        for axis, title in zip(axes, titles, strict=True):
            axis.imshow(np.asarray(Image.open(image)))
            axis.set_axis_off()
            if title in results:
                prediction = np.asarray(Image.open(root / "predictions" / title / truth.name))
                axis.imshow(np.ma.masked_equal(prediction, 0), cmap="winter", alpha=0.5, vmin=0, vmax=1)
                axis.set_title(f"{title}, Dice {results[title].dice[row]:.2f}", fontsize=9)
            elif row == 0:
                axis.set_title(title, fontsize=9)
            if title == "guide":
                axis.imshow(guides[row], cmap="inferno", vmin=0, vmax=1)
            if title != "image":
                draw_outline(axis, np.asarray(Image.open(truth)), "white", 1)
    figure.savefig(root / "comparison.png", dpi=110)


@dataclass(frozen=True)
class Demonstration:
    """The output of `demo`.

    Args:
        folder: The folder of nnU-Net's folders, logs, predictions and comparison.png.
        results: The results of the models "plain" and "guided".
    """

    folder: Path
    results: dict[str, Result]


def demo(
    output: Path = Path("guidino_demo"),
    data: Path | None = None,
    epochs: int = 5,
    iterations: int = 20,
    device: str = "cpu",
    seed: int = 0,
) -> Demonstration:
    """Train a plain and a guided nnU-Net on the same images by nnU-Net's own commands, and compare them.

    Args:
        output: The folder to make; if it exists, the same name with _2, _3, … is made instead.
        data: A folder with images/ and masks/ to use instead of generated phantoms.
        epochs: The epochs of each training.
        iterations: The iterations of each epoch.
        device: "cpu", "cuda" or "mps".
        seed: The seed of the images and of both trainings.

    Raises:
        GuidinoError: If the extra "demo" is not installed, the data are not as expected, or a command fails.
    """
    COUNT.check("--epochs", epochs)
    COUNT.check("--iterations", iterations)
    SEED.check("--seed", seed)
    usable_device(device)
    find_onnx()  # a missing extra is an error before anything is written
    if data:
        train, heldout = read_cases(data, seed)
    else:
        train = phantom_cases("train", TRAIN_CASES, seed)
        heldout = phantom_cases("heldout", HELDOUT_CASES, seed)
    root = make_output_folder(output)
    print(f"{len(train)} images to train on, {len(heldout)} held out; everything goes to {root}")
    _prepare(root, train, heldout)
    suffix = f"_{epochs}epochs_{iterations}iterations_seed{seed}"
    trainers = {name: model.trainer + suffix for name, model in MODELS.items()}
    results = {name: train_and_predict(name, trainer, root, device) for name, trainer in trainers.items()}
    model_folder = root / "nnUNet_results" / DATASET / f"{trainers['guided']}__{MODELS['guided'].plans}__2d"
    draw_picture(root, model_folder, results, device)
    return Demonstration(root, results)


def _prepare(root: Path, train: list[Pair], heldout: list[Pair]) -> None:
    """Write data set, encoder, preprocessed images, plans and split."""
    write_dataset(root / "nnUNet_raw" / DATASET, train, heldout)
    encoder = export_dinov2(root / "dinov2")
    counts = ["-npfp", "1", "-np", "1"]
    run_command("nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d", *counts, root=root, label="preprocess")
    write_plans(root / "nnUNet_preprocessed" / DATASET, encoder)
    write_split(root / "nnUNet_preprocessed" / DATASET, [pair.name for pair in train])
