"""A small training to examine: the real trainer with random weights on made-up plans and images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.training.naming import trainer_class
from nnunetv2_guidino.training.seeding import environment_variable

ENCODER = "facebook/dinov3-vits16-pretrain-lvd1689m"
DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "disc": 1}, "file_ending": ".png",
}  # fmt: skip
GUIDED, PLAIN = "nnUNetTrainerGuiDINO_seed0", "nnUNetTrainerGuiDINOBaseline_seed0"


@dataclass(frozen=True)
class Rehearsal:
    """What is trained; nnU-Net's variables must name folders to write into.

    Args:
        device: Where.
        patch_size: Of two or three sides.
        batch_size: Patches.
        steps: Training steps of an epoch.
        guide: Settings of the guide.
        features: Channels of the planned network's first stage.
        encoder_config: The encoder's architecture.
    """

    device: torch.device
    patch_size: tuple[int, ...] = (256, 256)
    batch_size: int = 4
    steps: int = 20
    guide: dict[str, Any] = field(default_factory=dict)
    features: int = 32
    encoder_config: dict[str, Any] = field(default_factory=lambda: KNOWN_ENCODERS[ENCODER].architecture)

    @property
    def configuration(self) -> str:
        """The plans' one configuration."""
        return "2d" if len(self.patch_size) == 2 else "3d_fullres"

    def plans(self) -> dict[str, Any]:
        """Plans as nnU-Net's planner writes them for images of this size."""
        dimensions = len(self.patch_size)
        _, strides, kernels, _, _ = get_pool_and_conv_props([1.0] * dimensions, self.patch_size, 4, 999999)
        stages, most = len(strides), 512 if dimensions == 2 else 320
        network = {
            "n_stages": stages,
            "features_per_stage": [min(most, self.features * 2**stage) for stage in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        configuration = {
            "data_identifier": "made_up",
            "batch_dice": True,
            "batch_size": self.batch_size,
            "patch_size": list(self.patch_size),
            "spacing": [1.0] * dimensions,
            "normalization_schemes": ["ZScoreNormalization"] * 3,
            "use_mask_for_norm": [False] * 3,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": network,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
        return {
            "dataset_name": "Dataset999_Rehearsal",
            "plans_name": "nnUNetPlans",
            "label_manager": "LabelManager",
            "guidino": {"encoder": ENCODER, **self.guide},
            "configurations": {self.configuration: configuration},
        }

    def trainer(self, device: torch.device | None = None, compiled: bool = False, name: str = GUIDED) -> Any:
        """An initialized trainer; all of one name start with the same weights.

        Args:
            device: Another one than that of the rehearsal.
            compiled: On a GPU as nnU-Net compiles; a CPU, on which it does not, traces without generating code.
            name: GUIDED or PLAIN.
        """
        device = device or self.device
        with environment_variable("nnUNet_compile", "t" if compiled else "f"), redirect_stdout(StringIO()):
            trainer: Any = trainer_class(name)(
                {**self.plans(), "continue_training": False}, self.configuration, 0, DATASET_JSON, device
            )
            _mark_file_format(Path(trainer.preprocessed_dataset_folder))
            if name == GUIDED:
                trainer.resumed_guide = replace(trainer.guide_config, encoder_config=self.encoder_config, classes=1)
            trainer.initialize()
        if compiled and device.type == "cpu":
            recompile(trainer, "aot_eager")
        trainer.network.train()
        return trainer

    def batch(self, trainer: Any) -> dict[str, Any]:
        """Noisy discs, the same ones whenever asked."""
        generator = torch.Generator().manual_seed(0)
        axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in self.patch_size], indexing="ij")
        disc = (torch.stack(axes).square().sum(0) < 0.3).float().expand(trainer.batch_size, 1, *self.patch_size)
        noise = torch.randn(trainer.batch_size, 3, *self.patch_size, generator=generator)
        scales = trainer._get_deep_supervision_scales()
        sizes = [[round(s * by) for s, by in zip(self.patch_size, scale, strict=True)] for scale in scales]
        return {"data": 2 * disc + noise / 2, "target": [F.interpolate(disc, size=size) for size in sizes]}


def _mark_file_format(folder: Path) -> None:
    """Write an empty case, by which nnU-Net tells the format of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.b2nd").touch()


def recompile(trainer: Any, backend: str | Callable[..., Any]) -> None:
    """Compile the trainer's network with this backend in place of whatever compiled it."""
    trainer.network = torch.compile(trainer.bare_network(), backend=backend)


def epoch(trainer: Any, batch: dict[str, Any], steps: int) -> list[float]:
    """An epoch of the trainer's own methods with two validation steps; the losses of its training steps."""
    with redirect_stdout(StringIO()):
        trainer.on_train_epoch_start()
        outputs = [trainer.train_step(batch) for _ in range(steps)]
        trainer.on_train_epoch_end(outputs)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(batch) for _ in range(2)])
    trainer.current_epoch += 1
    return [float(output["loss"]) for output in outputs]
