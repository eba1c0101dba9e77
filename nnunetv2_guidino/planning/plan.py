"""Derive a plans file for an experiment with the guide: a sibling with a name of its own that shares the preprocessed
data and is trained with nnU-Net's -p. Or show the guide of any plans file or trained model.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import GATES, GATINGS, GUIDES, READOUTS, SIMILARITIES, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.plans import (
    derive_plans,
    guide_settings,
    preprocessed_folder,
    read_plans,
    set_in_plans,
    write_new_plans,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="name or number")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="plans to derive from (default: %(default)s)")
    parser.add_argument("-o", dest="output", metavar="NAME", help="name of the new plans")
    parser.add_argument("-c", dest="configuration", default="2d", help="whose memory to estimate (default: 2d)")
    parser.add_argument(
        "--gpu_memory_target_in_gb",
        type=float,
        metavar="GB",
        help="lower the batch size of -c, never below 2, until the guided training is estimated to fit",
    )
    parser.add_argument(
        "--show",
        nargs="?",
        const="",
        metavar="PATH",
        help="print the guide section of a plans file or a trained model's folder, or of -d -p, and do nothing else",
    )
    guide = parser.add_argument_group("settings of the guide (docs/reference/guide_settings.md)")
    for option, options in GUIDE_OPTIONS.items():
        guide.add_argument(option, default=argparse.SUPPRESS, **options)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other value, as JSON: a guide setting (lora.rank=4), or one in the plans that has a path there "
        "(configurations.2d.batch_size=4); can be repeated",
    )


def parse_layer(text: str) -> int | list[int] | None:
    """ "last", a number, or several with commas."""
    if text == "last":
        return None
    numbers = [int(number) for number in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


parse_layer.__name__ = "layer"  # argparse's messages name it

# The destination is the setting's key; "lora.rank" is a key of the section "lora".
GUIDE_OPTIONS: dict[str, dict[str, Any]] = {
    "--encoder": {"metavar": "NAME_OR_DIR", "help": "name on the Hugging Face hub, or a folder"},
    "--layer": {"type": parse_layer, "help": 'block whose tokens are used: "last", a number, or several: 8,10'},
    "--min-input-size": {"type": int, "metavar": "PIXELS", "help": "shorter side of the encoder's input, at least"},
    "--prototypes": {"type": int, "metavar": "K", "help": "size of the TokenBook"},
    "--similarity": {"choices": SIMILARITIES, "help": "of tokens and prototypes"},
    "--readout": {"choices": READOUTS, "help": "from similarity to guide"},
    "--guides": {"choices": GUIDES, "help": "one guide for the foreground, or one for each class or region"},
    "--slice-stride": {"type": int, "metavar": "N", "help": "of a volume, encode every N-th slice"},
    "--gate": {"choices": GATES, "help": "which features the guide acts on"},
    "--gating": {"choices": GATINGS, "help": "how it acts on them"},
    "--lambda-guide": {"type": float, "metavar": "λ", "help": "weight of the guide's cross-entropy; 0: off"},
    "--lambda-boundary": {"type": float, "metavar": "λ", "help": "weight of the boundary loss; 0: off"},
    "--lora": {
        "action": argparse.BooleanOptionalAction,
        "help": "adapt the encoder with LoRA, or freeze it",
    },
    "--lora-rank": {"dest": "lora.rank", "type": int, "metavar": "R", "help": "rank of LoRA's updates"},
    "--lora-alpha": {"dest": "lora.alpha", "type": float, "metavar": "A", "help": "updates are scaled by A / R"},
    "--lora-dropout": {"dest": "lora.dropout", "type": float, "metavar": "P", "help": "of the adapters' inputs"},
    "--lora-learning-rate": {"dest": "lora.learning_rate", "type": float, "metavar": "LR", "help": "of the adapters"},
}


def run(args: argparse.Namespace) -> None:
    if args.show is not None:
        show(Path(args.show) if args.show else _plans_file(args, args.plans))
        return
    if not args.output:
        raise GuidinoError("-o NAME is missing: the new plans need a name of their own")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", args.output) or "__" in args.output:
        raise GuidinoError(f"-o {args.output}: expected letters, digits, - and single _: it names files and folders")
    source_file, file = _plans_file(args, args.plans), _plans_file(args, args.output)
    source = read_plans(source_file)
    derived = derive_plans(source, args.output, guide_settings(source, _given_settings(args)))
    for key, value in _pairs(args.set):
        if key.startswith("configurations."):
            set_in_plans(derived, key, value)
    memory = estimated_memory(derived, args.configuration, file.parent, args.gpu_memory_target_in_gb)
    write_new_plans(file, derived)
    print(f"{file}\nagainst {source_file}:")
    for line in differences(source, derived):
        print(f"  {line}")
    print(f"{args.configuration}: {memory}")
    print(f"nnUNetv2_train {args.dataset} {args.configuration} FOLD -tr nnUNetTrainerGuiDINO -p {args.output}")


def estimated_memory(plans: dict[str, Any], configuration: str, folder: Path, target: float | None) -> str:
    """What a training needs, in words; with a target in GB, the batch size is lowered in `plans` to fit."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_guidino.cost.memory import estimate

    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise GuidinoError(f"-c {configuration}: the plans have no such configuration; there are {known}")
    memory = estimate(plans, configuration, read_plans(folder / "dataset.json"))
    if memory is None:
        reason = "the encoder is not on this machine, or the network does not count itself"
        if target is not None:
            raise GuidinoError(f"the memory cannot be estimated: {reason}")
        return f"no estimate of the memory: {reason}"
    planned = int(PlansManager(plans).get_configuration(configuration).batch_size)
    batch_size = planned if target is None else memory.largest_batch(target, planned)
    if batch_size != planned:
        plans["configurations"][configuration]["batch_size"] = batch_size
    text = memory.describe(batch_size)
    if target is not None and memory.total(batch_size) > target:
        text += f"; more than {target:g} GB even so: a smaller encoder, input size or patch is needed"
    return text


def show(path: Path) -> None:
    """Print the guide section with all its values as JSON."""
    plans = read_plans(path / "plans.json" if path.is_dir() else path)
    section = GuideConfig.from_plans(plans).to_plans()
    print(json.dumps(section, indent=2, ensure_ascii=False))


def _plans_file(args: argparse.Namespace, name: str) -> Path:
    if not args.dataset:
        raise GuidinoError("-d DATASET is missing")
    return preprocessed_folder(args.dataset) / f"{name}.json"


def _given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the guide by key, in the order in which they shall take effect."""
    options = (options.get("dest", option[2:].replace("-", "_")) for option, options in GUIDE_OPTIONS.items())
    given = {key: vars(args)[key] for key in options if key in vars(args)}
    if "lora" in given:
        given["lora"] = {} if given["lora"] else None
    return given | {key: value for key, value in _pairs(args.set) if not key.startswith("configurations.")}


def _pairs(arguments: list[str]) -> Iterator[tuple[str, Any]]:
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise GuidinoError(f"--set {argument}: expected KEY=VALUE")
        try:
            yield key, json.loads(text)
        except json.JSONDecodeError:
            yield key, text  # an unquoted string


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """One line for each value that differs or is new."""
    old, new = dict(_flat(before)), dict(_flat(after))
    for key in sorted({*old, *new}):
        if key not in old:
            yield f"+ {key}: {_json(new[key])}"
        elif key not in new:
            yield f"- {key}: {_json(old[key])}"
        elif old[key] != new[key]:
            yield f"~ {key}: {_json(old[key])} -> {_json(new[key])}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
