"""Measure the cost of a guide on a user's own plans and device: seconds and memory beside the plain network's."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from nnunetv2_guidino.bounds import COUNT
from nnunetv2_guidino.devices import usable_device
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.cost.fresh import NNUNETS_OWN, in_fresh_process
from nnunetv2_guidino.lab.cost.random_training import BareEncoder, Training, build_trainer, checked_plans, dummy_batch
from nnunetv2_guidino.lab.cost.rounds import interleaved
from nnunetv2_guidino.lab.cost.step_parts import parts
from nnunetv2_guidino.model.encoders.source import versions
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.doctor.rehearsal import Prediction

PLAIN, ENCODER, GUIDED, LORA = "plain", "encoder", "guided", "guided, LoRA"
TRAINERS = {PLAIN: "nnUNetTrainerGuiDINOBaseline", GUIDED: "nnUNetTrainerGuiDINO", LORA: "nnUNetTrainerGuiDINOLoRA"}
MEASURES = {  # name -> description and unit
    "step": ("a training step", "s"),
    "tile": ("one patch predicted", "s"),
    "image": ("one patch predicted with mirroring", "s"),
    "folds": ("one patch predicted by five folds", "s"),
    "memory": ("peak memory of training steps, beyond an idle process's", "MiB"),
    "start": ("import and construction of a training", "s"),
}
STEPS_FOR_MEMORY = 2  # the optimizer has its momentum from the second on
STARTS = 3

Trainings = Mapping[tuple[str, str], Training]  # by plans and network


class Key(NamedTuple):
    """A measure of one network."""

    measure: str
    plans: str
    network: str


Actions = dict[Key, Callable[[], Any]]


@dataclass(frozen=True)
class Costs:
    """The measurements.

    Args:
        about: The machine, the versions and the plans, as plain JSON.
        values: A value for each round, in the units of MEASURES. The values of one round were measured one after the
            other.
    """

    about: dict[str, Any]
    values: dict[Key, list[float]] = field(default_factory=dict)


def measure(
    dataset: str,
    configuration: str = "2d",
    plans: Sequence[str] = ("nnUNetPlans",),
    beside: Sequence[str] = (),
    device: str = "cpu",
    rounds: int = 20,
) -> Costs:
    """Time the plain network, the encoder alone, the guided network and the one with LoRA, by turns.

    Their own trainers build the networks, and the images are random. Nothing is written. The data set's plans and
    dataset.json are read, and nothing else of it.

    Args:
        dataset: Name or number of a data set that nnU-Net has planned.
        configuration: The name of a configuration in the plans.
        plans: Names of plans; all networks are compared with the first one's plain network.
        beside: Further plans, measured without a guide.
        device: "cpu", "cuda" or "mps".
        rounds: The number of times that each network is timed. A ratio's interval needs six rounds.

    Raises:
        GuidinoError: If there are no such data or plans, the encoder is not known, or memory does not suffice.
    """
    COUNT.check("--rounds", rounds)
    where = usable_device(device)
    folder = preprocessed_folder(dataset)
    trainings = {
        (name, network): Training(folder / f"{name}.json", configuration, trainer, device)
        for names, networks in ((plans, TRAINERS), (beside, {PLAIN: TRAINERS[PLAIN]}))
        for name in names
        for network, trainer in networks.items()
    }
    for (_, network), training in trainings.items():
        checked_plans(training, guided=network != PLAIN)  # an error must not come after minutes of measuring
    about: dict[str, Any] = {"dataset": folder.name, "configuration": configuration, "rounds": rounds}
    try:
        # first, while this process holds no memory that they would lack
        values = dict(_in_fresh_processes(trainings))
        steps, about["plans"] = _steps(trainings)
        values |= interleaved(steps, rounds, where)
        if where.type == "cuda":  # a CPU's clock is too rough for differences
            guided = next(training for (_, network), training in trainings.items() if network == GUIDED)
            about["parts"] = parts(build_trainer(guided), rounds)
        # Gradients and momentum of all networks have to go before five folds of each come; trainers are in circles.
        steps.clear()
        gc.collect()
        values |= interleaved(_predictions(trainings), rounds, where)
    except torch.OutOfMemoryError as error:
        raise GuidinoError(
            f"-device {device} has too little memory for these networks side by side: name fewer plans, or give plans "
            "a smaller batch (guidino plan --set configurations.2d.batch_size=2)"
        ) from error
    # the encoder is shown behind the plain network
    networks = [(name, n) for name, of in trainings for n in ((PLAIN, ENCODER) if of == PLAIN else (of,))]
    order = [Key(name, *network) for name in MEASURES for network in networks]
    return Costs(about | _machine(where), {key: values[key] for key in order if key in values})


def _in_fresh_processes(trainings: Trainings) -> Iterator[tuple[Key, list[float]]]:
    started = {of: with_stock_trainer(training) for of, training in trainings.items()}
    starts: dict[Key, list[float]] = {}
    for number in tqdm(range(STARTS), desc="processes", leave=False, disable=None):
        for of, training in started.items():
            fresh = in_fresh_process(training, 0 if number else STEPS_FOR_MEMORY)
            starts.setdefault(Key("start", *of), []).append(fresh.start_seconds)
            if fresh.peak_bytes is not None:
                yield Key("memory", *of), [fresh.peak_bytes / 2**20]
    yield from starts.items()


def with_stock_trainer(training: Training) -> Training:
    """Give a plain network nnU-Net's own trainer, so that none of our imports counts as the plain network's.

    A guided network keeps its trainer, and so does a network of ours, whose pretrained weights no other trainer reads.
    """
    if training.trainer != TRAINERS[PLAIN]:
        return training
    settings = PlansFile.read(training.plans_file).configuration(training.configuration)
    ours = settings.network_arch_class_name.startswith("nnunetv2_guidino.")
    return training if ours else replace(training, trainer=NNUNETS_OWN)


def _steps(trainings: Trainings) -> tuple[Actions, dict[str, Any]]:
    """Return the training steps, and a description of each plans file."""
    actions: Actions = {}
    about: dict[str, Any] = {}
    for (plans, network), training in trainings.items():
        trainer = build_trainer(training)
        batch = dummy_batch(trainer)
        actions[Key("step", plans, network)] = partial(trainer.train_step, batch)
        about.setdefault(plans, {"batch_size": trainer.batch_size, "patch_size": [*batch["data"].shape[2:]]})
        if network == GUIDED:
            actions[Key("step", plans, ENCODER)] = partial(BareEncoder(trainer), batch["data"], training=True)
            about[plans] |= _about_encoder(trainer)
    return actions, about


def _predictions(trainings: Trainings) -> Actions:
    actions: Actions = {}
    for (plans, network), training in trainings.items():
        trainer = build_trainer(training)
        prediction = Prediction(trainer)
        # To predict, LoRA is merged, so that the network is the guided one; but each fold has another encoder.
        for name in ("folds",) if network == LORA else ("tile", "image", "folds"):
            actions[Key(name, plans, network)] = getattr(prediction, name)
        if network == GUIDED:
            tile = partial(BareEncoder(trainer), dummy_batch(trainer)["data"][:1], training=False)
            for name, times in (("tile", 1), ("image", prediction.mirrored), ("folds", 1)):
                actions[Key(name, plans, ENCODER)] = partial(_repeat, times, tile)
    return actions


def _repeat(times: int, action: Callable[[], Any]) -> None:
    for _ in range(times):
        action()


def _about_encoder(trainer: Any) -> dict[str, Any]:
    encoder, name = trainer.bare_network().token_encoder, trainer.guide_config.encoder
    return {
        "encoder": Path(name).name if Path(name).is_dir() else name,  # another reader's folders mean nothing
        "encoder_input": list(encoder.input_size(*trainer.configuration_manager.patch_size[-2:])),
        "encoder_mib": sum(p.nbytes for p in encoder.parameters()) / 2**20,
    }


def _machine(device: torch.device) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    elif (cpus := Path("/proc/cpuinfo")).exists():
        models = (line.partition(":")[2].strip() for line in cpus.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return {
        "device": device.type,
        "machine": name,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "versions": versions(),
    }
