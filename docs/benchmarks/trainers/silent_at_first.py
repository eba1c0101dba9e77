"""Trainers whose guide says nothing during the first third of a training: what does a guide do that learns late?

With nnUNet_extTrainer=docs/benchmarks/trainers, `-tr SilentAtFirst_9epochs_40iterations_seed0` is
nnUNetTrainerGuiDINO_9epochs_40iterations_seed0 with a guide of zero at every gate until the fourth epoch. The guide's
own loss trains it meanwhile. On the data and plans of no_harm.yaml:

    export nnUNet_extTrainer=docs/benchmarks/trainers
    tr=SilentAtFirst_3epochs_300iterations_seed
    for seed in 0 1 2; do nnUNetv2_train 504 2d 0 -tr $tr$seed -p nnUNetPlansQuarter -device cpu; done
"""

from typing import Any

import torch

from nnunetv2_guidino.training.naming import trainer_class

NAME = "SilentAtFirst"


def silent_at_first(base: Any, name: str) -> type:
    """The trainer `base` with a guide that is silent at first."""

    class Silent(base):
        def on_train_start(self) -> None:
            super().on_train_start()
            self.silence = self.bare_network().gate_at.register_forward_pre_hook(
                lambda _, arguments: (*arguments[:2], torch.zeros_like(arguments[2]))
            )

        def on_epoch_start(self) -> None:
            super().on_epoch_start()
            if 3 * self.current_epoch >= self.num_epochs:
                self.silence.remove()

        def on_train_end(self) -> None:
            self.silence.remove()
            super().on_train_end()

    Silent.__name__ = Silent.__qualname__ = name
    return Silent


def __getattr__(name: str) -> type:
    if name.startswith(NAME):
        return silent_at_first(trainer_class(name.replace(NAME, "nnUNetTrainerGuiDINO", 1)), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
