"""nnUNetTrainerGuiDINO and its variants: nnU-Net's hooks, one idea per method."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.preprocessing.resampling.default_resampling import get_do_separate_z
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig, LoRA
from nnunetv2_guidino.encoders.lora import parameter_counts
from nnunetv2_guidino.encoders.token_encoder import find_encoder, read_encoder_config
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.network import GuidedNetwork
from nnunetv2_guidino.losses.guided import GuidedLoss
from nnunetv2_guidino.training.logging import LoggedTerms
from nnunetv2_guidino.training.lr_scheduler import GroupPolyLRScheduler
from nnunetv2_guidino.training.progress import GuideProgress, fixed_patches, reported

PAPER_LEARNING_RATE = 1e-4  # section 4.2, for AdamW


class nnUNetTrainerGuiDINO(LoggedTerms):
    """The planned network guided by a frozen vision foundation model (GuiDINO, arXiv 2603.01115).

    The section "guidino" of the plans describes the guide (see GuideConfig); without one, the defaults hold.
    """

    lora: LoRA | None = None  # where the plans set none
    adamw = False  # instead of nnU-Net's SGD; LoRA needs it
    largest_batch: int | None = None

    restoring = False  # a checkpoint is about to bring all weights
    guide_progress: GuideProgress | None = None  # -> on_train_start

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's signature
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.largest_batch is not None:
            batch_size = min(self.largest_batch, self.configuration_manager.batch_size)
            self.configuration_manager.configuration["batch_size"] = batch_size
        if self.lora is not None and GuideConfig.from_plans(self.plans_manager.plans).lora is None:
            self.plans_manager.plans.setdefault(PLANS_KEY, {})["lora"] = asdict(self.lora)

    def initialize(self) -> None:
        """Build the network and load the pretrained encoder, unless a checkpoint is about to bring all weights."""
        config, folder = self._recorded_guide() if self.restoring else self._requested_guide()
        self.plans_manager.plans[PLANS_KEY] = config.to_plans()
        super().initialize()
        if folder is not None:
            source = self._guided_network().token_encoder.load_pretrained(folder, config.encoder)
            config = replace(config, encoder_source=asdict(source))
            self._refuse_another_guide_in_other_folds(config)
            self.plans_manager.plans[PLANS_KEY] = config.to_plans()
            self.print_to_log_file(f"Token encoder: {source}")
        self.print_to_log_file(parameter_counts(dict(self._guided_network().named_children())))
        self._add_logged_values()

    def _requested_guide(self) -> tuple[GuideConfig, Path | None]:
        config = GuideConfig.from_plans(self.plans_manager.plans)
        folder = find_encoder(config.encoder)
        labels = self.label_manager
        classes = len(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
        return replace(config, encoder_config=read_encoder_config(folder, config.layer), classes=classes), folder

    def _recorded_guide(self) -> tuple[GuideConfig, Path | None]:
        """The guide this model was trained with: the encoder's folder may be gone, or the environment another one."""
        file = Path(self.output_folder_base) / "plans.json"
        config = GuideConfig.from_plans(load_json(str(file)))
        requested = GuideConfig.from_plans(self.plans_manager.plans)
        for key in self.plans_manager.plans.get(PLANS_KEY, {}):
            asked, trained = getattr(requested, key), getattr(config, key)
            if asked != trained:
                raise GuidinoError(
                    f"guidino.{key} is {asked!r} in the plans, but this model was trained with {trained!r} ({file}). "
                    f"Give other settings a plans file of their own"
                )
        return config, None

    def _refuse_another_guide_in_other_folds(self, config: GuideConfig) -> None:
        """All folds of a model folder share one plans.json, which rebuilds the network of each."""
        folder = Path(self.output_folder_base)
        others = [p.parent.name for p in sorted(folder.glob("fold_*/checkpoint_*.pth"))]
        others = [fold for fold in others if fold != f"fold_{self.fold}"]
        if not others or not (folder / "plans.json").is_file():
            return
        theirs = GuideConfig.from_plans(load_json(str(folder / "plans.json")))
        if _identity(theirs) != _identity(config):
            raise GuidinoError(
                f"{others[0]} in {folder} was trained with another guide ({theirs.encoder_source} there, "
                f"{config.encoder_source} here). Give this one a plans file of its own, or remove that model"
            )

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """From the plans alone: neither hub nor weights are needed to predict."""
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        config = GuideConfig.from_plans(plans_manager.plans)
        # nnU-Net builds without deep supervision to predict, and only then.
        return GuidedNetwork(
            network, config, configuration_manager.normalization_schemes, merge_lora=not enable_deep_supervision
        )

    def configure_optimizers(self) -> tuple[Any, Any]:
        lora = GuideConfig.from_plans(self.plans_manager.plans).lora
        if self.adamw or lora is not None:
            return self._configure_adamw(lora)
        optimizer, lr_scheduler = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return optimizer, lr_scheduler

    def _configure_adamw(self, lora: LoRA | None) -> tuple[Any, Any]:
        """One optimizer with a group for LoRA, since nnU-Net steps one."""
        trainable = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        groups = [{"params": [p for name, p in trainable if "lora_" not in name], "lr": PAPER_LEARNING_RATE}]
        if lora is not None:
            groups.append({"params": [p for name, p in trainable if "lora_" in name], "lr": lora.learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        return optimizer, GroupPolyLRScheduler(optimizer, self.num_epochs)

    def _build_loss(self) -> nn.Module:
        config = GuideConfig.from_plans(self.plans_manager.plans)
        # nnU-Net resamples volumes of such spacings slice by slice
        in_plane = get_do_separate_z(self.configuration_manager.spacing)
        return GuidedLoss(
            super()._build_loss(), self.label_manager, config.lambda_guide, config.lambda_boundary, in_plane
        )

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        self.restoring = True
        super().load_checkpoint(filename_or_checkpoint)

    # guide_progress.png, beside nnU-Net's progress.png

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.guide_progress is not None:
            with reported(self.print_to_log_file):
                self.guide_progress.record(self._guided_network(), self.current_epoch)
                self.guide_progress.draw(
                    self.logger.get_checkpoint(), self._guided_network().tokenbook.weights.shape[1]
                )

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        training, self.validation_dataset = super().get_tr_and_val_datasets()
        return training, self.validation_dataset

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank != 0:
            return
        with reported(self.print_to_log_file):
            slice_size, foreground = self.configuration_manager.patch_size[-2:], self.label_manager.foreground_labels
            images, masks = fixed_patches(self.validation_dataset, slice_size, foreground)
            folder = Path(self.output_folder)
            self.guide_progress = GuideProgress(folder, images, masks, self.num_epochs, self.current_epoch)
            self.guide_progress.record(self._guided_network(), self.current_epoch)


class nnUNetTrainerGuiDINOLoRA(nnUNetTrainerGuiDINO):
    """nnUNetTrainerGuiDINO with LoRA on the token encoder; where the plans do not set it, with its defaults."""

    lora = LoRA()


class nnUNetTrainerGuiDINOPaper(nnUNetTrainerGuiDINO):
    """nnUNetTrainerGuiDINO with what section 4.2 of the paper states: AdamW, 1e-4, 400 epochs, batches of 4."""

    epochs = 400
    largest_batch = 4
    adamw = True


class nnUNetTrainerGuiDINOPaperLoRA(nnUNetTrainerGuiDINOLoRA, nnUNetTrainerGuiDINOPaper):
    """nnUNetTrainerGuiDINOPaper with LoRA on the token encoder."""


def _identity(config: GuideConfig) -> dict[str, Any]:
    """What two folds of one model must share; the weights may lie elsewhere."""
    section = config.to_plans()
    source = section.pop("encoder_source") or {}
    return {**section, "encoder": None, "sha256": source.get("sha256")}
