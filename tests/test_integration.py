"""All that nnU-Net does, guided, through its own commands: volumes, cascade, regions, ignore label, ensembles.

Four data sets from the hippocampus of the Medical Segmentation Decathlon, as in nnU-Net's own integration tests. The
short form trains tiny networks for a moment, and each data set in some of the configurations. All of them, with planned
networks and the real DINOv2:

    GUIDINO_FULL_INTEGRATION=1 .venv/bin/pytest tests/test_integration.py
"""

import json
import os
import shutil
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hippocampus import VARIANTS, Variant, case_names, write_hippocampus
from nnunet_workspace import TINY_PLANS, Workspace

pytestmark = pytest.mark.slow

FULL = os.environ.get("GUIDINO_FULL_INTEGRATION") == "1"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
LABELS, REGIONS, LABELS_IGNORE, REGIONS_IGNORE = VARIANTS
TRAINED: dict[Variant, tuple[str, ...]] = {
    LABELS: CONFIGURATIONS,
    REGIONS: CONFIGURATIONS if FULL else ("3d_fullres",),
    LABELS_IGNORE: CONFIGURATIONS if FULL else ("2d",),
    REGIONS_IGNORE: CONFIGURATIONS if FULL else ("3d_lowres", "3d_cascade_fullres"),
}
CASES = 28 if FULL else 4  # besides the two that are predicted
LENGTH = "_5epochs_10iterations_seed0" if FULL else "_1epochs_2iterations_seed0"
GUIDED, PLAIN = f"nnUNetTrainerGuiDINO{LENGTH}", f"nnUNetTrainerGuiDINOBaseline{LENGTH}"
GUIDE = {"min_input_size": 112} if FULL else {"min_input_size": 32, "prototypes": 16}


class Trained(NamedTuple):
    workspace: Workspace
    test_cases: list[str]

    def model(self, variant: Variant, configuration: str, trainer: str = GUIDED) -> Path:
        return self.workspace.results / variant.dataset / f"{trainer}__{TINY_PLANS}__{configuration}"

    def images(self, variant: Variant) -> Path:
        return self.workspace.raw / variant.dataset / "imagesTs"

    def predict(
        self, variant: Variant, configuration: str, output: Path, *options: object, folds: tuple[object, ...] = (0,)
    ) -> Path:
        where = ("-d", variant.number, "-c", configuration, "-tr", GUIDED, "-p", TINY_PLANS, "-f", *folds)
        data = ("-i", self.images(variant), "-o", output)
        self.workspace.run("nnUNetv2_predict", *data, *where, "-device", "cpu", "-npp", 0, "-nps", 0, *options)
        return output

    def check(self, folder: Path, variant: Variant) -> None:
        """Every test case has a segmentation on its image's grid, of labels of the data set."""
        assert sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz")) == self.test_cases
        for case in self.test_cases:
            segmentation = sitk.ReadImage(folder / f"{case}.nii.gz")
            image = sitk.ReadImage(self.images(variant) / f"{case}_0000.nii.gz")
            assert segmentation.GetSize() == image.GetSize()
            assert set(np.unique(sitk.GetArrayViewFromImage(segmentation))) <= {0, 1, 2}


def add_configurations(plans: dict, variant: Variant) -> None:
    """A lowres and a cascade configuration, which nnU-Net plans for large images only; in short, narrow networks.

    Patches of REGIONS are flat, so that nnU-Net augments them in two dimensions.
    """
    plans["plans_name"] = TINY_PLANS
    plans["guidino"] = GUIDE
    configurations = plans["configurations"]
    if variant is REGIONS:
        plans["guidino"] = GUIDE | {"guides": "classes", "slice_stride": 3}
        configurations["3d_fullres"]["patch_size"] = [8, 56, 40]
    for name in ("2d", "3d_fullres"):
        architecture = configurations[name]["architecture"]["arch_kwargs"]
        if not FULL:
            architecture["features_per_stage"] = [4 * 2**i for i in range(architecture["n_stages"])]
            configurations[name]["batch_size"] = 2
    lowres = deepcopy(configurations["3d_fullres"])
    depth = 3
    architecture = lowres["architecture"]["arch_kwargs"]
    for per_stage in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        architecture[per_stage] = architecture[per_stage][:depth]
    architecture["n_conv_per_stage_decoder"] = architecture["n_conv_per_stage_decoder"][: depth - 1]
    architecture["n_stages"] = depth
    spacing = [2.0, 2.0, 2.0]
    size = [n / 2 for n in lowres["median_image_size_in_voxels"]]
    lowres |= {"data_identifier": f"{TINY_PLANS}_3d_lowres", "patch_size": [20, 28, 20], "spacing": spacing}
    lowres |= {"median_image_size_in_voxels": size, "next_stage": "3d_cascade_fullres"}
    configurations["3d_lowres"] = lowres
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, real_data, tiny_encoder, dinov2_small) -> Trained:
    """All models of TRAINED on fold 0, and two plain ones."""
    source = real_data("hippocampus")
    workspace = Workspace(tmp_path_factory.mktemp("hippocampus"))
    workspace.environment["GUIDINO_ENCODER"] = str(dinov2_small if FULL else tiny_encoder("dinov3"))
    workspace.environment["nnUNet_compile"] = "f"
    training, test = case_names(source)[2 : CASES + 2], case_names(source)[:2]
    numbers = [variant.number for variant in VARIANTS]
    for variant in VARIANTS:
        write_hippocampus(source, workspace.raw, variant, training, test)
    planned = ("-c", "2d", "3d_fullres", "-npfp", 1, "-np", 1, "--verify_dataset_integrity")
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", *numbers, *planned)
    for variant in VARIANTS:
        folder = workspace.preprocessed / variant.dataset
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        add_configurations(plans, variant)
        (folder / f"{TINY_PLANS}.json").write_text(json.dumps(plans))
        halves = training[::2], training[1::2]
        split = [{"train": halves[0], "val": halves[1]}, {"train": halves[1], "val": halves[0]}]
        (folder / "splits_final.json").write_text(json.dumps(split))
    workspace.run("nnUNetv2_preprocess", "-d", *numbers, "-plans_name", TINY_PLANS, "-c", "3d_lowres", "-np", 1)
    for variant, configurations in TRAINED.items():
        for configuration in configurations:
            # The next stage of a cascade needs this one's validation of all cases.
            for fold in (0, 1) if configuration == "3d_lowres" else (0,):
                where = {"dataset": variant.number, "configuration": configuration, "fold": fold}
                log = workspace.train(GUIDED, "--npz", **where)
                assert "guide_progress.png could not" not in log
                assert "Guide Dice " in log
                assert f"do_dummy_2d_data_aug: {variant is REGIONS and configuration == '3d_fullres'}" in log
    for configuration in ("2d", "3d_fullres"):
        workspace.train(PLAIN, "--npz", dataset=LABELS.number, configuration=configuration)
    return Trained(workspace, test)


@pytest.mark.parametrize(
    ("variant", "configuration"),
    [(variant, configuration) for variant, several in TRAINED.items() for configuration in several],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_every_configuration_trains_and_validates(variant, configuration, trained):
    fold = trained.model(variant, configuration) / "fold_0"
    assert (fold / "guide_progress.png").is_file()
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == CASES // 2
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert np.isfinite(checkpoint["logging"]["train_losses"]).all()
    assert np.isfinite(checkpoint["logging"]["train_boundary_loss"]).all()


def test_best_configuration_ensemble_and_postprocessing_of_guided_and_plain(trained, tmp_path):
    workspace = trained.workspace
    both = ("-tr", GUIDED, PLAIN, "-p", TINY_PLANS, "-f", 0, "-np", 1)
    workspace.run("nnUNetv2_find_best_configuration", LABELS.number, "-c", "2d", "3d_fullres", *both)
    stages = ("-c", *CONFIGURATIONS, "-tr", GUIDED, "-p", TINY_PLANS, "-f", 0, "-np", 1)
    workspace.run("nnUNetv2_find_best_configuration", LABELS.number, *stages)
    information = json.loads((workspace.results / LABELS.dataset / "inference_information.json").read_text())
    assert any("ensemble" in name for name in information["all_results"])

    folders = [
        trained.predict(LABELS, configuration, tmp_path / configuration, "--save_probabilities")
        for configuration in ("2d", "3d_fullres")
    ]
    workspace.run("nnUNetv2_ensemble", "-i", *folders, "-o", tmp_path / "ensemble", "-np", 1)
    trained.check(tmp_path / "ensemble", LABELS)
    model = trained.model(LABELS, "3d_fullres")
    postprocessing = information["best_model_or_ensemble"]["postprocessing_file"]
    workspace.run(
        *("nnUNetv2_apply_postprocessing", "-i", tmp_path / "ensemble", "-o", tmp_path / "final", "-np", 1),
        *("-pp_pkl_file", postprocessing, "-plans_json", model / "plans.json"),
        *("-dataset_json", model / "dataset.json"),
    )
    trained.check(tmp_path / "final", LABELS)


@pytest.mark.parametrize("variant", [LABELS, REGIONS_IGNORE], ids=lambda variant: variant.name)
def test_cascade_predicts_with_and_without_given_previous_stage(variant, trained, tmp_path):
    lowres = trained.predict(variant, "3d_lowres", tmp_path / "lowres", "--disable_tta")
    given = trained.predict(
        variant, "3d_cascade_fullres", tmp_path / "given", "-prev_stage_predictions", lowres, "--disable_tta"
    )
    trained.check(lowres, variant)
    trained.check(given, variant)


@pytest.mark.parametrize(("variant", "configuration"), [(REGIONS, "3d_fullres"), (LABELS_IGNORE, "2d")])
def test_regions_and_the_ignore_label_predict(variant, configuration, trained, tmp_path):
    trained.check(trained.predict(variant, configuration, tmp_path / "out"), variant)


def test_several_folds_and_all_of_them(trained, tmp_path):
    """With Weights & Biases, which nnU-Net logs to when its variable asks for it."""
    workspace = trained.workspace
    weights_and_biases = {"nnUNet_wandb_enabled": "1", "nnUNet_wandb_mode": "offline"}
    workspace.train(GUIDED, dataset=LABELS.number, configuration="2d", fold=1, **weights_and_biases)
    (run,) = (trained.model(LABELS, "2d") / "fold_1").glob("wandb/offline-run-*/run-*.wandb")
    assert all(name in run.read_bytes() for name in (b"guide_dice", b"train_boundary_loss", b"ema_fg_dice"))
    workspace.train(GUIDED, dataset=LABELS.number, configuration="2d", fold="all")

    quick = ("-step_size", 1, "--disable_tta")
    output = trained.predict(LABELS, "2d", tmp_path / "both", *quick, folds=(0, 1))
    trained.check(output, LABELS)
    (output / f"{trained.test_cases[0]}.nii.gz").unlink()
    kept = output / f"{trained.test_cases[1]}.nii.gz"
    before = kept.stat().st_mtime_ns
    trained.predict(LABELS, "2d", output, *quick, "--continue_prediction", folds=(0, 1))
    trained.check(output, LABELS)
    assert kept.stat().st_mtime_ns == before
    trained.check(trained.predict(LABELS, "2d", tmp_path / "all", *quick, folds=("all",)), LABELS)
    both_folds = ("-c", "2d", "-tr", GUIDED, "-p", TINY_PLANS, "-f", 0, 1, "-o", tmp_path / "crossval")
    workspace.run("nnUNetv2_accumulate_crossval_results", LABELS.number, *both_folds)
    assert len(list((tmp_path / "crossval").glob("*.nii.gz"))) == CASES


@pytest.mark.parametrize("pretrained", [PLAIN, GUIDED])
def test_training_starts_from_pretrained_weights(pretrained, trained):
    start = trained.model(LABELS, "3d_fullres", pretrained) / "fold_0" / "checkpoint_final.pth"
    trainer = f"nnUNetTrainerGuiDINO_1epochs_1iterations_seed{1 + (pretrained == PLAIN)}"
    where = {"dataset": LABELS.number, "configuration": "3d_fullres"}
    log = trained.workspace.train(trainer, "-pretrained_weights", start, **where)
    assert "Loading pretrained weights" in log
    assert "Mean Validation Dice" in log


def test_predictor_from_python_says_what_the_command_says(trained, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    command = trained.predict(REGIONS, "3d_fullres", tmp_path / "command")
    model = shutil.copytree(trained.model(REGIONS, "3d_fullres"), tmp_path / "model")
    monkeypatch.setenv("GUIDINO_ENCODER", "/gone")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    for case in trained.test_cases:
        image = trained.images(REGIONS) / f"{case}_0000.nii.gz"
        data, properties = predictor.plans_manager.image_reader_writer_class().read_images([str(image)])
        ours = predictor.predict_single_npy_array(data, properties)
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(command / f"{case}.nii.gz"))
        assert (ours == theirs).mean() > 0.999  # the number of threads rounds differently
