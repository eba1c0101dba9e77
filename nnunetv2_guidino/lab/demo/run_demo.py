"""Train a plain and a guided nnU-Net on the same images, through nnU-Net's own commands, in a folder of its own."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nnunetv2_guidino.bounds import COUNT, SEED
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_json
from nnunetv2_guidino.lab.demo.demo_data import Pair, phantom_cases, read_cases, write_dataset
from nnunetv2_guidino.lab.demo.dinov2 import export_dinov2, find_onnx
from nnunetv2_guidino.lab.demo.picture import draw_comparison
from nnunetv2_guidino.nnunet.commands import run_command
from nnunetv2_guidino.nnunet.plans_file import PlansFile

DATASET = "Dataset900_GuidinoDemo"
TRAIN_CASES, HELDOUT_CASES, PICTURED_CASES = 120, 24, 5
VALIDATION_CASES = 8  # at most, of those to train on: nnU-Net predicts each after the training
BATCH_SIZE = 6  # at most; nnU-Net plans for a GPU
LAYER = 11  # of 12: guides as well as the last one (docs/how_to/choose_an_encoder.md), with a block less to run


class Model(NamedTuple):
    """One of the two that are compared."""

    trainer: str
    plans: str


MODELS = {
    "plain": Model("nnUNetTrainerGuiDINOBaseline", "nnUNetPlans"),
    "guided": Model("nnUNetTrainerGuiDINO", "nnUNetPlansGuidino"),
}


class Result(NamedTuple):
    """Of one model: scores of the held-out cases, and how long it took."""

    dice: list[float]
    iou: list[float]
    training_seconds: float
    prediction_seconds: float


def make_output_folder(wanted: Path) -> Path:
    """Make `wanted`, or else `wanted`_2, `wanted`_3, …: whatever an earlier run left stays.

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
    """One fold that validates on few cases."""
    validation = min(VALIDATION_CASES, max(1, len(cases) // 5))
    split = {"train": cases[validation:], "val": cases[:validation]}
    write_json(preprocessed / "splits_final.json", [split])


def score(truths: list[Path], predictions: list[Path]) -> tuple[list[float], list[float]]:
    """Dice and IoU of every case by nnU-Net's own measure; nan where truth and prediction are both empty."""
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
    """comparison.png, of the first held-out cases by name."""
    from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

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


@dataclass(frozen=True)
class Demonstration:
    """What `demo` leaves.

    Args:
        folder: With everything in it: nnU-Net's folders, logs, predictions, comparison.png.
        results: Of the model "plain" and of the model "guided".
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
    """Train a plain and a guided nnU-Net on the same images, through nnU-Net's own commands, and compare them.

    Args:
        output: Folder to make; if it exists, the same name with _2, _3, … is made instead.
        data: Folder with images/ and masks/ to use instead of generated phantoms.
        epochs: Of each training.
        iterations: Of each epoch.
        device: "cpu", "cuda" or "mps".
        seed: Of the images and of both trainings.

    Raises:
        GuidinoError: If the extra "demo" is not installed, the data are not as expected, or a command fails.
    """
    COUNT.check("--epochs", epochs)
    COUNT.check("--iterations", iterations)
    SEED.check("--seed", seed)
    usable_device(device)
    find_onnx()  # what is missing is said before anything is written
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
    """Data set, encoder, preprocessed images, plans and split."""
    write_dataset(root / "nnUNet_raw" / DATASET, train, heldout)
    encoder = export_dinov2(root / "dinov2")
    counts = ["-npfp", "1", "-np", "1"]
    run_command("nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d", *counts, root=root, label="preprocess")
    write_plans(root / "nnUNet_preprocessed" / DATASET, encoder)
    write_split(root / "nnUNet_preprocessed" / DATASET, [pair.name for pair in train])
