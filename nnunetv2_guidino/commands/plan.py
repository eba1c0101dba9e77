"""Derive a plans file for an experiment with the guide: a sibling with a name of its own that shares the preprocessed
data and is trained with nnU-Net's -p. Or show the guide of any plans file or trained model.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.bounds import GIGABYTES
from nnunetv2_guidino.commands.options import layer, number
from nnunetv2_guidino.commands.signature import Option, Parameter, options_of, read_parameters
from nnunetv2_guidino.config import CHOICES, LAMBDA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans import FILLED_IN
from nnunetv2_guidino.tools.plan.network_options import WIDTHS, Network

CONFIG = "nnunetv2_guidino.config"
# Prefixes of --set's keys: a change of the plans, and a setting of --architecture's network
CHANGE, NETWORK = "configurations.", "architecture."
OF_NETWORK = "another network (docs/reference/architectures.md)"
OF_GUIDE = "settings of the guide (docs/reference/guide_settings.md)"


def _choices(text: str, names: Iterable[str]) -> dict[str, Any]:
    """Return argparse's keywords for one of the names; the summaries of a table's entries are in the help."""
    entries = names.items() if isinstance(names, Mapping) else ()
    summaries = "; ".join(f"{name}: {entry.summary}" for name, entry in entries)
    return {"choices": tuple(names), "help": f"{text}. {summaries}" if summaries else text}


def _guide_options() -> dict[str, Option]:
    """Return an option for each setting of the guide, by key; "lora.rank" is a key of the section "lora"."""
    settings = {key: one for key, one in read_parameters(f"{CONFIG}:GuideConfig").items() if key != "lambdas"}
    for name, term in lists.LOSS_TERMS.items():
        settings[LAMBDA + name] = Parameter(float, text=f"Weight of {term.summary} (default {term.weight:g}); 0: off")
    settings |= {f"lora.{key}": one for key, one in read_parameters(f"{CONFIG}:LoRA").items()}
    options = {}
    for key, (kind, _, text) in settings.items():
        values: dict[str, Any] = {"help": text.split(". ")[0], "default": argparse.SUPPRESS}
        if key in CHOICES:
            values |= _choices(values["help"], CHOICES[key])
        elif kind is bool or key == "lora":
            values |= {"action": argparse.BooleanOptionalAction}
        else:
            values |= {"type": layer, "metavar": "last|N|N,N"} if key == "layer" else {"type": kind, "metavar": "X"}
        options[key] = Option("--" + re.sub(r"[._]", "-", key), group=OF_GUIDE, **values)
    return {key: option for key, option in options.items() if key not in FILLED_IN}


GUIDE_OPTIONS = _guide_options()

add_arguments = options_of(
    "nnunetv2_guidino.tools.plan.derive_plans:plan",
    "nnunetv2_guidino.tools.plan.network_options:Network",
    dataset=Option("-d DATASET", default=None),
    plans="-p PLANS",
    output=Option("-o NAME", default=None),
    configuration="-c CONFIGURATION",
    gpu_memory_target=Option("--gpu_memory_target_in_gb GB", type=number(GIGABYTES)),
    show=Option(
        "--show PATH",
        nargs="?",
        const="",
        default=None,
        help="print the guide section of a plans file or a trained model's folder, or of -d -p, and do nothing else",
    ),
    name=Option(
        "--architecture",
        group=OF_NETWORK,
        default=None,
        **_choices("in every configuration of its dimensions; the others are left out", lists.ARCHITECTURES),
    ),
    width=Option("--width", group=OF_NETWORK, choices=WIDTHS),
    **GUIDE_OPTIONS,
    set=Option(
        "--set KEY=VALUE",
        action="append",
        default=[],
        help="any other value, as JSON: a guide setting (lora.rank=4), one of the network that --architecture names "
        "(architecture.drop_path=0.1), or one in the plans that has a path there and does not belong to the "
        "preprocessed data (configurations.2d.batch_size=4); can be repeated",
    ),
)


def run(args: argparse.Namespace) -> None:
    """Write the plans and print what differs, or show a guide."""
    from nnunetv2_guidino.nnunet.folders import preprocessed_folder
    from nnunetv2_guidino.tools.plan.derive_plans import guide_section, plan

    if args.show is None and not args.output:
        raise GuidinoError("-o NAME is missing: the new plans need a name of their own")
    if not args.show and not args.dataset:
        raise GuidinoError("-d DATASET is missing")
    if args.show is not None:
        path = Path(args.show) if args.show else preprocessed_folder(args.dataset) / f"{args.plans}.json"
        print(json.dumps(guide_section(path), indent=2, ensure_ascii=False))
        return
    given = _given(args)
    changes = {key: value for key, value in given.items() if key.startswith(CHANGE)}
    settings = {key: value for key, value in given.items() if not key.startswith((CHANGE, NETWORK))}
    network, target = _network(args, given), args.gpu_memory_target
    planned = plan(args.dataset, args.output, args.plans, args.configuration, settings, changes, target, network)
    print(f"{planned.file}\nagainst {planned.source}:")
    for line in planned.differences:
        print(f"  {line}")
    print(*planned.choices, f"{args.configuration}: {planned.memory}", sep="\n")
    dataset, configuration = shlex.quote(args.dataset), shlex.quote(args.configuration)
    # Transformers and splines fail under nnU-Net's own recipe.
    for kind in ("",) if network is None else ("Paper", "BaselinePaper"):
        print(f"nnUNetv2_train {dataset} {configuration} FOLD -tr nnUNetTrainerGuiDINO{kind} -p {args.output}")


def _network(args: argparse.Namespace, given: Mapping[str, Any]) -> Network | None:
    settings = {key.removeprefix(NETWORK): value for key, value in given.items() if key.startswith(NETWORK)}
    if args.name is not None:
        return Network(args.name, args.width, settings)
    if settings or args.width != WIDTHS[0]:
        asked = f"--set {NETWORK}{next(iter(settings))}" if settings else f"--width {args.width}"
        raise GuidinoError(f"{asked} is for the network that --architecture names; give that too")
    return None


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the guide's options and of --set by key, in the order in which they take effect."""
    given = {key: vars(args)[key] for key in GUIDE_OPTIONS if key in vars(args)}
    if "lora" in given:
        given["lora"] = {} if given["lora"] else None
    for argument in args.set:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise GuidinoError(f"--set {argument}: expected KEY=VALUE")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text  # an unquoted string
        if key in given and given[key] != value:
            raise GuidinoError(f"{key} is given twice: {json.dumps(given[key])} and {json.dumps(value)}")
        given[key] = value
    return given
