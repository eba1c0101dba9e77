"""Check that trainings and predictions work on a device: each check is a function of a rehearsal."""

from __future__ import annotations

import gc
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from functorch.compile import make_boxed_func  # type: ignore[import-untyped]
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cosine_similarity

import nnunetv2_guidino
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.printable import first_line
from nnunetv2_guidino.tools.doctor.installation import Finding
from nnunetv2_guidino.tools.doctor.rehearsal import (
    DATASET_JSON,
    GUIDED,
    LORA,
    PLAIN,
    Prediction,
    Rehearsal,
    epoch,
    recompile,
    rehearsal_on,
    temporary_folders,
    volumes_on,
)
from nnunetv2_guidino.tools.plan.memory import estimate

CPU = torch.device("cpu")
START_SCALE = 2**16  # GradScaler's
REPORT = "not as expected: please report it with this line, the GPU, and the versions that `guidino doctor` prints"
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)


def finding(what: str, numbers: str, *wrong: str) -> Finding:
    """Return a finding of these numbers; each text of `wrong` that is not empty names a number that is wrong."""
    missed = [text for text in wrong if text]
    return Finding(what, numbers, f"{'; '.join(missed)}: {REPORT}" if missed else None)


def step_agrees_with_the_cpu(rehearsal: Rehearsal) -> Finding:
    """Compare an eager step with the same step in float32 on the CPU: loss and the gradients of each part."""
    ours, reference = rehearsal.trainer(), rehearsal.trainer(CPU)
    reference.bare_network().token_encoder.eval()  # a CPU predicts in float32
    losses = [_finite_step(trainer, rehearsal) for trainer in (ours, reference)]
    distance = abs(losses[0] - losses[1]) / abs(losses[1])
    gradients = [_gradients(trainer.bare_network()) for trainer in (ours, reference)]
    cosines = {part: float(cosine_similarity(gradients[0][part], of_cpu, 0)) for part, of_cpu in gradients[1].items()}
    frozen = [n for n, p in ours.bare_network().named_parameters() if p.grad is not None and not p.requires_grad]
    return finding(
        "a step beside float32 on the CPU",
        f"loss {100 * distance:.2f} % apart; cosine of gradients "
        + ", ".join(f"{part} {cosine:.4f}" for part, cosine in cosines.items()),
        "" if distance <= 0.01 else "the losses are more than 1 % apart",
        "" if all(cosine > 0.99 for cosine in cosines.values()) else "a cosine is not above 0.99",
        f"frozen parameters have gradients, {frozen[0]} for one" if frozen else "",
    )


def _finite_step(trainer: Any, rehearsal: Rehearsal) -> float:
    """Return the loss of the first step with finite gradients; the steps before it change only the loss scale."""
    batch = rehearsal.batch(trainer)
    for _ in range(8):
        loss = float(trainer.train_step(batch)["loss"])
        if all(p.grad.isfinite().all() for p in trainer.bare_network().parameters() if p.grad is not None):
            break
    return loss


def _gradients(network: Any) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found.setdefault(name.partition(".")[0], []).append(parameter.grad.detach().double().cpu().flatten())
    return {part: torch.cat(gradients) for part, gradients in found.items()}


def two_compiled_epochs(rehearsal: Rehearsal) -> Finding:
    """Check that one whole graph is compiled once, that the loss falls, and that GradScaler skips few steps."""
    torch._dynamo.reset()
    counters.clear()
    trainer = rehearsal.trainer(compiled=True)
    batch = rehearsal.batch(trainer)
    first = epoch(trainer, batch, rehearsal.steps)
    graphs = counters["stats"]["unique_graphs"]
    start = time.perf_counter()
    second = epoch(trainer, batch, rehearsal.steps)
    seconds = (time.perf_counter() - start) / rehearsal.steps
    again, breaks = counters["stats"]["unique_graphs"] - graphs, sum(counters["graph_break"].values())
    skipped = 0 if trainer.grad_scaler is None else round(math.log2(START_SCALE / trainer.grad_scaler.get_scale()))
    scaling = "" if trainer.grad_scaler is None else f", {skipped} steps skipped"
    return finding(
        "two compiled epochs",
        f"{graphs} graphs, {breaks} breaks, {again} compiled again; loss {first[0]:.3f} to {second[-1]:.3f}{scaling}; "
        f"{seconds:.3f} s per step of the second",
        f"graph breaks: {[*counters['graph_break']]}" if breaks else "",
        "graphs were compiled after the first epoch" if again else "",
        "" if second[-1] < first[0] else "the loss does not fall",
        "" if skipped <= 3 else "more than 3 steps were skipped, so that the loss scale is below 2^13",
    )


def backward_formats(rehearsal: Rehearsal) -> Finding:
    """Check that a compiled backward pass with LoRA keeps the format of encoder and similarity: no float16."""
    torch._dynamo.reset()
    found = {"forward": Counter[str](), "backward": Counter[str]()}

    def compiler(part: str) -> Callable[..., Any]:
        def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            nodes = (node for node in graph.graph.nodes if node.target in PRODUCTS and _is_never_in_float16(node))
            found[part].update(str(node.meta["val"].dtype).removeprefix("torch.") for node in nodes)
            return make_boxed_func(graph.forward)

        return count

    adapted = replace(rehearsal, guide={**rehearsal.guide, **LORA})
    trainer = adapted.trainer()
    recompile(trainer, aot_autograd(fw_compiler=compiler("forward"), bw_compiler=compiler("backward")))
    # a CPU plays the GPU, whose autocast nnU-Net switches on
    with torch.autocast("cpu", torch.float16) if rehearsal.device.type == "cpu" else nullcontext():
        trainer.train_step(adapted.batch(trainer))
    return finding(
        "formats of the matrix products of encoder and similarity, with LoRA",
        "; ".join(f"{part} {', '.join(f'{n} in {f}' for f, n in sorted(c.items()))}" for part, c in found.items()),
        "" if not found["backward"]["float16"] else "products of the backward pass are in float16",
    )


def _is_never_in_float16(node: torch.fx.Node) -> bool:
    trace = node.meta.get("stack_trace") or ""
    return "token_encoder.py" in trace or "in _similarity" in trace


def no_waits(rehearsal: Rehearsal) -> Finding:
    """Check that no line of this package makes the host wait for the GPU in a step."""
    trainer = rehearsal.trainer()
    batch = rehearsal.batch(trainer)
    trainer.train_step(batch)
    ours = str(Path(nnunetv2_guidino.__file__).parent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = [f"{w.filename.removeprefix(ours)}:{w.lineno}" for w in caught if w.filename.startswith(ours)]
    return finding("waits for the GPU", f"{len(lines)} from this package", f"at {', '.join(lines)}" if lines else "")


def predictions(rehearsal: Rehearsal) -> Finding:
    """Compare a prediction with the CPU's, and a third fold's with tokens from memory with one without."""
    trainer = rehearsal.trainer()
    for _ in range(rehearsal.steps):
        trainer.train_step(batch := rehearsal.batch(trainer))
    image = batch["data"][0] if len(rehearsal.patch_size) == 3 else batch["data"][0][:, None]
    folds, alone, on_cpu = Prediction(trainer), Prediction(trainer), Prediction(rehearsal.trainer(CPU))
    weights = folds.predictor.list_of_parameters
    for fold in (0, 1, 2):
        remembered = _logits(folds, weights[fold], image)
    equal = torch.equal(remembered, _logits(alone, weights[2], image))
    ours, theirs = (_logits(prediction, weights[0], image).cpu().argmax(0) for prediction in (alone, on_cpu))
    share = float((ours == theirs).float().mean())
    return finding(
        "predictions",
        f"{100 * share:.2f} % of pixels as on the CPU; with tokens from memory "
        + ("the same to the bit" if equal else "others"),
        "" if share > 0.995 else "less than 99.5 % of pixels agree",
        "" if equal else "the token memory changes a prediction",
    )


def _logits(prediction: Prediction, weights: dict[str, Tensor], image: Tensor) -> Tensor:
    prediction.predictor.network.load_state_dict(weights)
    prediction.predictor.use_mirroring = False
    logits: Tensor = prediction.predictor.predict_sliding_window_return_logits(image)
    return logits


def memory(rehearsal: Rehearsal) -> Finding:
    """Compare the memory that a guide adds at the peak with the estimate of `guidino plan`."""
    peaks = []
    for name in (GUIDED, PLAIN):
        gc.collect()  # trainers are in circles
        torch.cuda.empty_cache()
        trainer = rehearsal.trainer(name=name)
        batch = rehearsal.batch(trainer)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - sum(p.nbytes for p in trainer.network.parameters())
        for _ in range(3):
            trainer.train_step(batch)
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**30)
        del trainer
    estimated = estimate(PlansFile(Path("plans.json"), rehearsal.plans(), DATASET_JSON), rehearsal.configuration)
    assert estimated is not None  # the encoder is a known one
    guide, expected = peaks[0] - peaks[1], estimated.guide(rehearsal.batch_size)
    return finding(
        "peak memory of the guide",
        f"{guide:.2f} GB, estimated {expected:.2f} GB; the whole step {peaks[0]:.2f} GB",
        "" if 0.8 <= guide / expected <= 1.2 else "not within 0.8 to 1.2 of the estimate",
    )


def two_gpus(rehearsal: Rehearsal) -> Finding:
    """Train with two processes as `nnUNetv2_train -num_gpus 2` does, compiled; their weights must stay the same."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_on_one_of_two, args=(rehearsal, folder), nprocs=2)  # type: ignore[no-untyped-call]
        losses, weights = zip(*(torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)), strict=True)
    apart = float((weights[0] - weights[1]).abs().max())
    return finding(
        "two GPUs with NCCL",
        f"weights {apart:g} apart; losses {losses[0][0]:.3f} to {losses[0][-1]:.3f}",
        "" if apart == 0 else "the weights differ",
        "" if losses[0][-1] < losses[0][0] else "the loss does not fall",
    )


def _on_one_of_two(rank: int, rehearsal: Rehearsal, folder: str) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    trainer = rehearsal.trainer(compiled=True)
    losses = epoch(trainer, rehearsal.batch(trainer), rehearsal.steps)
    weights = torch.cat([p.detach().cpu().flatten() for p in trainer.network.parameters() if p.requires_grad])
    torch.save((losses, weights), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


CHECKS: list[Callable[[Rehearsal], Finding]] = [
    step_agrees_with_the_cpu, two_compiled_epochs, backward_formats, no_waits, predictions, memory,
]  # fmt: skip
ONLY_WITH_CUDA = {no_waits: "only a GPU is waited for", memory: "only CUDA's allocator counts"}
VOLUME_CHECKS: list[Callable[[Rehearsal], Finding]] = [step_agrees_with_the_cpu, two_compiled_epochs]


def examine_training(device: torch.device, everything: bool = False) -> Iterator[Finding]:
    """Yield the findings of all checks for the device in turn; a check that fails is a finding too.

    Args:
        device: "cpu" or "cuda".
        everything: Check volumes and two GPUs, too.
    """
    rehearsal = rehearsal_on(device)
    patch = "×".join(map(str, rehearsal.patch_size))
    yield Finding("rehearsal", f"{device.type}, random DINOv3 ViT-S/16, patch {patch}, batch {rehearsal.batch_size}")
    left_out = {} if device.type == "cuda" else ONLY_WITH_CUDA
    runs = [(check, rehearsal, "") for check in CHECKS if check not in left_out]
    if everything:
        runs += [(check, volumes_on(device), "volumes with LoRA, ") for check in VOLUME_CHECKS]
        if torch.cuda.device_count() > 1:
            runs.append((two_gpus, rehearsal, ""))
        else:
            left_out = {**left_out, two_gpus: "there are not two"}
    for check, of, prefix in runs:
        yield _run(check, of, prefix)
    if device.type != "cuda":
        left_out = {**left_out, two_compiled_epochs: "traced, no code is generated; no loss scale"}
    if left_out:
        reasons = "; ".join(f"{check.__name__} ({why})" for check, why in left_out.items())
        yield Finding("left out, wholly or in part", reasons)


def _run(check: Callable[[Rehearsal], Finding], rehearsal: Rehearsal, prefix: str) -> Finding:
    try:
        with temporary_folders():
            found = check(rehearsal)
    except Exception as error:
        return Finding(f"{prefix}{check.__name__}", f"fails: {type(error).__name__}: {first_line(error)}", REPORT)
    return replace(found, what=prefix + found.what)
