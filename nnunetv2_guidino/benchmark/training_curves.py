"""Losses and Dice of each epoch, from the logs that nnU-Net writes."""

from __future__ import annotations

import re

import pandas as pd

from nnunetv2_guidino.benchmark.job import Job

_LOGGED = re.compile(r": (Epoch(?! time)|train_loss|val_loss|Pseudo dice|Guide Dice) (.*?)\s*$")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan")


def training_curve(job: Job) -> pd.DataFrame:
    """One row for each epoch; of an epoch that was trained twice, the later."""
    epochs: dict[int, dict[str, object]] = {}
    for file in sorted(job.folder.glob("training_log_*.txt")):
        epoch: dict[str, object] = {}
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if not (found := _LOGGED.search(line)):
                continue
            numbers = [float(number) for number in _NUMBER.findall(re.sub(r"np\.float\d+", "", found[2]))]
            if found[1] == "Epoch" and len(numbers) == 1:
                epoch = epochs.setdefault(int(numbers[0]), {})
            elif numbers:
                epoch[found[1].lower().replace(" ", "_")] = sum(numbers) / len(numbers)
    return pd.DataFrame([{"epoch": number} | epochs[number] for number in sorted(epochs)])
