"""nnUNetTrainerGuiDINOBaseline is the unguided trainer for comparison and the base class of the guided trainers."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config as functorch_config
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file
from nnunetv2_guidino.model.networks.token_network import planned_lora
from nnunetv2_guidino.training.one_line_errors import show_errors_as_one_line
from nnunetv2_guidino.training.optimizers import PAPER_LEARNING_RATE, adamw, has_adapters, without_frozen
from nnunetv2_guidino.training.pretrained_part import LoadsPretrained
from nnunetv2_guidino.training.seeding import SeededDataLoader, environment_variable, seed_everything, some_cases


class nnUNetTrainerGuiDINOBaseline(LoadsPretrained):
    """Train the stock network with the stock loss, for the length and with the seed in the trainer's name.

    Guided trainings are compared with this trainer. It writes checkpoints atomically.
    """

    epochs: int | None = None
    iterations: int | None = None
    cases: int | None = None
    seed: int | None = None
    adamw = False  # True: AdamW replaces nnU-Net's SGD, as it always does with LoRA
    largest_batch: int | None = None

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

    def initialize(self) -> None:
        """Seed all random generators and build network, loss and optimizer: equal seeds give equal initial weights."""
        if self.seed is not None:
            seed_everything(self.seed)
        super().initialize()

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Return nnU-Net's optimizer without frozen parameters, or AdamW with a separate learning rate for LoRA."""
        if self.adamw or has_adapters(self.network):
            return adamw(self.network, self.initial_lr, self.weight_decay, self.num_epochs)
        optimizer, lr_scheduler = super().configure_optimizers()
        without_frozen(optimizer)
        return optimizer, lr_scheduler

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's data loaders; with a seed, seed each augmentation worker and fix the order of batches."""
        if self.seed is None:
            return super().get_dataloaders()
        # A resumed training must not repeat the random numbers of its first part, and each GPU needs its own.
        seed_everything(self.seed, self.current_epoch, self.local_rank)
        with environment_variable("nnUNet_n_proc_DA", "0"):
            loaders = [augmenter.data_loader for augmenter in super().get_dataloaders()]
        processes = get_allowed_n_proc_DA()
        if processes == 0:
            return loaders[0], loaders[1]
        # nnU-Net's own augmenter yields batches in the order in which workers finish; this one asks workers in turn.
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

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return nnU-Net's fold, with as many training cases as the trainer's name says and all validation cases.

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
        """Run nnU-Net's step; the backward pass uses the same number formats with and without torch.compile."""
        with _backward_without_autocast():
            return super().train_step(batch)

    def on_train_start(self) -> None:
        """Let nnU-Net write plans.json and its companions into a temporary folder, then move each file as a whole.

        nnU-Net would write them in place. This way a kill at any moment leaves the earlier files, and another process
        never reads a half-written file.
        """
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

    def save_checkpoint(self, filename: str) -> None:
        """Write the checkpoint as a whole or not at all.

        Raises:
            GuidinoError: If the file cannot be written.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # nnU-Net writes nothing in these cases
            return
        # torch.save is not atomic: a kill while it writes must leave the last good checkpoint.
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


class PaperRecipe:
    """The recipe in section 4.2 of the paper: AdamW, learning rate 1e-4, 400 epochs, batches of at most 4."""

    epochs: int | None = 400
    largest_batch: int | None = 4
    adamw = True


class nnUNetTrainerGuiDINOBaselinePaper(PaperRecipe, nnUNetTrainerGuiDINOBaseline):
    """Train like nnUNetTrainerGuiDINOBaseline, with the paper's recipe, to compare nnUNetTrainerGuiDINOPaper with."""
