"""nnUNetTrainerGuiDINOBaseline: what a guided training is compared with, and what it stands on."""

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

from nnunetv2_guidino.architectures.token_network import planned_lora
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file
from nnunetv2_guidino.training.one_line_errors import show_errors_as_one_line
from nnunetv2_guidino.training.optimizers import PAPER_LEARNING_RATE, adamw, has_adapters, without_frozen
from nnunetv2_guidino.training.pretrained import LoadsPretrained
from nnunetv2_guidino.training.seeding import SeededDataLoader, environment_variable, seed_everything, some_cases


class nnUNetTrainerGuiDINOBaseline(LoadsPretrained):
    """Stock network and loss at the length and seed that the name gives: what a guided training is compared with.

    Checkpoints are written atomically.
    """

    epochs: int | None = None
    iterations: int | None = None
    cases: int | None = None
    seed: int | None = None
    adamw = False  # instead of nnU-Net's SGD; LoRA needs it
    largest_batch: int | None = None

    output_folder_base: str  # nnU-Net's

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
            # nnU-Net's 50 validation iterations for 250 of training
            self.num_val_iterations_per_epoch = max(1, round(self.iterations * 50 / 250))
            self.num_iterations_per_epoch = self.iterations
        if self.largest_batch is not None:
            batch_size = min(self.largest_batch, self.configuration_manager.batch_size)
            self.configuration_manager.configuration["batch_size"] = batch_size
        if self.adamw or planned_lora(self.configuration_manager.network_arch_init_kwargs) is not None:
            self.initial_lr = PAPER_LEARNING_RATE

    def initialize(self) -> None:
        """Seed, so that two trainings with one seed start with equal weights, and build what nnU-Net trains."""
        if self.seed is not None:
            seed_everything(self.seed)
        super().initialize()

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's optimizer of what is trained, or AdamW with a rate of its own for LoRA."""
        if self.adamw or has_adapters(self.network):
            return adamw(self.network, self.initial_lr, self.weight_decay, self.num_epochs)
        optimizer, lr_scheduler = super().configure_optimizers()
        without_frozen(optimizer)
        return optimizer, lr_scheduler

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's; with a seed, each augmentation worker has its own, and the batches come in a fixed order."""
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

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's fold, or so many of its training cases as the name says; what validates is all of it.

        Raises:
            GuidinoError: If the fold has fewer.
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
        """nnU-Net's, with the same number formats in the backward pass whether the network is compiled or not."""
        with _backward_without_autocast():
            return super().train_step(batch)

    def on_train_start(self) -> None:
        """nnU-Net writes plans.json and its companions in place: here, into a folder from which they go on whole.

        A kill at any moment leaves the earlier ones, and whoever reads them meanwhile finds them whole.
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
        """The hook that nnU-Net calls once they are written."""
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
        """Called when plans.json is about to be written; raises GuidinoError if it must not be."""

    def save_checkpoint(self, filename: str) -> None:
        """Write it whole or not at all; raises GuidinoError if it cannot be written."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # writes nothing
            return
        # torch.save is not atomic: a kill while it writes must leave the last good checkpoint.
        with whole_file(Path(filename)) as unfinished:
            super().save_checkpoint(str(unfinished))


def _backward_without_autocast() -> AbstractContextManager[object]:
    """Have backward passes compiled as they are run: outside autocast, each product in its forward pass's format.

    The first step compiles them within autocast. By default torch applies that to them too, so that products that ran
    in bfloat16 or float32 are differentiated in float16, where scaled gradients overflow. Earlier versions of torch
    have no such setting.
    """
    if not hasattr(functorch_config, "backward_pass_autocast"):
        return nullcontext()
    setting: AbstractContextManager[object] = functorch_config.patch(backward_pass_autocast="off")
    return setting


class PaperRecipe:
    """What section 4.2 of the paper states: AdamW, 1e-4, 400 epochs, batches of 4."""

    epochs: int | None = 400
    largest_batch: int | None = 4
    adamw = True


class nnUNetTrainerGuiDINOBaselinePaper(PaperRecipe, nnUNetTrainerGuiDINOBaseline):
    """nnUNetTrainerGuiDINOBaseline with the paper's recipe: what nnUNetTrainerGuiDINOPaper is compared with."""
