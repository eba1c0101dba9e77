"""nnUNetTrainerGuiDINO trains the planned network with a guide; it overrides nnU-Net's hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.preprocessing.resampling.default_resampling import get_do_separate_z
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig, LoRA
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.lora import parameter_counts
from nnunetv2_guidino.model.encoders.source import find_encoder, versions
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss
from nnunetv2_guidino.model.networks.networks_by_name import check_configuration
from nnunetv2_guidino.nnunet.plans import FILLED_IN
from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline
from nnunetv2_guidino.training.logging import GuideLog
from nnunetv2_guidino.training.optimizers import PAPER_LEARNING_RATE
from nnunetv2_guidino.training.pretrained_part import copy_to_all_gpus
from nnunetv2_guidino.training.progress import GuideProgress, fixed_patches, reported
from nnunetv2_guidino.training.shared_plans import ModelFolder

# nnU-Net calls the static build_network_architecture both to train and to predict, and does not tell it which.
_building_to_train: ContextVar[bool] = ContextVar("_building_to_train", default=False)


@contextmanager
def building_to_train() -> Iterator[None]:
    """Mark networks that are built in this context as networks to train, with or without deep supervision."""
    token = _building_to_train.set(True)
    try:
        yield
    finally:
        _building_to_train.reset(token)


class nnUNetTrainerGuiDINO(nnUNetTrainerGuiDINOBaseline):
    """Train the planned network with the guide of a frozen vision foundation model (GuiDINO, arXiv 2603.01115).

    The section "guidino" of the plans describes the guide (see GuideConfig). Plans without this section get the
    defaults.
    """

    lora: LoRA | None = None  # used if the plans set none; trainer_class sets it from the trainer's name

    resumed_guide: GuideConfig | None = None  # guide of the checkpoint that will bring all weights
    guide_log: GuideLog  # set in initialize
    guide_progress: GuideProgress | None = None  # set in on_train_start
    enable_deep_supervision: bool  # nnU-Net sets it

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's signature
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.guide_config = GuideConfig.from_plans(self.plans_manager.plans)
        self.asked_for = set(self.plans_manager.plans.get(PLANS_KEY, {})) - {*FILLED_IN}
        if self.lora is not None and self.guide_config.lora is None:
            self.guide_config = replace(self.guide_config, lora=self.lora)
            self.asked_for.add("lora")
        if self.guide_config.lora is not None:
            self.initial_lr = PAPER_LEARNING_RATE

    @property
    def model_folder(self) -> ModelFolder:
        """Return the folder with the results of this fold and of the other folds."""
        return ModelFolder(Path(self.output_folder))

    def bare_network(self) -> GuidedNetwork:
        """Return the guided network without the wrappers of DistributedDataParallel and torch.compile."""
        network: GuidedNetwork = super().bare_network()
        return network

    def segmentation_network(self) -> Any:
        """Return the network that the plans name, which the guided network contains."""
        return self.bare_network().network

    def initialize(self) -> None:
        """Complete the guide before nnU-Net builds the network, and load the pretrained encoder after it.

        A checkpoint that is resumed brings the guide and all weights.
        """
        folder = None
        if self.resumed_guide is not None:
            self._set_guide(self.resumed_guide)
        else:
            folder = find_encoder(self.guide_config.encoder)
            self._set_guide(self._complete_guide(folder))
        with building_to_train():
            super().initialize()
        if folder is not None:
            self._load_encoder(folder)
        self.print_to_log_file(parameter_counts(dict(self.bare_network().named_children())))
        self.guide_log = GuideLog(self.loss, self.logger, self.is_ddp)

    def _set_guide(self, config: GuideConfig) -> None:
        """Make `config` the guide of this training, also in the plans that nnU-Net writes to the model folder."""
        self.guide_config = config
        self.plans_manager.plans[PLANS_KEY] = config.to_plans()
        if self.network is not None:
            self.bare_network().settings = config

    def _complete_guide(self, folder: Path) -> GuideConfig:
        labels = self.label_manager
        config = replace(
            self.guide_config,
            encoder_config=read_encoder_config(folder, self.guide_config.layer),
            encoder_source=None,
            classes=len(labels.foreground_regions if labels.has_regions else labels.foreground_labels),
            versions=versions(),
        )
        # -pretrained_weights may still bring other weights, so `get_dataloaders` compares their source.
        self.model_folder.refuse_another(config, may_differ=("encoder_source",))
        return config

    def _load_encoder(self, folder: Path) -> None:
        network = self.bare_network()
        source = network.token_encoder.load_pretrained(folder, self.guide_config.encoder)
        if self.is_ddp:
            copy_to_all_gpus(network.token_encoder)
        self._set_guide(replace(self.guide_config, encoder_source=asdict(source)))
        self.print_to_log_file(f"Token encoder: {source}")
        network.share_pass()

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Add the guide to the planned network, from the plans alone: a prediction has no hub and no pretrained file.

        Raises:
            GuidinoError: If the plans and the network do not fit each other, or the guide's settings are wrong.
        """
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if enable_deep_supervision:
            check_configuration(network, configuration_manager.configuration)
        config = GuideConfig.from_plans(plans_manager.plans)
        # nnU-Net builds without deep supervision to predict, and a trainer without deep supervision does so to train.
        for_prediction = not (enable_deep_supervision or _building_to_train.get())
        schemes = configuration_manager.normalization_schemes
        return GuidedNetwork(network, config, num_output_channels, schemes, for_prediction)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the guides' output with deep supervision, and leave the latter off if this trainer trains without."""
        super().set_deep_supervision_enabled(enabled and self.enable_deep_supervision)
        self.bare_network().returns_guides = enabled

    def _build_loss(self) -> nn.Module:
        """Add the terms of the guide to nnU-Net's loss (equation 2)."""
        # True for the anisotropic spacings at which nnU-Net resamples volumes slice by slice.
        in_plane = get_do_separate_z(self.configuration_manager.spacing)
        late_fusion = self.bare_network().late_fusion
        return GuidedLoss(super()._build_loss(), self.label_manager, self.guide_config.lambdas, in_plane, late_fusion)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Refuse a guide that differs from the other folds' before nnU-Net starts worker processes.

        Raises:
            GuidinoError: If the other folds use another guide.
        """
        self.model_folder.refuse_another(self.guide_config)
        return super().get_dataloaders()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Keep the validation set, since guide_progress.png shows cases of it."""
        training, self.validation_dataset = super().get_tr_and_val_datasets()
        return training, self.validation_dataset

    def on_train_start(self) -> None:
        """Record the encoder that -pretrained_weights brought, and begin guide_progress.png."""
        if self.was_initialized:
            self._set_guide(self.bare_network().settings)
        super().on_train_start()
        self.bare_network().returns_guides = True  # without deep supervision too
        if self.local_rank != 0:
            return
        with reported(self.print_to_log_file):
            slice_size, foreground = self.configuration_manager.patch_size[-2:], self.label_manager.foreground_labels
            images, masks = fixed_patches(self.validation_dataset, slice_size, foreground)
            folder = Path(self.output_folder)
            self.guide_progress = GuideProgress(folder, images, masks, self.num_epochs, self.current_epoch)
            self.guide_progress.record(self.bare_network(), self.current_epoch)

    def claim_model_folder(self) -> None:
        """Write plans.json unless another fold has; raise GuidinoError if the other folds use another guide."""
        self.model_folder.claim(self.guide_config, self.plans_manager.plans)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add the values of the step for the log."""
        return {**super().train_step(batch), **self.guide_log.last_step()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Fit late fusion to the network as it is now, and log the terms of the loss."""
        self.loss.fit_late_fusion()
        super().on_train_epoch_end(train_outputs)
        self.guide_log.log_training(train_outputs, self.current_epoch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Let nnU-Net score the first entry of the output without deep supervision too; add the values for the log.

        Without deep supervision, nnU-Net scores the network's output itself, but here the output is a list that ends
        with the guides. So this step switches deep supervision on for nnU-Net, which then scores the first entry.
        """
        target, enabled = batch["target"], self.enable_deep_supervision
        self.enable_deep_supervision = True
        try:
            scores = super().validation_step({**batch, "target": target if enabled else [target]})
        finally:
            self.enable_deep_supervision = enabled
        return {**scores, **self.guide_log.last_step()}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the terms of the loss and the guide's Dice."""
        super().on_validation_epoch_end(val_outputs)
        self.guide_log.log_validation(val_outputs, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Write the guide's lines to the training log before nnU-Net's, and bring guide_progress.png up to date."""
        network = self.bare_network()
        self.guide_log.end_epoch(network, self.current_epoch, self.print_to_log_file)
        super().on_epoch_end()
        if self.guide_progress is not None:
            with reported(self.print_to_log_file):
                self.guide_progress.update(network, self.current_epoch, self.logger.get_checkpoint())

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Resume with the guide of the checkpoint, since the encoder's folder or the environment may have changed.

        Raises:
            GuidinoError: If the plans ask for another guide, or plans.json in the model folder has another.
        """
        if not self.was_initialized:
            self.resumed_guide = self.model_folder.resumed_guide(
                Path(str(filename_or_checkpoint)), self.guide_config, self.asked_for, self.print_to_log_file
            )
        super().load_checkpoint(filename_or_checkpoint)
