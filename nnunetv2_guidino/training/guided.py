"""nnUNetTrainerGuiDINO and its variants: nnU-Net's hooks, one idea per method."""

from __future__ import annotations

import functools
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.preprocessing.resampling.default_resampling import get_do_separate_z
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_guidino.architectures.registry import check_configuration
from nnunetv2_guidino.config import PLANS_KEY, GuideConfig, LoRA
from nnunetv2_guidino.encoders.architecture import read_encoder_config
from nnunetv2_guidino.encoders.lora import parameter_counts
from nnunetv2_guidino.encoders.source import find_encoder
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.network import GuidedNetwork
from nnunetv2_guidino.losses.guided import GuidedLoss
from nnunetv2_guidino.training.lr_scheduler import GroupPolyLRScheduler
from nnunetv2_guidino.training.progress import GuideProgress, fixed_patches, prototypes_in_use, reported
from nnunetv2_guidino.training.seeding import SeededDataLoader, environment_variable, seed_everything

GRAMMAR = (
    "nnUNetTrainerGuiDINO[Paper][LoRA][_<N>epochs][_<M>iterations][_seed<k>] or "
    "nnUNetTrainerGuiDINOBaseline[_<N>epochs][_<M>iterations][_seed<k>], for example "
    "nnUNetTrainerGuiDINO_100epochs_seed1"
)
_NAME = re.compile(
    r"nnUNetTrainerGuiDINO(?P<kind>Baseline|(?:Paper)?(?:LoRA)?)"
    r"(?:_(?P<epochs>[1-9]\d*)epochs)?(?:_(?P<iterations>[1-9]\d*)iterations)?(?:_seed(?P<seed>\d+))?"
)
PAPER_LEARNING_RATE = 1e-4  # section 4.2, for AdamW


@functools.cache
def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The trainer of that name, which is its __name__ too: nnU-Net writes that into folders and checkpoints.

    Raises:
        GuidinoError: For a name outside the grammar, which it shows.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise GuidinoError(f"there is no trainer {name}. The names are {GRAMMAR}")
    base = {
        "": nnUNetTrainerGuiDINO,
        "LoRA": nnUNetTrainerGuiDINOLoRA,
        "Paper": nnUNetTrainerGuiDINOPaper,
        "PaperLoRA": nnUNetTrainerGuiDINOPaperLoRA,
        "Baseline": nnUNetTrainerGuiDINOBaseline,
    }[match["kind"]]
    if name == base.__name__:
        return base
    settings = {key: int(match[key]) for key in ("epochs", "iterations", "seed") if match[key] is not None}
    return type(name, (base,), {"__module__": __name__, "__doc__": base.__doc__, **settings})


class nnUNetTrainerGuiDINOBaseline(nnUNetTrainer):
    """Stock network and loss at the length and seed that the name gives: what a guided training is compared with.

    Checkpoints are written atomically.
    """

    epochs: int | None = None
    iterations: int | None = None
    seed: int | None = None

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's signature
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.epochs is not None:
            self.num_epochs = self.epochs
        if self.iterations is not None:
            # nnU-Net's 50 validation iterations for 250 of training
            self.num_val_iterations_per_epoch = max(1, round(self.iterations * 50 / 250))
            self.num_iterations_per_epoch = self.iterations

    def initialize(self) -> None:
        if self.seed is not None:
            seed_everything(self.seed)
        super().initialize()

    def get_dataloaders(self) -> tuple[Any, Any]:
        if self.seed is None:
            return super().get_dataloaders()
        # Not the stream of an earlier part of this training, and another one on each GPU.
        seed_everything(self.seed, self.current_epoch, self.local_rank)
        with environment_variable("nnUNet_n_proc_DA", "0"):
            loaders = [augmenter.data_loader for augmenter in super().get_dataloaders()]
        processes = get_allowed_n_proc_DA()
        if processes == 0:
            return loaders[0], loaders[1]
        # nnU-Net's own augmenter takes batches in the order in which its workers finish; this one takes them in turn.
        train, validation = (
            MultiThreadedAugmenter(
                SeededDataLoader(loader, (self.seed, self.current_epoch, self.local_rank, part)),
                None,
                count,
                pin_memory=self.device.type == "cuda",
                wait_time=0.002,
            )
            for part, (loader, count) in enumerate(zip(loaders, (processes, max(1, processes // 2)), strict=True))
        )
        return train, validation

    def save_checkpoint(self, filename: str) -> None:
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # writes nothing
            return
        # torch.save is not atomic: a kill while it writes must leave the last good checkpoint.
        unfinished = Path(f"{filename}.unfinished")
        try:
            super().save_checkpoint(str(unfinished))
            unfinished.replace(filename)
        finally:
            unfinished.unlink(missing_ok=True)


class nnUNetTrainerGuiDINO(nnUNetTrainerGuiDINOBaseline):
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
        requested, recorded = GuideConfig.from_plans(self.plans_manager.plans).to_plans(), config.to_plans()
        for key in self.plans_manager.plans.get(PLANS_KEY, {}):
            asked, trained = requested[key], recorded[key]
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
        if enable_deep_supervision:
            check_configuration(network, configuration_manager.configuration)
        config = GuideConfig.from_plans(plans_manager.plans)
        # nnU-Net builds without deep supervision to predict, and only then.
        return GuidedNetwork(
            network, config, configuration_manager.normalization_schemes, for_prediction=not enable_deep_supervision
        )

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Off to predict: the guides are returned no more then; and on to train."""
        super().set_deep_supervision_enabled(enabled)
        self._guided_network().returns_guides = enabled

    def _guided_network(self) -> GuidedNetwork:
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)  # inside torch.compile's wrapper

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
        return GuidedLoss(super()._build_loss(), self.label_manager, config.lambdas, in_plane)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        self.restoring = True
        super().load_checkpoint(filename_or_checkpoint)

    # The terms of the loss and the guide's Dice travel with nnU-Net's own step outputs and end in its logger.

    def _add_logged_values(self) -> None:
        self.logged_terms = [f"{term}_loss" for term in self.loss.terms]
        values = [f"{part}_{term}" for part in ("train", "val") for term in self.logged_terms]
        values += ["guide_dice", "prototypes_in_use"]
        self.logger.local_logger.my_fantastic_logging.update({value: [] for value in values})

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**super().train_step(batch), **self.loss.last_terms()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**super().validation_step(batch), **self.loss.last_terms()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        self._log_terms("train", self._gather(train_outputs))

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        super().on_validation_epoch_end(val_outputs)
        outputs = self._gather(val_outputs)
        self._log_terms("val", outputs)
        tp, fp, fn = (sum(int(output[f"guide_{count}"]) for output in outputs) for count in ("tp", "fp", "fn"))
        dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")
        self.logger.log("guide_dice", dice, self.current_epoch)

    def _gather(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self.is_ddp:
            return outputs
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, outputs)
        return [output for of_one_rank in gathered for output in of_one_rank]

    def _log_terms(self, part: str, outputs: list[dict[str, Any]]) -> None:
        for term in self.logged_terms:
            mean = float(np.mean([output[term] for output in outputs]))
            self.logger.log(f"{part}_{term}", mean, self.current_epoch)

    def on_epoch_end(self) -> None:
        for part in ("train", "val"):
            terms = (
                f"{term.removesuffix('_loss')} {self.logger.get_value(f'{part}_{term}', step=-1):.4f}"
                for term in self.logged_terms
            )
            self.print_to_log_file(f"{part} losses:", ", ".join(terms))
        self.print_to_log_file(f"Guide Dice {self.logger.get_value('guide_dice', step=-1):.4f}")
        in_use = prototypes_in_use(self._guided_network().tokenbook.weights)
        self.logger.log("prototypes_in_use", in_use, self.current_epoch)
        super().on_epoch_end()
        if self.guide_progress is not None:
            with reported(self.print_to_log_file):
                self.guide_progress.record(self._guided_network(), self.current_epoch)
                self.guide_progress.draw(
                    self.logger.get_checkpoint(), self._guided_network().tokenbook.weights.shape[1]
                )

    # guide_progress.png, beside nnU-Net's progress.png

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
