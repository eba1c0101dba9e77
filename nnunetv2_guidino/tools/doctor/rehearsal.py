"""Trainings and predictions by the real trainers and nnU-Net's predictor, on made-up plans and images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.model.encoders.token_encoder import TOKENS_AT_ONCE
from nnunetv2_guidino.nnunet.folders import VARIABLES
from nnunetv2_guidino.training.naming import trainer_class
from nnunetv2_guidino.training.seeding import environment_variable

FOLDS = 5
ENCODER = "facebook/dinov3-vits16-pretrain-lvd1689m"
DATASET_JSON = {
    "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "disc": 1}, "file_ending": ".png",
}  # fmt: skip
LORA = {"lora": {"dropout": 0.0}}
GUIDED, PLAIN = "nnUNetTrainerGuiDINO_seed0", "nnUNetTrainerGuiDINOBaseline_seed0"


@dataclass(frozen=True)
class Rehearsal:
    """A small training; nnU-Net's variables must name folders to write into.

    Args:
        device: The device of the training.
        patch_size: (H, W) or (D, H, W).
        batch_size: Patches in a batch.
        steps: Training steps in an epoch.
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
        """The name of the plans' one configuration."""
        return "2d" if len(self.patch_size) == 2 else "3d_fullres"

    def plans(self) -> dict[str, Any]:
        """Return plans as nnU-Net's planner writes them for images of this size."""
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
        """Return an initialized trainer; all trainers of one name start with the same weights.

        Args:
            device: The default is the rehearsal's device.
            compiled: Compile the network. On a GPU nnU-Net does; on a CPU it does not, and the network is traced here
                without code being generated.
            name: GUIDED or PLAIN.
        """
        device = device or self.device
        with environment_variable("nnUNet_compile", "t" if compiled else "f"):
            trainer = initialized_trainer(
                name, self.plans(), self.configuration, DATASET_JSON, device, lambda guide: self.encoder_config
            )
        if compiled and device.type == "cpu":
            recompile(trainer, "aot_eager")
        return trainer

    def batch(self, trainer: Any) -> dict[str, Any]:
        """Return images of noisy discs; each call returns the same images."""
        generator = torch.Generator().manual_seed(0)
        axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in self.patch_size], indexing="ij")
        disc = (torch.stack(axes).square().sum(0) < 0.3).float().expand(trainer.batch_size, 1, *self.patch_size)
        noise = torch.randn(trainer.batch_size, 3, *self.patch_size, generator=generator)
        scales = trainer._get_deep_supervision_scales()
        sizes = [[round(s * by) for s, by in zip(self.patch_size, scale, strict=True)] for scale in scales]
        return {"data": 2 * disc + noise / 2, "target": [F.interpolate(disc, size=size) for size in sizes]}


def rehearsal_on(device: torch.device) -> Rehearsal:
    """Return a rehearsal of the paper's patch and batch on a GPU, and of a few seconds on a CPU."""
    if device.type == "cuda":
        return Rehearsal(device)
    return Rehearsal(device, (64, 64), batch_size=2, steps=4, guide={"min_input_size": 64})


def volumes_on(device: torch.device) -> Rehearsal:
    """Return a rehearsal of volumes with LoRA, on a GPU with more slices than are encoded at once: two parts."""
    if device.type == "cuda":
        slices = TOKENS_AT_ONCE // 256  # of 256 tokens each; in a batch of two
        return Rehearsal(device, (slices, 128, 128), batch_size=2, steps=5, guide=LORA, features=16)
    return Rehearsal(device, (8, 64, 64), batch_size=2, steps=2, guide={"min_input_size": 64, **LORA}, features=8)


@contextmanager
def temporary_folders() -> Iterator[None]:
    """Let nnU-Net's three variables name temporary folders."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        for variable in VARIABLES:
            stack.enter_context(environment_variable(variable, f"{root}/{variable}"))
        yield


def initialized_trainer(
    name: str,
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    device: torch.device,
    architecture: Callable[[GuideConfig], dict[str, Any] | None],
) -> Any:
    """Return an initialized trainer without data; nnU-Net's variables must name folders to write into.

    Args:
        name: "nnUNetTrainer" or the name of one of our trainers.
        architecture: Returns the architecture of a guide's encoder, which then gets random weights; with None the
            encoder's own weights are loaded.
    """
    with redirect_stdout(StringIO()):
        trainer: Any = (nnUNetTrainer if name == nnUNetTrainer.__name__ else trainer_class(name))(
            {**plans, "continue_training": False}, configuration, 0, dataset_json, device
        )
        folder = Path(trainer.preprocessed_dataset_folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "case.b2nd").touch()  # nnU-Net tells the format of all cases by one
        guide, labels = getattr(trainer, "guide_config", None), trainer.label_manager
        if guide is not None and (encoder_config := architecture(guide)):
            classes = labels.foreground_regions if labels.has_regions else labels.foreground_labels
            trainer.resumed_guide = replace(guide, encoder_config=encoder_config, classes=len(classes))
        trainer.initialize()
    trainer.network.train()
    return trainer


def recompile(trainer: Any, backend: str | Callable[..., Any]) -> None:
    """Compile the trainer's bare network with this backend."""
    trainer.network = torch.compile(trainer.bare_network(), backend=backend)


def epoch(trainer: Any, batch: dict[str, Any], steps: int) -> list[float]:
    """Run an epoch of the trainer's own methods with two validation steps; return the losses of the training steps."""
    with redirect_stdout(StringIO()):
        trainer.on_train_epoch_start()
        outputs = [trainer.train_step(batch) for _ in range(steps)]
        trainer.on_train_epoch_end(outputs)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(batch) for _ in range(2)])
    trainer.current_epoch += 1
    return [float(output["loss"]) for output in outputs]


class Prediction:
    """The predictions of nnUNetv2_predict on preprocessed images of one patch each; each call draws a random image.

    Args:
        trainer: The trainer of the network. Its weights are those of the first fold; each further fold has other
            weights, except those of a frozen encoder.
    """

    def __init__(self, trainer: Any):
        with redirect_stdout(StringIO()):  # nnU-Net tells everyone without a GPU about an option of GPUs
            self.predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
            *_, mirroring_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        network = trainer.build_network_architecture(
            trainer.plans_manager,
            trainer.configuration_manager,
            trainer.num_input_channels,
            trainer.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        trained = trainer.bare_network().state_dict()
        folds = [{name: _of_fold(name, tensor, fold) for name, tensor in trained.items()} for fold in range(FOLDS)]
        network.load_state_dict(folds[0])
        self.predictor.manual_initialization(
            network,
            trainer.plans_manager,
            trainer.configuration_manager,
            folds,
            trainer.dataset_json,
            type(trainer).__name__,
            mirroring_axes,
        )
        patch = trainer.configuration_manager.patch_size
        self.mirrored = 2 ** len(mirroring_axes)
        self.shape = (trainer.num_input_channels, *([1] if len(patch) == 2 else []), *patch)

    def tile(self) -> None:
        """Predict with one pass of the network."""
        self.predictor.use_mirroring = False
        self.predictor.predict_sliding_window_return_logits(torch.rand(self.shape))

    def image(self) -> None:
        """Predict with mirroring."""
        self.predictor.use_mirroring = True
        self.predictor.predict_sliding_window_return_logits(torch.rand(self.shape))

    def folds(self) -> None:
        """Predict with five folds, without mirroring."""
        self.predictor.use_mirroring = False
        self.predictor.predict_logits_from_preprocessed_data(torch.rand(self.shape))


def _of_fold(name: str, tensor: Tensor, fold: int) -> Tensor:
    frozen = name.startswith("token_encoder.vit.") and "lora_" not in name
    if frozen or not tensor.is_floating_point():
        return tensor.to("cpu", copy=True)
    return tensor.cpu() + fold / 100  # LoRA's B is zero before training: a factor would leave all folds equal
