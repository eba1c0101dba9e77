"""What a guide costs on a user's own plans and device: seconds and memory beside the plain network's, in one run."""

from __future__ import annotations

import gc
import platform
import time
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
from nnunetv2_guidino.lab.cost.fresh import in_fresh_process
from nnunetv2_guidino.lab.cost.step_parts import parts
from nnunetv2_guidino.model.encoders.source import versions
from nnunetv2_guidino.nnunet.folders import preprocessed_folder
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.doctor.random_training import BareEncoder, Prediction, Training, build_trainer, dummy_batch
from nnunetv2_guidino.tools.doctor.trainer_import import NNUNETS_OWN

PLAIN, ENCODER, GUIDED, LORA = "plain", "encoder", "guided", "guided, LoRA"
TRAINERS = {PLAIN: "nnUNetTrainerGuiDINOBaseline", GUIDED: "nnUNetTrainerGuiDINO", LORA: "nnUNetTrainerGuiDINOLoRA"}
MEASURES = {  # with what each is, and its unit
    "step": ("a training step", "s"),
    "tile": ("one patch predicted", "s"),
    "image": ("one patch predicted with mirroring", "s"),
    "folds": ("one patch predicted by five folds", "s"),
    "memory": ("peak memory of training steps, beyond an idle process's", "MiB"),
    "start": ("import and construction of a training", "s"),
}
STEPS_FOR_MEMORY = 2  # the optimizer has its momentum from the second on
STARTS = 3


class Key(NamedTuple):
    """What was measured of which network."""

    measure: str
    plans: str
    network: str


@dataclass(frozen=True)
class Costs:
    """What was measured, and on what.

    Args:
        about: Machine, versions, and what of the plans matters, as plain JSON.
        values: In the units of MEASURES, one for each round; those of one round were measured one after the other.
    """

    about: dict[str, Any]
    values: dict[Key, list[float]] = field(default_factory=dict)

    def against(self, key: Key, networks: Sequence[str], plans: str | None = None) -> list[float] | None:
        """The values divided, round by round, by the sum of other networks'; None where one of these has none.

        Args:
            networks: Whose values are added.
            plans: Theirs; default: the same.
        """
        others = [Key(key.measure, plans or key.plans, network) for network in networks]
        if not self.values.keys() >= {*others}:
            return None
        sums = map(sum, zip(*(self.values[other] for other in others), strict=True))
        return [value / total for value, total in zip(self.values[key], sums, strict=True)]

    def encoder_passes(self, key: Key) -> list[float] | None:
        """What the network takes beyond the plain one of its plans, in passes of the encoder; None as in `against`."""
        plain, encoder = (self.values.get(key._replace(network=network)) for network in (PLAIN, ENCODER))
        if plain is None or encoder is None:
            return None
        return [(a - b) / c for a, b, c in zip(self.values[key], plain, encoder, strict=True)]


def measure(
    dataset: str,
    configuration: str = "2d",
    plans: Sequence[str] = ("nnUNetPlans",),
    beside: Sequence[str] = (),
    device: str = "cpu",
    rounds: int = 20,
) -> Costs:
    """Time the plain network, the encoder alone, the guided network and the one with LoRA, by turns.

    The networks are built by the trainers that train them, and fed with random images. Nothing is written; of the data
    set, plans and dataset.json are all that is read.

    Args:
        dataset: Name or number of a data set that nnU-Net has planned.
        configuration: Of the plans.
        plans: Names of plans; the first one's plain network is what all is compared with.
        beside: Further plans, measured without a guide.
        device: "cpu", "cuda" or "mps".
        rounds: How often each is timed. A ratio's interval needs six at least.

    Raises:
        GuidinoError: If there are no such data or plans, nothing is known of the encoder, or memory does not suffice.
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
    try:
        # first, while this process holds nothing that they would have to share the memory with
        values = dict(_in_fresh_processes(trainings))
        actions, about = _steps(trainings)
        values |= interleaved(actions, rounds, where)
        parts_of_step = _parts(trainings, rounds, where)
        # Gradients and momentum of all networks have to go before five folds of each come; trainers are in circles.
        actions.clear()
        gc.collect()
        values |= interleaved(_predictions(trainings), rounds, where)
    except torch.OutOfMemoryError as error:
        raise GuidinoError(
            f"-device {device} has too little memory for these networks side by side: name fewer plans, or give plans "
            "a smaller batch (guidino plan --set configurations.2d.batch_size=2)"
        ) from error
    order = [Key(name, *network) for name in MEASURES for network in _networks(trainings)]
    return Costs(
        {
            "dataset": folder.name,
            "configuration": configuration,
            "rounds": rounds,
            "plans": about,
            **parts_of_step,
            **_machine(where),
        },
        {key: values[key] for key in order if key in values},
    )


def _networks(trainings: Mapping[tuple[str, str], Training]) -> Iterator[tuple[str, str]]:
    """Plans and networks in the order in which they are shown: the encoder behind the plain network."""
    for name, network in trainings:
        yield name, network
        if network == PLAIN:
            yield name, ENCODER


def _in_fresh_processes(trainings: Mapping[tuple[str, str], Training]) -> Iterator[tuple[Key, list[float]]]:
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
    """A plain network by nnU-Net's own trainer, so that nothing that we import is counted as the plain network's.

    A guided network keeps its trainer, and so does one of ours, whose pretrained weights no other would read.
    """
    if training.trainer != TRAINERS[PLAIN]:
        return training
    settings = PlansFile.read(training.plans_file).configuration(training.configuration)
    ours = settings.network_arch_class_name.startswith("nnunetv2_guidino.")
    return training if ours else replace(training, trainer=NNUNETS_OWN)


def _steps(trainings: Mapping[tuple[str, str], Training]) -> tuple[dict[Key, Callable[[], Any]], dict[str, Any]]:
    """Training steps, and what is known of the plans."""
    actions: dict[Key, Callable[[], Any]] = {}
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


def _parts(trainings: Mapping[tuple[str, str], Training], rounds: int, device: torch.device) -> dict[str, Any]:
    """Of the first guided network; on a GPU alone: a CPU's clock is too rough for differences."""
    if device.type != "cuda":
        return {}
    trainer = build_trainer(next(training for (_, network), training in trainings.items() if network == GUIDED))

    def time_each(actions: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        seconds = interleaved({Key("part", "", name): action for name, action in actions.items()}, rounds, device)
        return {key.network: values for key, values in seconds.items()}

    return {"parts": parts(trainer, dummy_batch(trainer), time_each)}


def _predictions(trainings: Mapping[tuple[str, str], Training]) -> dict[Key, Callable[[], Any]]:
    actions: dict[Key, Callable[[], Any]] = {}
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
        "encoder": Path(name).name if Path(name).is_dir() else name,  # where it lies means nothing to who reads it
        "encoder_input": list(encoder.input_size(*trainer.configuration_manager.patch_size[-2:])),
        "encoder_mib": sum(p.nbytes for p in encoder.parameters()) / 2**20,
    }


def interleaved(actions: Mapping[Key, Callable[[], Any]], rounds: int, device: torch.device) -> dict[Key, list[float]]:
    """Seconds of each action in each round; all are run in each round, so that a slow moment of the machine meets all.

    Each is run once more just before it is timed. A training makes step after step, and what the others did meanwhile
    has driven its memory out of caches and, on machines that take back what is idle, away.

    Args:
        rounds: How often each is timed.
        device: Whose queue has to be empty before the clock is read.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in actions}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=None):
        for key, action in actions.items():
            action()
            _wait_for(device)
            start = time.perf_counter()
            action()
            _wait_for(device)
            seconds[key].append(time.perf_counter() - start)
    return seconds


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def _machine(device: torch.device) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    elif (cpus := Path("/proc/cpuinfo")).exists():
        models = [line.partition(":")[2].strip() for line in cpus.read_text().splitlines() if "model name" in line]
        name = next(iter(models), name)
    return {
        "device": device.type,
        "machine": name,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
        "versions": versions(),
    }
