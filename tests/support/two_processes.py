"""Train in two processes on the CPU that stand for two GPUs. The processes import this module by its name.

Its annotations are not postponed: torch reads those of a communication hook.
"""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import planned
import torch
import torch.distributed as dist
from guided_batches import WITH_IGNORE, SumOfOutputs, guided_batch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer  # noqa: N813  the module
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_guidino.model.encoders import precision
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss

STEPS = 3


def batches(trainer: Any) -> list[dict[str, Any]]:
    """Return whole batches. The foreground differs between images, so the boundaries of the halves differ too."""
    generator = torch.Generator().manual_seed(0)
    size = trainer.configuration_manager.patch_size
    made = []
    for _ in range(STEPS + 1):
        data = torch.randn(4, 3, *size, generator=generator)
        labels = torch.zeros(4, 1, *size)
        for i in range(4):
            labels[i, ..., 4 : 10 + 5 * i] = 1
            labels[i, ..., 8:24, 6 : 8 + i] = len(trainer.label_manager.foreground_labels)
        if trainer.label_manager.has_regions:
            labels = torch.cat((labels > 0, labels == 2), dim=1)
        half = (slice(None), slice(None), *[slice(None, None, 2)] * len(size))
        made.append({"data": data, "target": [labels, labels[half]]})
    return made


def part_of(batch: dict[str, Any], rank: int, world_size: int) -> dict[str, Any]:
    own = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    return {"data": batch["data"][own], "target": [target[own] for target in batch["target"]]}


def initialized(
    name: str, rank: int, world_size: int, folder: Path, settings: dict[str, Any], compiled: bool = False
) -> Any:
    """Return a trainer as run_ddp makes it: nnU-Net's initialize(), called by ours, wraps the network."""
    torch.set_num_threads(1)
    precision.has_bfloat16 = lambda device: False  # as conftest.py has it: in bfloat16 a sum depends on its parts
    trainer = planned.build_trainer(name, fold=rank, batch_size=4, **settings)
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
        warnings.filterwarnings("error", message="Grad strides do not match bucket view strides")
        # In place of CUDA, on which nnU-Net insists: the two lines in which its __init__ notices the process group,
        # and the device on which it wraps.
        trainer.is_ddp, trainer.local_rank = True, rank
        nnunet_trainer.DDP = partial(on_the_cpu, compiled=compiled)
    trainer.initialize()
    return trainer


def on_the_cpu(network: torch.nn.Module, device_ids: list[int], compiled: bool) -> DistributedDataParallel:
    if not compiled:
        return DistributedDataParallel(network)
    dist._DEFAULT_FIRST_BUCKET_BYTES = 1024  # a megabyte is more than these networks have
    return DistributedDataParallel(torch.compile(network, backend="aot_eager"), bucket_cap_mb=0.02)


def train(rank: int, world_size: int, folder: Path, settings: dict[str, Any], compiled: bool = False) -> None:
    """Run some steps of the trainer, and save weights and logged values."""
    trainer = initialized("nnUNetTrainerGuiDINO_seed0", rank, world_size, folder, settings, compiled)
    communicated: list[int] = []
    if world_size > 1:
        trainer.network.register_comm_hook(communicated, counting_hook)
    parameters = [p for p in trainer.network.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in parameters)
    if isinstance(trainer.optimizer, torch.optim.AdamW):
        # It makes whole steps of rounding errors: a bias before a normalisation has no other gradient.
        trainer.optimizer = torch.optim.SGD(parameters, 1e-2)
    trainer.network.train()
    *training, validation = [part_of(batch, rank, world_size) for batch in batches(trainer)]
    outputs = [trainer.train_step(batch) for batch in training]
    if world_size > 1:
        assert sum(communicated) == STEPS * trainable
        assert len(communicated) > STEPS or not compiled  # several buckets
    trainer.on_train_epoch_end(outputs)
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(validation)])
    logged = {name: values for name, values in trainer.logger.get_checkpoint().items() if values}
    weights = trainer.bare_network().state_dict()
    torch.save({"logged": logged, "weights": weights}, folder / f"{world_size}_{rank}.pt")
    if world_size > 1:
        dist.destroy_process_group()


def counting_hook(communicated: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    communicated.append(bucket.buffer().numel())
    future = dist.all_reduce(bucket.buffer() / dist.get_world_size(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def unseeded(rank: int, folder: Path, settings: dict[str, Any]) -> None:
    torch.manual_seed(rank)  # as different as two processes are
    trainer = initialized("nnUNetTrainerGuiDINO", rank, 2, folder, settings)
    before = {name: p.detach().clone() for name, p in trainer.bare_network().named_parameters()}
    trainer.network.train()
    for batch in batches(trainer)[:2]:
        trainer.train_step(part_of(batch, rank, 2))
    after = dict(trainer.bare_network().named_parameters())
    torch.save({"before": before, "after": after}, folder / f"unseeded_{rank}.pt")
    dist.destroy_process_group()


def loss_of_half(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    outputs, targets = guided_batch(WITH_IGNORE, 2, 16, 24)
    own = slice(rank, rank + 1)
    outputs = [output.detach()[own].requires_grad_() for output in outputs]
    GuidedLoss(NoLoss(), WITH_IGNORE, {"guide": 1.0, "boundary": 1.0})(
        outputs, [target[own] for target in targets]
    ).backward()
    torch.save([output.grad for output in (outputs[0], outputs[2])], folder / f"{rank}.pt")
    dist.destroy_process_group()


class NoLoss(SumOfOutputs):
    """A substitute for nnU-Net's loss, whose cross-entropy is a mean over the valid pixels of each GPU."""

    def forward(self, output, target):
        return 0 * super().forward(output, target)
