"""One training: nnU-Net's command and the folder it fills."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A training of one method on one fold with one seed.

    Args:
        dataset: nnU-Net's whole name, Dataset501_KvasirSEG.
        configuration: Such as 2d.
        method: What the matrix calls it.
        plans: Name of the plans.
        trainer: Whole name, with length, cases and seed.
        fold: A number, or all.
        seed: None: the trainer has none.
        cases: Of the fold's training cases, how many are used; None: all.
        results: nnUNet_results.
        device: As nnU-Net's -device takes it.
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
        """Where nnU-Net puts the model, all folds of it."""
        return self.results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def folder(self) -> Path:
        """Where nnU-Net puts this fold of it."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def log(self) -> Path:
        """Everything that the command prints, of all starts."""
        return self.folder / "guidino_benchmark.log"

    @property
    def label(self) -> str:
        """What tells it from the others, in words."""
        parts = [self.dataset, self.configuration, self.method, f"fold {self.fold}"]
        parts += [f"{self.cases} cases"] if self.cases else []
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        return " ".join(parts)

    @property
    def kind(self) -> tuple[str, str, str]:
        """Jobs of one kind take about the same time."""
        return self.dataset, self.configuration, self.method

    def command(self, *options: str) -> list[str]:
        """nnU-Net's command."""
        where = [self.dataset, self.configuration, self.fold, "-tr", self.trainer, "-p", self.plans]
        return ["nnUNetv2_train", *where, "-device", self.device, *options]
