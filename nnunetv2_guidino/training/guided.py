"""nnUNetTrainerGuiDINO and its variants override nnU-Net's hooks; each method adds one idea."""

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
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.lora import parameter_counts
from nnunetv2_guidino.model.encoders.source import find_encoder, versions
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss
from nnunetv2_guidino.model.networks.networks_by_name import check_configuration
from nnunetv2_guidino.nnunet.plans import FILLED_IN, first_difference
from nnunetv2_guidino.training.baseline import PaperRecipe
from nnunetv2_guidino.training.logging import LoggedTerms
from nnunetv2_guidino.training.optimizers import PAPER_LEARNING_RATE
from nnunetv2_guidino.training.pretrained_part import make_alike
from nnunetv2_guidino.training.progress import GuideProgress, fixed_patches, reported
from nnunetv2_guidino.training.shared_plans import OF_ONE_FOLD, ModelFolder, guide_of_checkpoint

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


class nnUNetTrainerGuiDINO(LoggedTerms):
    """Train the planned network with the guide of a frozen vision foundation model (GuiDINO, arXiv 2603.01115).

    The section "guidino" of the plans describes the guide (see GuideConfig). Plans without this section get the
    defaults.
    """

    lora: LoRA | None = None  # used if the plans set none

    resumed_guide: GuideConfig | None = None  # guide of the checkpoint that will bring all weights
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

    def initialize(self) -> None:
        """Build the network and load the pretrained encoder, unless a checkpoint will bring all weights."""
        if self.resumed_guide is not None:
            self._settle(self.resumed_guide)
            self._build()
        else:
            folder = find_encoder(self.guide_config.encoder)
            self._settle(self._complete_guide(folder))
            self._build()
            self._load_encoder(folder)
        self.print_to_log_file(parameter_counts(dict(self._guided_network().named_children())))
        self._add_logged_values()

    def _build(self) -> None:
        with building_to_train():
            super().initialize()

    def _settle(self, config: GuideConfig) -> None:
        """Make `config` the guide of this training, also in the plans that nnU-Net writes to the model folder."""
        self.guide_config = config
        self.plans_manager.plans[PLANS_KEY] = config.to_plans()
        if self.network is not None:
            self._guided_network().settings = config

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
        network = self._guided_network()
        source = network.token_encoder.load_pretrained(folder, self.guide_config.encoder)
        if self.is_ddp:
            make_alike(network.token_encoder)
        self._settle(replace(self.guide_config, encoder_source=asdict(source)))
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
        """Build the network from the plans alone: a prediction needs neither the hub nor the pretrained weights.

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
        """Switch the output of guides, and deep supervision if this trainer uses it: off to predict, on to train."""
        super().set_deep_supervision_enabled(enabled and self.enable_deep_supervision)
        self._guided_network().returns_guides = enabled

    def _build_loss(self) -> nn.Module:
        # True for the anisotropic spacings at which nnU-Net resamples volumes slice by slice.
        in_plane = get_do_separate_z(self.configuration_manager.spacing)
        late_fusion = self._guided_network().late_fusion
        return GuidedLoss(super()._build_loss(), self.label_manager, self.guide_config.lambdas, in_plane, late_fusion)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Compare this guide with that of the other folds, then return the data loaders.

        nnU-Net calls this hook first when a training starts, before it starts worker processes.

        Raises:
            GuidinoError: If the other folds use another guide.
        """
        self.model_folder.refuse_another(self.guide_config)
        return super().get_dataloaders()

    def claim_model_folder(self) -> None:
        self.model_folder.claim(self.guide_config, self.plans_manager.plans)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Resume with the guide of the checkpoint, since the encoder's folder or the environment may have changed.

        Raises:
            GuidinoError: If the plans ask for another guide, or plans.json in the model folder has another.
        """
        if not self.was_initialized:
            self.resumed_guide = self._resumed_guide(str(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)

    def _resumed_guide(self, checkpoint: str) -> GuideConfig:
        """Return the checkpoint's guide; raise GuidinoError if the plans ask for another or plans.json has another."""
        try:
            recorded = self.model_folder.recorded()
        except GuidinoError as error:
            self.print_to_log_file(f"{error}. The checkpoint has what is needed of it")
            recorded = None
        trained = guide_of_checkpoint(Path(checkpoint)) or recorded
        if trained is None:
            raise GuidinoError(f"{checkpoint} was trained without a guide")
        if recorded and (difference := first_difference(recorded, trained, may_differ=OF_ONE_FOLD)):
            raise GuidinoError(
                f"{checkpoint} was trained with another guide than the rest of its folder: "
                f"{difference.describe('in plans.json', 'there')}. Restore the plans.json of this training, or train "
                "this fold anew"
            )
        # Settings that the plans do not name come from the defaults and the environment, so they may differ.
        not_asked_for = trained.to_plans().keys() - self.asked_for
        if difference := first_difference(self.guide_config, trained, may_differ=not_asked_for):
            raise GuidinoError(
                f"{PLANS_KEY}.{difference.key} is {difference.ours!r} in the plans, but this model was trained with "
                f"{difference.theirs!r} ({checkpoint}). Give other settings a plans file of their own"
            )
        return trained

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run nnU-Net's validation step on a list of outputs, with and without deep supervision.

        Without deep supervision, nnU-Net scores the network's output itself, but here the output is a list that ends
        with the guides. So this step switches deep supervision on for nnU-Net, which then scores the first entry.
        """
        target, enabled = batch["target"], self.enable_deep_supervision
        self.enable_deep_supervision = True
        try:
            return super().validation_step({**batch, "target": target if enabled else [target]})
        finally:
            self.enable_deep_supervision = enabled

    # The following methods draw guide_progress.png beside nnU-Net's progress.png.

    def on_epoch_end(self) -> None:
        """Record the guide and draw the picture if it is due, as it always is after the last epoch."""
        super().on_epoch_end()
        if self.guide_progress is not None:
            with reported(self.print_to_log_file):
                self.guide_progress.record(self._guided_network(), self.current_epoch)
                if self.guide_progress.is_due():
                    prototypes = self._guided_network().tokenbook.weights.shape[1]
                    self.guide_progress.draw(self.logger.get_checkpoint(), prototypes)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Return nnU-Net's data sets, and keep the validation set, since the picture shows cases of it."""
        training, self.validation_dataset = super().get_tr_and_val_datasets()
        return training, self.validation_dataset

    def on_train_start(self) -> None:
        if self.was_initialized:
            self._settle(self._guided_network().settings)  # -pretrained_weights may have brought another encoder
        super().on_train_start()
        self._guided_network().returns_guides = True  # without deep supervision too
        if self.local_rank != 0:
            return
        with reported(self.print_to_log_file):
            slice_size, foreground = self.configuration_manager.patch_size[-2:], self.label_manager.foreground_labels
            images, masks = fixed_patches(self.validation_dataset, slice_size, foreground)
            folder = Path(self.output_folder)
            self.guide_progress = GuideProgress(folder, images, masks, self.num_epochs, self.current_epoch)
            self.guide_progress.record(self._guided_network(), self.current_epoch)


class nnUNetTrainerGuiDINOLoRA(nnUNetTrainerGuiDINO):
    """Train like nnUNetTrainerGuiDINO, with LoRA on the token encoder; LoRA has its defaults if the plans set none."""

    lora = LoRA()


class nnUNetTrainerGuiDINOPaper(PaperRecipe, nnUNetTrainerGuiDINO):
    """Train like nnUNetTrainerGuiDINO, with the paper's recipe (section 4.2)."""


class nnUNetTrainerGuiDINOPaperLoRA(nnUNetTrainerGuiDINOLoRA, nnUNetTrainerGuiDINOPaper):
    """Train like nnUNetTrainerGuiDINOPaper, with LoRA on the token encoder."""
