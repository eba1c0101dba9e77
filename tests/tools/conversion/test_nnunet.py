"""nnU-Net's own verification, planning and preprocessing accept the converted data sets."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nnunet_workspace import Workspace
from pairs import convert, draw_image, make_pairs, save
from PIL import Image

SETS = {
    "kvasir-seg-original": ("kvasir-seg", 501, []),
    "isic2017-part": ("isic2017", 502, ["--resize", "192", "256"]),
    "ddti": ("folder", 503, ["--labels", "nodule"]),
}


def plan_and_preprocess(*dataset_ids: int) -> None:
    options = ["-c", "2d", "-npfp", "1", "-np", "1", "--verify_dataset_integrity"]
    command = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    subprocess.run([command, "-d", *map(str, dataset_ids), *options], check=True)


@pytest.mark.slow
def test_real_data(real_data: Callable[[str], Path], nnunet: Path) -> None:
    for name, (converter, dataset_id, options) in SETS.items():
        assert convert(converter, real_data(name), "-d", dataset_id, *options) == 0
    plan_and_preprocess(*(dataset_id for _, dataset_id, _ in SETS.values()))


@pytest.mark.slow
def test_unusual_names(tmp_path: Path, nnunet: Path) -> None:
    source = make_pairs(tmp_path / "source", ["with space", "brackets [1] (2)", "größe", "dots.in.name"])
    (tmp_path / "train.txt").write_text("with space\nbrackets [1] (2)\n")
    (tmp_path / "val.txt").write_text("größe\ndots.in.name\n")
    assert convert("folder", source, "--split", tmp_path / "train.txt", tmp_path / "val.txt") == 0
    plan_and_preprocess(500)
    preprocessed = nnunet.parent / "nnUNet_preprocessed" / "Dataset500_source"
    (fold,) = json.loads((preprocessed / "splits_final.json").read_text())
    cases = {path.stem for path in (preprocessed / "nnUNetPlans_2d").glob("*.pkl")}
    assert cases == {*fold["train"], *fold["val"]}


@pytest.mark.slow
def test_photographs_to_masks_by_the_commands_that_are_printed(
    workspace: Workspace, trained_models: dict[str, Path], tmp_path: Path
) -> None:
    for number, ending in enumerate((".jpg", ".png", ".tif")):
        save(draw_image((80, 70), seed=number), tmp_path / "my photos" / f"a{number}{ending}")
    model = trained_models["guided"]
    out = workspace.run("guidino", "convert", "images", tmp_path / "my photos", "-m", model, "-o", tmp_path / "new")
    predict, masks = (
        shlex.split(line.removeprefix("Next: ")) for line in out.splitlines() if line.startswith("Next: ")
    )
    workspace.run(*predict, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta")
    workspace.run(*masks)
    for kind in ("masks", "overlays"):
        folder = tmp_path / "new_masks" / kind
        assert sorted(file.name for file in folder.iterdir()) == ["a0.png", "a1.png", "a2.png"]
        with Image.open(folder / "a0.png") as image:
            assert image.size == (80, 70)
