from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from PIL import Image
from torch import nn

from nnunetv2_guidino.training import progress as progress_module
from nnunetv2_guidino.training.logging import GuideLog
from nnunetv2_guidino.training.progress import GuideProgress, fixed_patches, prototypes_in_use, reported, stages

PATCH = (32, 48)
HISTORY = {
    f"{part}_{term}_loss": [1.0, 0.5]
    for part in ("train", "val")
    for term in ("seg", "guide", "guide_dice", "boundary")
} | {
    "guide_dice": [float("nan"), 0.4],
    "mean_fg_dice": [0.1, 0.5],
    "prototypes_in_use": [8.0, 7.5],
}


class Preprocessed:
    """A data set like nnU-Net's: a name -> data (C, D, H, W), labels (1, D, H, W), …"""

    def __init__(self, cases):
        self.cases = cases
        self.identifiers = list(cases)

    def load_case(self, name):
        labels = self.cases[name]
        return np.stack([labels[0], -labels[0], np.ones_like(labels[0])]), labels, None, {}


def case(shape, foreground, label=1) -> np.ndarray:
    labels = np.full((1, *shape), -1)
    labels[(0, *foreground)] = label
    return labels


@pytest.mark.parametrize(
    ("shape", "foreground"),
    [
        ((1, 100, 100), (0, slice(90, 100), slice(0, 5))),  # at the border
        ((1, 20, 30), (0, slice(5, 9), slice(5, 9))),  # an image smaller than the patch
        ((1, 20, 100), (0, slice(5, 9), slice(95, 100))),
        ((7, 64, 64), (3, slice(20, 30), slice(20, 30))),  # a volume
        ((1, 64, 64), (0, slice(0), slice(0))),  # no foreground
    ],
)
def test_patches_hold_the_foreground_whole(shape, foreground):
    labels = case(shape, foreground)
    images, masks = fixed_patches(Preprocessed({"a": labels}), PATCH, [1])
    assert images.shape == (1, 3, *PATCH)
    assert masks.shape == (1, *PATCH)
    assert masks.sum() == (labels == 1).sum()
    np.testing.assert_array_equal(images[0, 0] == 1, masks[0])


def test_the_same_patches_every_time_and_no_random_number():
    dataset = Preprocessed(
        {f"case{i}": case((1, 64, 64), (0, slice(i, i + 9), slice(30)), 1 + i % 2) for i in range(9)}
    )
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    images, masks = fixed_patches(dataset, PATCH, [1])
    again, _ = fixed_patches(dataset, PATCH, [1])
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    np.testing.assert_array_equal(images, again)
    assert [bool(mask.any()) for mask in masks] == [
        True,
        True,
        False,
        True,
    ]  # cases 0, 2, 5, 8: label 2 is no foreground


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [0, 1]), (5, [0, 1, 2, 3, 4, 5]), (1000, [0, 1, 3, 7, 19, 52, 139, 373, 1000])],
)
def test_stages_are_denser_in_the_beginning(epochs, expected):
    assert stages(epochs) == expected


def test_prototypes_in_use():
    assert prototypes_in_use(torch.full((1, 8), 1 / 8)) == pytest.approx(8)
    assert prototypes_in_use(torch.tensor([[1.0, 0, 0]])) == pytest.approx(1, abs=1e-4)
    assert prototypes_in_use(torch.tensor([[1.0, 0], [0.5, 0.5]])) == pytest.approx(1.5, abs=1e-4)
    assert np.isnan(prototypes_in_use(torch.full((1, 3), float("nan"))))  # a training that diverged goes on


class Network(nn.Module):
    """A network whose guide is one level everywhere, with dropout."""

    def __init__(self, level: float):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))
        self.dropout = nn.Dropout()

    def guide(self, patch):
        return self.level * self.dropout(torch.ones_like(patch[:, :1, ::8, ::8]))


@pytest.mark.parametrize(
    ("settings", "labels", "foreground"),
    [
        ({}, {"background": 0, "a": 1, "b": 2}, [1, 2]),
        ({}, {"background": 0, "a": 1, "ignore": 2}, [1]),
        ({"regions_class_order": [1, 3]}, {"background": 0, "whole": [1, 3], "inside": 3}, [1, 3]),
        ({"regions_class_order": [1, 2]}, {"background": 0, "whole": [1, 2], "inside": 2, "ignore": 3}, [1, 2]),
        ({"previous_stage": "3d_lowres"}, {"background": 0, "a": 1, "b": 2}, [1, 2]),
    ],
    ids=["labels", "ignore", "regions", "regions, ignore", "cascade"],
)
@pytest.mark.parametrize("guides", ["foreground", "classes"])
def test_a_training_on_volumes_records_the_guide_of_slices(
    guides, settings, labels, foreground, planned_trainer, monkeypatch
):
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: self.initialize())
    options = {"guide": {"guides": guides}, "labels": labels, "patch_size": (8, 32, 48), **settings}
    trainer, log = planned_trainer("nnUNetTrainerGuiDINO", **options), []
    monkeypatch.setattr(trainer, "print_to_log_file", lambda *words: log.append(" ".join(map(str, words))))
    volume = case((9, 64, 64), (slice(2, 7), slice(20, 30), slice(20, 30)), foreground[0])
    volume[0, 4, 25:40, 20:30] = foreground[-1]
    volume[0, 8] = max(foreground) + 1  # ignored, or nothing that is known
    trainer.validation_dataset = Preprocessed({"a": volume})
    trainer.on_train_start()
    assert not [line for line in log if "guide_progress" in line]
    recorded = trainer.guide_progress
    assert recorded.images.shape == (1, 3, 32, 48)
    assert recorded.masks.sum() == 20 * 10  # slice 4 has most of it
    with torch.no_grad():
        guide = trainer.network.guide(torch.from_numpy(recorded.images).float())
    assert recorded.guides[0].mean() / 255 == pytest.approx(float(guide.mean()), abs=0.02)
    recorded.draw(HISTORY, prototypes=8)
    assert (Path(trainer.output_folder) / "guide_progress.png").is_file()


def progress(folder, finished, patch=PATCH) -> GuideProgress:
    masks = np.zeros((2, *patch), bool)
    masks[:, 8:16, 8:16] = True
    images = np.random.default_rng(0).normal(size=(2, 3, *patch)).astype(np.float32)
    return GuideProgress(folder, images, masks, epochs=5, finished=finished)


def test_a_resumed_training_keeps_what_it_had_recorded_and_no_more(tmp_path):
    first = progress(tmp_path, 0)
    for finished in range(4):
        first.record(Network(finished / 5), finished)
    resumed = progress(tmp_path, 2)  # killed after 3 epochs, the checkpoint is of 2
    resumed.record(Network(1.0), 2)  # is there already
    resumed.record(Network(0.6), 3)
    assert {n: int(guide.max()) for n, guide in resumed.guides.items()} == {0: 0, 1: 51, 2: 102, 3: 153}
    assert progress(tmp_path, 0).guides == {}  # a new training
    assert progress(tmp_path, 3, patch=(64, 48)).guides == {}  # other plans


def test_recording_leaves_the_network_and_random_numbers_alone(tmp_path):
    network, before = Network(0.5).train(), torch.get_rng_state()
    recorder = progress(tmp_path, 0)
    recorder.record(network, 0)
    assert network.training
    assert network.level.grad is None
    assert torch.equal(torch.get_rng_state(), before)
    assert np.all(recorder.guides[0] == 128)


def test_epochs_between_two_stages_are_drawn_at_most_once_a_minute(planned_trainer, monkeypatch, tmp_path):
    """nnU-Net's epochs on a GPU may take ten seconds, and a picture one or two of them."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: self.initialize())
    clock, drawn = [0.0], []

    def next_epoch(trainer):
        trainer.current_epoch += 1

    monkeypatch.setattr(GuideLog, "end_epoch", lambda *_: None)
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", next_epoch)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])

    def save(figure, file, **_):
        drawn.append(trainer.current_epoch)
        Path(file).touch()

    monkeypatch.setattr(Figure, "savefig", save)
    trainer = planned_trainer("nnUNetTrainerGuiDINO_100epochs")
    trainer.validation_dataset = Preprocessed({"a": case((1, 64, 64), (0, slice(5, 25), slice(30)))})
    trainer.on_train_start()
    monkeypatch.setattr(trainer.logger, "get_checkpoint", lambda: HISTORY)
    for _ in range(100):
        clock[0] += 10
        trainer.on_epoch_end()
    # the stages, and what is a minute behind the last picture
    assert drawn == [1, 2, 4, 7, 13, 14, 20, 26, 27, 33, 39, 45, 51, 52, 58, 64, 70, 76, 82, 88, 94, 100]


@pytest.mark.parametrize("without", ["", "guide", "boundary"])
def test_the_picture(without, tmp_path):
    recorder = progress(tmp_path, 0)
    history = {name: values for name, values in HISTORY.items() if not without or f"_{without}_" not in name}
    recorder.record(Network(0.0), 0)
    recorder.draw(history, prototypes=8)
    before = np.asarray(Image.open(tmp_path / "guide_progress.png").convert("RGB"))
    recorder.record(Network(1.0), 1)
    recorder.draw(history, prototypes=8)
    after = np.asarray(Image.open(tmp_path / "guide_progress.png").convert("RGB"))
    brightest = [252, 255, 164]  # of the colour map: the guide is 1 there
    shown = [np.isclose(picture, brightest, atol=2).all(-1).sum() for picture in (before, after)]
    assert shown[0] == 0
    assert shown[1] > 1000
    assert {file.name for file in tmp_path.iterdir()} == {"guide_progress.png", "guide_progress.npz"}


def test_a_failure_is_told_in_the_log_and_leaves_the_last_picture(tmp_path):
    recorder, log = progress(tmp_path, 0), []
    recorder.record(Network(0.5), 0)
    recorder.draw(HISTORY, prototypes=8)
    good = (tmp_path / "guide_progress.png").read_bytes()
    with reported(log.append):
        recorder.draw({}, prototypes=8)
    assert len(log) == 1
    assert "KeyError: 'guide_dice'" in log[0]
    assert (tmp_path / "guide_progress.png").read_bytes() == good


def test_a_training_whose_pictures_fail_goes_on(planned_trainer, monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: self.initialize())
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", lambda self: None)
    trainer, log = planned_trainer("nnUNetTrainerGuiDINO"), []
    monkeypatch.setattr(trainer, "print_to_log_file", lambda *words: log.append(" ".join(map(str, words))))
    trainer.validation_dataset = Preprocessed({})
    trainer.on_train_start()
    assert "guide_progress.png could not be brought up to date" in log[-1]
    for name in ("train_seg_loss", "train_guide_loss", "train_guide_dice_loss", "train_boundary_loss", "guide_dice"):
        trainer.logger.log(name, 0.5, 0)
        trainer.logger.log(name.replace("train", "val"), 0.5, 0)
    trainer.on_epoch_end()
    assert trainer.logger.get_value("prototypes_in_use", -1) == pytest.approx(8)
