"""Describe a training: nnU-Net's command and the folder that it fills."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A training of one method on one fold with one seed.

    Args:
        dataset: The data set's full name, such as Dataset501_KvasirSEG.
        configuration: The configuration, such as 2d.
        method: The method's name in the matrix.
        plans: The name of the plans.
        trainer: The trainer's full name with length, cases and seed.
        fold: A number, or all.
        seed: The seed; None if the trainer has none.
        cases: The number of training cases; None is all cases of the fold.
        results: The folder nnUNet_results.
        device: The value of nnU-Net's -device.
    """

    dataset: str
    configuration: str
    method: str
    plans: str
    trainer: str
    fold: str
    seed: int | None
    cases: int | None
    results: Path
    device: str

    @property
    def model_folder(self) -> Path:
        """nnU-Net's folder of the model with all its folds."""
        return self.results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def folder(self) -> Path:
        """nnU-Net's folder of this fold."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def log(self) -> Path:
        """The file with the output of all starts of the command."""
        return self.folder / "guidino_benchmark.log"

    @property
    def label(self) -> str:
        """The name that tells it from the other trainings."""
        parts = [self.dataset, self.configuration, self.method, f"fold {self.fold}"]
        parts += [f"{self.cases} cases"] if self.cases else []
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        return " ".join(parts)

    @property
    def kind(self) -> tuple[str, str, str]:
        """The kind of training; trainings of one kind take about the same time."""
        return self.dataset, self.configuration, self.method

    def command(self, *options: str) -> list[str]:
        """Return nnU-Net's command with further options."""
        where = [self.dataset, self.configuration, self.fold, "-tr", self.trainer, "-p", self.plans]
        return ["nnUNetv2_train", *where, "-device", self.device, *options]
