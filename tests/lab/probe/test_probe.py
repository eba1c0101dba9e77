import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tiny_encoders import DEPTH

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.probe.fold_patches import patches, read_fold
from nnunetv2_guidino.lab.probe.probe import best, write_results
from nnunetv2_guidino.lab.probe.probe import probe as ask
from nnunetv2_guidino.lab.probe.probing import BATCH, Result, guide_dice, train_tokenbook
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.model.losses.target import Annotation

HEIGHT, WIDTH = planned.plans({}).plans["configurations"]["2d"]["patch_size"]


def write_case(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """As nnU-Net preprocesses it: image (n, z, y, x), mask (1, z, y, x)."""
    layout = {"chunks": image.shape, "blocks": image.shape, "chunks_seg": mask.shape, "blocks_seg": mask.shape}
    file = str(folder / name)
    nnUNetDatasetBlosc2.save_case(image.astype(np.float32), mask.astype(np.int16), {}, file, **layout)


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    """Twelve cases with a bright square, larger and smaller than the patch; four of them to validate."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / planned.DATASET
    cases = folder / "x"
    cases.mkdir(parents=True)
    plans = planned.plans({"prototypes": 16, "min_input_size": 64}).plans
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "square": 1}, "file_ending": ".png"}))
    names = [f"case{i:02}" for i in range(12)]
    (folder / "splits_final.json").write_text(json.dumps([{"train": names[:8], "val": names[8:]}]))
    generator = np.random.default_rng(0)
    for i, name in enumerate(names):
        height, width = (HEIGHT, WIDTH) if i % 2 else (HEIGHT + 20, WIDTH - 7)
        mask = np.zeros((1, 1, height, width))
        y, x = generator.integers(0, 12, 2)
        mask[..., y : y + 16, x : x + 16] = 1
        write_case(cases, name, generator.normal(size=(3, 1, height, width)) * 0.1 + 3 * mask, mask)
    return folder


def test_patches_hold_foreground_and_are_the_same_again(dataset):
    fold = read_fold(dataset, "nnUNetPlans", "2d", 0)
    first, again = (list(patches(fold, "train", 2)) for _ in range(2))
    assert len(first) == 16
    for (image, mask, valid), (same_image, same_mask, _) in zip(first, again, strict=True):
        assert image.shape == (3, HEIGHT, WIDTH)
        assert mask.shape == (1, HEIGHT, WIDTH)
        assert mask.any()
        assert valid.all()
        assert image[0][mask[0]].mean() > 2.5  # the mask lies where the square is
        assert torch.equal(image, same_image)
        assert torch.equal(mask, same_mask)


def test_volumes_give_slices_with_foreground(dataset):
    for path in (dataset / "x").glob("case00*"):
        path.unlink()
    mask = np.zeros((1, 9, 40, 60))
    mask[0, 3, 5:9, 5:9] = 1
    mask[0, 4] = -1  # outside of what nnU-Net looks at
    write_case(dataset / "x", "case00", np.arange(9)[None, :, None, None] * np.ones((3, 9, 40, 60)), mask)
    fold = read_fold(dataset, "nnUNetPlans", "2d", 0)
    image, mask, _ = next(patches(fold, "train", 1))
    assert (image == 3).all()
    assert mask.sum() == 16


def test_ignored_pixels_are_not_valid_and_no_foreground(dataset):
    (dataset / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "square": 1, "ignore": 2}, "file_ending": ".png"})
    )
    for path in (dataset / "x").glob("case00*"):
        path.unlink()
    mask = np.zeros((1, 1, HEIGHT - 8, WIDTH))  # padded to the patch
    mask[..., 5:10] = 1
    mask[..., 30:] = 2
    write_case(dataset / "x", "case00", mask.repeat(3, 0), mask)
    image, mask, valid = next(patches(read_fold(dataset, "nnUNetPlans", "2d", 0), "train", 1))
    assert torch.equal(mask[0], image[0] == 1)
    assert torch.equal(valid[0], image[0] != 2)
    assert valid.sum() == HEIGHT * 30 + 8 * (WIDTH - 30)


def test_whatever_is_in_a_region_is_foreground(dataset):
    regions = {"background": 0, "whole": [1, 3], "inside": 3, "ignore": 4}
    description = {"labels": regions, "regions_class_order": [1, 3], "file_ending": ".png"}
    (dataset / "dataset.json").write_text(json.dumps(description))
    fold = read_fold(dataset, "nnUNetPlans", "2d", 0)
    assert (fold.foreground_labels, fold.ignore_label) == ([1, 3], 4)


def test_ignored_pixels_count_in_neither_training_nor_dice():
    """Half of each patch is annotated, all of it as foreground; the tokens are all alike."""
    tokens, masks = torch.ones(BATCH, 8, 4, 4), torch.zeros(BATCH, 1, 16, 16, dtype=torch.bool)
    masks[..., :8] = True
    half, whole = Annotation(masks, valid=masks), Annotation(masks, valid=torch.ones_like(masks))
    guides = []
    for truth in (whole, half):
        torch.manual_seed(0)
        book = TokenBook(8, 4, "cosine", "logistic")
        train_tokenbook(book, tokens, truth, 60)
        guides.append(float(book(tokens).mean()))
    assert guides[0] < 0.7
    assert guides[1] > 0.9
    assert guide_dice(book, tokens, half) == 1
    assert guide_dice(book, tokens, whole) == pytest.approx(2 / 3)


def test_without_a_split_nnunet_s_own_is_used(dataset):
    (dataset / "splits_final.json").unlink()
    fold = read_fold(dataset, "nnUNetPlans", "2d", 4)
    assert (len(fold.cases["train"]), len(fold.cases["val"])) == (10, 2)
    assert not (dataset / "splits_final.json").exists()


def probe(encoder: Path, *options: str) -> int:
    return main(["encoder", "probe", "-d", planned.DATASET, "--encoder", str(encoder), *options])


def test_table_and_plot_for_every_layer_and_size(dataset, tiny_encoder, tmp_path, capsys):
    output = tmp_path / "out"
    options = ["--sizes", "32", "64", "--steps", "5", "--seeds", "2", "-o", str(output)]
    assert probe(tiny_encoder("dinov2"), *options) == 0
    lines = (output / "probe.txt").read_text().splitlines()[3:]
    assert [line.split()[:2] for line in lines] == [
        [str(size), str(layer)] for size in (32, 64) for layer in range(1, DEPTH + 1)
    ]
    assert (output / "probe.png").stat().st_size > 10_000
    assert "Best: guidino plan -d Dataset999_Tiny" in capsys.readouterr().out


def test_guide_finds_bright_squares(dataset, tiny_encoder, capsys):
    """Even random tokens tell bright from dark, and the training must find that out."""
    assert probe(tiny_encoder("dinov3"), "--layers", "1", "--sizes", "128", "--steps", "120") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("128 "))
    assert float(row.split()[2]) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "3d_fullres"], "no configuration 3d_fullres; there are 2d"),
        (["-p", "Nope"], "Nope.json does not exist; there are nnUNetPlans"),
        (["-f", "1"], "-f 1: there are only the folds 0 to 0"),
        (["--layers", "2,4"], "has 3 blocks"),
        (["-c", "2d", "--encoder", "/gone"], "there is no such folder"),
    ],
)
def test_wrong_options_are_refused(options, message, dataset, tiny_encoder, capsys):
    assert probe(tiny_encoder("dinov2"), *options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"steps": 0}, "--steps 0: expected at least 1"),
        ({"seeds": -1}, "--seeds -1: expected at least 1"),
        ({"patches": 0}, "--patches 0: expected at least 1"),
        ({"fold": -1}, "-f -1: expected at least 0"),
        ({"sizes": [64, 0]}, "--sizes 0: expected at least 1"),
        ({"layers": [0]}, "expected numbers from 1"),
        ({"layers": []}, "expected numbers from 1"),
        ({"device": "tpu"}, "-device tpu: expected one of cpu, cuda, mps"),
    ],
)
def test_a_notebook_s_numbers_are_refused_alike(option, message, dataset):
    with pytest.raises(GuidinoError, match=message):
        ask(planned.DATASET, **option)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("splits_final.json", "[{", "splits_final.json is no JSON file, or was cut short"),
        ("splits_final.json", "{}", "splits_final.json holds dict; expected a list"),
        ("splits_final.json", '[{"train": ["case00"]}]', "fold 0 is not an object with train and val"),
        ("splits_final.json", '[["case00"], ["case01"]]', "fold 0 is not an object with train and val"),
        ("dataset.json", "[]", "dataset.json holds list; expected an object"),
        ("dataset.json", "{}", "dataset.json has no labels; expected an object of names"),
        ("dataset.json", '{"labels": ["a"]}', "dataset.json: labels is .* expected an object of names"),
        ("dataset.json", '{"labels": {"a": 1}}', "dataset.json has labels that nnU-Net cannot use: Background"),
        ("nnUNetPlans.json", "null", "nnUNetPlans.json"),
        ("nnUNetPlans.json", "{}", "nnUNetPlans.json has no configurations"),
        (
            "nnUNetPlans.json",
            '{"configurations": {"2d": {}}}',
            "nnUNetPlans.json does not describe the configuration 2d",
        ),
    ],
)
def test_json_of_another_shape_is_named(file, content, message, dataset):
    (dataset / file).write_text(content)
    with pytest.raises(GuidinoError, match=message):
        ask(planned.DATASET)


def test_a_folder_without_cases_is_named(dataset):
    for path in (dataset / "x").iterdir():
        path.unlink()
    with pytest.raises(GuidinoError, match="x has no cases as nnU-Net preprocesses them"):
        ask(planned.DATASET)


def test_names_with_dollars_are_no_formulas(tmp_path):
    write_results([Result(64, 1, [0.5], 1.0)], "a $5 and a $6", tmp_path)
    assert (tmp_path / "probe.png").stat().st_size > 0


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GuidinoError, match="file cannot be written"):
        write_results([Result(64, 1, [0.5], 1.0)], "title", tmp_path / "file")


def test_a_disk_that_is_too_small_is_named(dataset, tiny_encoder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(GuidinoError, match="has 0.0 GB free, and the tokens need .*: set TMPDIR"):
        list(ask(planned.DATASET, encoder=str(tiny_encoder("dinov2")), layers=[1], sizes=[32], steps=2))


def test_the_function_returns_all_results(dataset, tiny_encoder):
    results = list(ask(planned.DATASET, encoder=str(tiny_encoder("dinov2")), layers=[1], sizes=[32, 64], steps=2))
    assert [(result.size, result.layer) for result in results] == [(32, 1), (64, 1)]
    undefined = Result(64, 1, [float("nan")], 1.0)
    assert best([undefined, *results]) in results


def test_cases_that_are_not_preprocessed_are_named(dataset, tiny_encoder, capsys):
    for path in (dataset / "x").glob("case03*"):
        path.unlink()
    assert probe(tiny_encoder("dinov2")) == 1
    assert "lacks 1 cases of fold 0, case03 for one" in capsys.readouterr().err
