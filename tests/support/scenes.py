"""A small sound input for each command of `guidino`, to be damaged (see fuzzing)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import evaluation_data
import numpy as np
import planned
from fuzzing import Scene
from pairs import draw_image, draw_mask, make_pairs, save
from PIL import Image

from nnunetv2_guidino.tools.conversion import sources

MODELS = Path(__file__).resolve().parents[1] / "earlier_models"
DATASET_JSON = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "disc": 1}}
NAMES = [f"case{number}" for number in range(6)]
FOLDS = [{"train": NAMES[:4], "val": NAMES[4:]}]


def write_json(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def evaluate(folder: Path) -> Scene:
    references = evaluation_data.write_pngs(folder / "gt", {"a": evaluation_data.square(10, 10)})
    predictions = evaluation_data.write_pngs(folder / "pred", {"a": evaluation_data.square(10, 12)})
    write_json(predictions / "dataset.json", DATASET_JSON | {"file_ending": ".png"})
    files = [references / "a.png", predictions / "a.png", predictions / "dataset.json"]
    output = folder / "out"
    return Scene(["evaluate", "-gt", references, "-pred", predictions, "-o", output, "-np", 1], files, [output])


def evaluate_volumes(folder: Path) -> Scene:
    volume = np.zeros((6, 10, 12), np.uint8)
    volume[2:4, 3:7, 2:9] = 1
    ending = ".nii.gz"
    files = [evaluation_data.write_nifti(folder / kind / f"a{ending}", volume) for kind in ("gt", "pred")]
    write_json(folder / "pred" / "dataset.json", DATASET_JSON | {"file_ending": ending})
    output = folder / "out"
    return Scene(["evaluate", "-gt", folder / "gt", "-pred", folder / "pred", "-o", output, "-np", 1], files, [output])


def evaluate_uncompressed(folder: Path) -> Scene:
    volume = np.zeros((6, 10, 12), np.uint8)
    volume[2:4, 3:7, 2:9] = 1
    for kind in ("gt", "pred"):
        evaluation_data.write_nifti(folder / kind / "a.nii", volume)
        evaluation_data.write_nifti(folder / kind / "b.mha", volume)
    write_json(folder / "pred" / "dataset.json", DATASET_JSON | {"file_ending": ".nii"})
    output = folder / "out"
    arguments = ["evaluate", "-gt", folder / "gt", "-pred", folder / "pred", "-o", output, "-np", 1]
    return Scene(arguments, [folder / "gt" / "a.nii", folder / "pred" / "a.nii"], [output])


def evaluate_model(folder: Path) -> Scene:
    mask = {"a": evaluation_data.square(10, 10)}
    references = evaluation_data.write_pngs(folder / "pre" / "gt_segmentations", mask)
    model = folder / "model"
    evaluation_data.write_pngs(model / "fold_0" / "validation", mask)
    files = [
        write_json(references.parent / "splits_final.json", [{"train": [], "val": ["a"]}]),
        write_json(model / "dataset.json", DATASET_JSON | {"file_ending": ".png"}),
        write_json(model / "plans.json", {"dataset_name": "Dataset001_X"}),
    ]
    return Scene(["evaluate", "-m", model, "-gt", references, "-np", 1], files, [model / "evaluation"])


def compare(folder: Path) -> Scene:
    summaries = []
    for number, name in enumerate(("a", "b")):
        dice = [0.5 + 0.05 * case + 0.1 * number for case in range(6)]
        written = evaluation_data.write_summary(folder / name, evaluation_data.scores(dice))
        summaries.append(written / "summary.json")
    arguments = ["compare", folder / "a", f"better={folder / 'b'}", "-o", folder / "out"]
    return Scene(arguments, summaries, [folder / "out"], option="better was not scored on")


def guide(folder: Path) -> Scene:
    shutil.copytree(MODELS / "0.1.0", folder, dirs_exist_ok=True)
    (folder / "references").mkdir()
    shutil.move(folder / "disc.png", folder / "references")
    model, output = folder / "model", folder / "out"
    files = [model / "plans.json", model / "dataset.json", model / "fold_0" / "checkpoint_final.pth"]
    files += [folder / "images" / "disc_0000.png", folder / "references" / "disc.png"]
    arguments = ["guide", "-m", model, "-i", folder / "images", "-o", output, "-gt", folder / "references"]
    return Scene([*arguments, "-device", "cpu", "--disable_tta"], files, [output])


def plan_show(folder: Path) -> Scene:
    file = shutil.copy(MODELS / "0.1.0" / "model" / "plans.json", folder)
    return Scene(["plan", "--show", file], [Path(file)])


def export_lora(folder: Path) -> Scene:
    model = shutil.copytree(MODELS / "0.1.0-lora" / "model", folder / "model")
    files = [model / "plans.json", model / "fold_0" / "checkpoint_final.pth"]
    return Scene(["encoder", "export-lora", model, "-o", folder / "adapter"], files, [folder / "adapter"])


def encoder_check(folder: Path) -> Scene:
    from tiny_encoders import save_tiny_encoder

    encoder = save_tiny_encoder("dinov2", folder / "encoder")
    (encoder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    files = [encoder / name for name in ("config.json", "model.safetensors", "README.md")]
    return Scene(["encoder", "check", encoder, "--size", 56], files, option="the weights")


def encoder_check_timm(folder: Path) -> Scene:
    from tiny_encoders import save_tiny_encoder

    encoder = save_tiny_encoder("timm_dinov3", folder / "encoder")
    return Scene(["encoder", "check", encoder, "--size", 32], [encoder / "config.json"])


def preprocessed(folder: Path) -> Path:
    """A data set as nnU-Net preprocesses it; the variable nnUNet_preprocessed is the caller's."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data = folder / "nnUNet_preprocessed" / planned.DATASET
    (data / "x").mkdir(parents=True)
    (data / "gt_segmentations").mkdir()
    write_json(data / "nnUNetPlans.json", planned.plans({"prototypes": 8, "min_input_size": 56}).plans)
    write_json(data / "dataset.json", DATASET_JSON | {"file_ending": ".png", "numTraining": len(NAMES)})
    write_json(data / "splits_final.json", FOLDS)
    for name in NAMES:
        image, mask = np.zeros((3, 1, 40, 50), np.float32), np.zeros((1, 1, 40, 50), np.int16)
        image[..., 5:20, 9:30] = mask[..., 5:20, 9:30] = 1
        layout = {"chunks": image.shape, "blocks": image.shape, "chunks_seg": mask.shape, "blocks_seg": mask.shape}
        nnUNetDatasetBlosc2.save_case(image, mask, {}, str(data / "x" / name), **layout)
    return data


def encoder_probe(folder: Path) -> Scene:
    from tiny_encoders import save_tiny_encoder

    data = preprocessed(folder)
    encoder = save_tiny_encoder("dinov2", folder / "encoder")
    files = [data / name for name in ("nnUNetPlans.json", "dataset.json", "splits_final.json")]
    files += [data / "x" / f"{NAMES[0]}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    arguments = ["encoder", "probe", "-d", planned.DATASET, "--encoder", encoder, "--layers", 2, "--sizes", 56]
    return Scene([*arguments, "--steps", 2, "-o", folder / "out"], files, [folder / "out"], option=NAMES[0])


MATRIX = """\
title: tried
datasets: [999]
methods:
  plain: {plans: nnUNetPlans, trainer: nnUNetTrainerGuiDINOBaseline}
  guided: &guided {plans: nnUNetPlans, guide: {gate_at: skips, lora: {rank: 4}}}
  other: {<<: *guided, trainer: nnUNetTrainerGuiDINO}
folds: [0]
seeds: [0, 1]
cases: [2, all]
epochs: 2
"""


def benchmark(folder: Path) -> Scene:
    data = preprocessed(folder)
    matrix = folder / "matrix.yaml"
    matrix.write_text(MATRIX)
    files = [matrix, *(data / name for name in ("nnUNetPlans.json", "dataset.json"))]
    arguments = ["benchmark", matrix, "-device", "cpu", "--launcher", "commands", "-o", folder / "out"]
    return Scene(arguments, files, [folder / "out"], option="does not exist; there are nnUNetPlans")


def convert_folder(folder: Path) -> Scene:
    source = make_pairs(folder / "set", NAMES)
    split = write_json(folder / "split.json", {"train": NAMES[:3], "val": NAMES[3:5], "test": NAMES[5:]})
    files = [source / "images" / "case0.jpg", source / "masks" / "case0.png", split]
    output = folder / "nnUNet_raw" / "Dataset500_set"
    return Scene(["convert", "folder", source, "--split", split, "-np", 1], files, [output], option="--split")


def convert_zip(folder: Path) -> Scene:
    source = make_pairs(folder / "set", NAMES)
    folds = write_json(folder / "splits_final.json", FOLDS)
    archive = Path(shutil.make_archive(str(source), "zip", folder, source.name))
    shutil.rmtree(source)
    output = folder / "nnUNet_raw" / "Dataset500_set"
    arguments = ["convert", "folder", archive, "--split", folds, "-np", 1]
    return Scene(arguments, [archive, folds], [output], sources._archive.cache_clear, "--split")


def convert_tn3k(folder: Path) -> Scene:
    source = folder / "tn3k"
    for part, count in (("trainval", 5), ("test", 2)):
        for number in range(count):
            save(draw_image(seed=number), source / f"{part}-image" / f"{number:04}.png")
            save(draw_mask(), source / f"{part}-mask" / f"{number:04}.png")
    files = [source / "trainval-image" / "0000.png", source / "trainval-mask" / "0000.png"]
    for fold in range(5):
        content = {"train": [number for number in range(5) if number != fold], "val": [fold]}
        files.append(write_json(source / f"tn3k-trainval-fold{fold}.json", content))
    output = folder / "nnUNet_raw" / "Dataset503_TN3K"
    return Scene(["convert", "tn3k", source, "-np", 1], files, [output], option="tn3k-trainval-foldK.json")


def convert_images(folder: Path) -> Scene:
    save(draw_image(), folder / "photos" / "a.png")
    save(draw_image(), folder / "photos" / "b.jpg")
    model = folder / "model"
    description = DATASET_JSON | {"file_ending": ".png", "resized_to": [20, 24]}
    files = [write_json(model / "dataset.json", description), *(folder / "photos").iterdir()]
    arguments = ["convert", "images", folder / "photos", "-m", model, "-o", folder / "new", "-np", 1]
    return Scene(arguments, files, [folder / "new"])


def convert_predictions(folder: Path) -> Scene:
    images, predictions = folder / "images", folder / "predictions"
    save(draw_image(), images / "a_0000.png")
    save(Image.fromarray(np.asarray(draw_mask()) // 255), predictions / "a.png")
    (images / "mapping.csv").write_text("case,original_height,original_width\na,60,80\n")
    files = [images / "a_0000.png", images / "mapping.csv", predictions / "a.png"]
    files.append(write_json(predictions / "dataset.json", DATASET_JSON | {"file_ending": ".png"}))
    output = folder / "masks"
    arguments = ["convert", "predictions", predictions, "-i", images, "-o", output, "-np", 1]
    return Scene(arguments, files, [output])


def demo(folder: Path) -> Scene:
    """Refused for want of its extra, after its data have been read."""
    for number in range(10):
        save(draw_image((60, 50), seed=number), folder / "images" / f"p{number}.png")
        save(draw_mask((60, 50)), folder / "masks" / f"p{number}.png")
    files = [folder / "images" / "p0.png", folder / "masks" / "p0.png"]
    return Scene(["demo", "--data", folder, "-o", folder / "out", "--epochs", 1, "--iterations", 1], files)


SCENES = {
    scene.__name__: scene
    for scene in (
        evaluate, evaluate_volumes, evaluate_uncompressed, evaluate_model, compare, guide, plan_show, export_lora,
        encoder_check, encoder_check_timm, encoder_probe, benchmark, convert_folder, convert_zip, convert_tn3k,
        convert_images, convert_predictions,
    )
}  # fmt: skip
