"""nnUNetTrainerGuiDINOBaseline is the unguided trainer for comparison and the base class of the guided trainer."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config as functorch_config
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file
from nnunetv2_guidino.model.networks.token_network import planned_lora
from nnunetv2_guidino.training.one_line_errors import show_errors_as_one_line
from nnunetv2_guidino.training.optimizers import PAPER_LEARNING_RATE, adamw, has_adapters, without_frozen
from nnunetv2_guidino.training.pretrained_part import load_pretrained_part, record_source, recorded_source, source_of
from nnunetv2_guidino.training.seeding import environment_variable, seed_everything, seeded_augmenters, some_cases


class nnUNetTrainerGuiDINOBaseline(nnUNetTrainer):
    """Train the planned network with nnU-Net's loss, for the length and with the seed in the trainer's name.

    Guided trainings are compared with this trainer. It loads the pretrained weights that the plans name (see
    networks.contract.Architecture), and replaces a checkpoint or plans.json only by a complete file.
    """

    # trainer_class sets these from the trainer's name
    epochs: int | None = None
    iterations: int | None = None
    cases: int | None = None
    seed: int | None = None
    adamw = False  # True: AdamW replaces nnU-Net's SGD, as it always does with LoRA
    largest_batch: int | None = None

    resuming = False  # True: a checkpoint brings all weights
    output_folder_base: str  # nnU-Net sets it

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's signature
    ):
        show_errors_as_one_line()
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.epochs is not None:
            self.num_epochs = self.epochs
        if self.iterations is not None:
            # keeps nnU-Net's ratio of 50 validation iterations to 250 training iterations
            self.num_val_iterations_per_epoch = max(1, round(self.iterations * 50 / 250))
            self.num_iterations_per_epoch = self.iterations
        if self.largest_batch is not None:
            batch_size = min(self.largest_batch, self.configuration_manager.batch_size)
            self.configuration_manager.configuration["batch_size"] = batch_size
        if self.adamw or planned_lora(self.configuration_manager.network_arch_init_kwargs) is not None:
            self.initial_lr = PAPER_LEARNING_RATE

    def bare_network(self) -> Any:
        """Return the network without the wrappers of DistributedDataParallel and torch.compile."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def segmentation_network(self) -> Any:
        """Return the network that the plans name."""
        return self.bare_network()

    def initialize(self) -> None:
        """Seed before nnU-Net draws the weights, and load the pretrained part after it has built the network.

        Raises:
            GuidinoError: If the pretrained weights are missing or do not fit.
        """
        if self.seed is not None:
            seed_everything(self.seed)
        super().initialize()
        if not self.resuming:
            load_pretrained_part(self.segmentation_network(), self.is_ddp, self.print_to_log_file)
            self._record_source(source_of(self.segmentation_network()))

    def _record_source(self, source: dict[str, Any] | None) -> None:
        record_source(self.plans_manager.plans, self.configuration_name, source)

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Leave out frozen parameters, which nnU-Net hands to its optimizer, and give LoRA a rate of its own."""
        if self.adamw or has_adapters(self.network):
            return adamw(self.network, self.initial_lr, self.weight_decay, self.num_epochs)
        optimizer, lr_scheduler = super().configure_optimizers()
        without_frozen(optimizer)
        return optimizer, lr_scheduler

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Replace nnU-Net's augmentation workers if there is a seed: they yield unseeded batches in any order."""
        if self.seed is None:
            return super().get_dataloaders()
        # A resumed training must not repeat the random numbers of its first part, and each GPU needs its own.
        seeds = (self.seed, self.current_epoch, self.local_rank)
        seed_everything(*seeds)
        with environment_variable("nnUNet_n_proc_DA", "0"):
            loaders = [augmenter.data_loader for augmenter in super().get_dataloaders()]
        train, validation = seeded_augmenters(loaders, seeds, pin_memory=self.device.type == "cuda")
        return train, validation

    def do_split(self) -> tuple[list[str], list[str]]:
        """Keep as many of the fold's training cases as the trainer's name says, and all validation cases.

        Raises:
            GuidinoError: If the fold has fewer training cases.
        """
        training, validation = super().do_split()
        if self.cases is None:
            return training, validation
        if self.cases > len(training):
            raise GuidinoError(
                f"{type(self).__name__} asks for {self.cases} training cases; fold {self.fold} of "
                f"{self.plans_manager.dataset_name} has {len(training)}"
            )
        return some_cases(training, self.cases, self.seed or 0), validation

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the backward pass in the number formats of the forward pass, with and without torch.compile."""
        with _backward_without_autocast():
            return super().train_step(batch)

    def on_train_start(self) -> None:
        """Let nnU-Net write plans.json and its companions into a temporary folder, then move each file as a whole.

        nnU-Net would write them in place. This way a kill at any moment leaves the earlier files, and another process
        never reads a half-written file.
        """
        if self.was_initialized and not self.resuming:
            # -pretrained_weights may have replaced the pretrained part
            self._record_source(source_of(self.segmentation_network()))
        folder = self.output_folder_base
        with tempfile.TemporaryDirectory() as written:
            self.output_folder_base = written
            try:
                super().on_train_start()
                self._place_files(Path(folder))
            finally:
                self.output_folder_base = folder

    def plot_network_architecture(self) -> None:
        """Place plans.json and its companions, since nnU-Net calls this hook right after it has written them."""
        self._place_files(Path(self.output_folder).parent)
        super().plot_network_architecture()

    def _place_files(self, folder: Path) -> None:
        written, self.output_folder_base = Path(self.output_folder_base), str(folder)
        if written == folder or self.local_rank != 0:
            return
        self.claim_model_folder()
        for file in written.iterdir():
            with whole_file(folder / file.name) as unfinished:
                shutil.copyfile(file, unfinished)

    def claim_model_folder(self) -> None:
        """Check that this training may write plans.json; subclasses raise GuidinoError if it must not."""

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load no pretrained weights: the checkpoint has all weights, and their folder or the hub may be gone."""
        self.resuming = self.resuming or not self.was_initialized
        super().load_checkpoint(filename_or_checkpoint)
        # nnU-Net has replaced my_init_kwargs by that of the checkpoint
        self._record_source(recorded_source(self.my_init_kwargs["plans"], self.configuration_name))

    def save_checkpoint(self, filename: str) -> None:
        """Keep the last good checkpoint if a kill ends the write, since torch.save is not atomic.

        Raises:
            GuidinoError: If the file cannot be written.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # nnU-Net writes nothing in these cases
            return
        with whole_file(Path(filename)) as unfinished:
            super().save_checkpoint(str(unfinished))


def _backward_without_autocast() -> AbstractContextManager[object]:
    """Return a context in which torch compiles backward passes without autocast, as they run without compilation.

    Each matrix product is then differentiated in the format of its forward pass. The first step compiles the backward
    pass within autocast, and by default torch applies autocast to it too. Products that ran in bfloat16 or float32
    would be differentiated in float16, where scaled gradients overflow. Earlier versions of torch lack this setting.
    """
    if not hasattr(functorch_config, "backward_pass_autocast"):
        return nullcontext()
    setting: AbstractContextManager[object] = functorch_config.patch(backward_pass_autocast="off")
    return setting
