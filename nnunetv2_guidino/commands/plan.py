"""Derive a plans file for an experiment with the guide: a sibling with a name of its own that shares the preprocessed
data and is trained with nnU-Net's -p. Or show the guide of any plans file or trained model.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_guidino import lists
from nnunetv2_guidino.bounds import GIGABYTES
from nnunetv2_guidino.commands.options import layer, number
from nnunetv2_guidino.config import GUIDES, LAMBDA, READOUTS, SIMILARITIES
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.plan.network_options import WIDTHS, Network

NETWORK = "architecture."  # begins the settings of --architecture's network


def _choices(what: str, table: Mapping[str, lists.Entry]) -> dict[str, Any]:
    """An option whose values are the names in a table."""
    summaries = "; ".join(f"{name}: {entry.summary}" for name, entry in table.items())
    return {"choices": tuple(table), "help": f"{what}. {summaries}".replace("%", "%%")}


# Their ranges are GuideConfig's. The destination is the key; "lora.rank" is one of the section "lora".
GUIDE_OPTIONS: dict[str, dict[str, Any]] = {
    "--encoder": {"metavar": "NAME_OR_DIR", "help": "name on the Hugging Face hub, or a folder"},
    "--layer": {"type": layer, "help": 'block whose tokens are used: "last", a number, or several: 8,10'},
    "--min-input-size": {"type": int, "metavar": "PIXELS", "help": "of the encoder's input, at least"},
    "--max-input-size": {"type": int, "metavar": "PIXELS", "help": "side of a square of the largest area it may have"},
    "--prototypes": {"type": int, "metavar": "K", "help": "size of the TokenBook"},
    "--similarity": {"choices": SIMILARITIES, "help": "of tokens and prototypes"},
    "--readout": {"choices": READOUTS, "help": "from similarity to guide"},
    "--guides": {"choices": GUIDES, "help": "one guide for the foreground, or one for each class or region"},
    "--slice-stride": {"type": int, "metavar": "N", "help": "of a volume, encode every N-th slice"},
    "--gate-at": _choices("which features the guide acts on", lists.GATE_POSITIONS),
    "--gate": _choices("how it acts on them", lists.GATES),
    "--late-fusion": {
        "action": argparse.BooleanOptionalAction,
        "help": "add the guide's evidence to the segmentation's logits, with a learned weight",
    },
    **{
        f"--{LAMBDA}{name}".replace("_", "-"): {
            "type": float,
            "metavar": "λ",
            "help": f"weight of {term.summary} (default {term.weight:g}); 0: off".replace("%", "%%"),
        }
        for name, term in lists.LOSS_TERMS.items()
    },
    "--lora": {
        "action": argparse.BooleanOptionalAction,
        "help": "adapt the encoder with LoRA, or freeze it",
    },
    "--lora-rank": {"dest": "lora.rank", "type": int, "metavar": "R", "help": "rank of LoRA's updates"},
    "--lora-alpha": {"dest": "lora.alpha", "type": float, "metavar": "A", "help": "scale them by A / R"},
    "--lora-dropout": {
        "dest": "lora.dropout", "type": float, "metavar": "P", "help": "of the adapters' inputs"
    },
    "--lora-learning-rate": {
        "dest": "lora.learning_rate", "type": float, "metavar": "LR", "help": "of the adapters"
    },
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guidino plan`."""
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="name or number")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="plans to derive from (default: %(default)s)")
    parser.add_argument("-o", dest="output", metavar="NAME", help="name of the new plans")
    parser.add_argument("-c", dest="configuration", default="2d", help="whose memory to estimate (default: 2d)")
    parser.add_argument(
        "--gpu_memory_target_in_gb",
        type=number(GIGABYTES),
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
    network = parser.add_argument_group("another network (docs/reference/architectures.md)")
    network.add_argument(
        "--architecture",
        **_choices("in every configuration of its dimensions; the others are left out", lists.ARCHITECTURES),
    )
    network.add_argument(
        "--width",
        choices=WIDTHS,
        default=WIDTHS[0],
        help="channels and levels: the paper's, or as nnU-Net planned, where the network can follow (default: paper)",
    )
    guide = parser.add_argument_group("settings of the guide (docs/reference/guide_settings.md)")
    for option, options in GUIDE_OPTIONS.items():
        guide.add_argument(option, default=argparse.SUPPRESS, **options)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other value, as JSON: a guide setting (lora.rank=4), one of the network that --architecture names "
        "(architecture.drop_path=0.1), or one in the plans that has a path there and does not belong to the "
        "preprocessed data (configurations.2d.batch_size=4); can be repeated",
    )


def run(args: argparse.Namespace) -> None:
    """Write the plans and print what differs, or show a guide."""
    from nnunetv2_guidino.tools.plan.derive_plans import guide_section, plan

    if args.show is not None:
        path = Path(args.show) if args.show else _plans_file(args)
        print(json.dumps(guide_section(path), indent=2, ensure_ascii=False))
        return
    if not args.output:
        raise GuidinoError("-o NAME is missing: the new plans need a name of their own")
    if not args.dataset:
        raise GuidinoError("-d DATASET is missing")
    given = _given(args)
    changes = {key: value for key, value in given.items() if key.startswith("configurations.")}
    network = _network(args, given)
    planned = plan(
        dataset=args.dataset,
        output=args.output,
        plans=args.plans,
        configuration=args.configuration,
        settings={key: value for key, value in given.items() if not key.startswith(("configurations.", NETWORK))},
        changes=changes,
        gpu_memory_target=args.gpu_memory_target_in_gb,
        network=network,
    )
    print(f"{planned.file}\nagainst {planned.source}:")
    for line in planned.differences:
        print(f"  {line}")
    print(*planned.choices, f"{args.configuration}: {planned.memory}", sep="\n")
    dataset, configuration = shlex.quote(args.dataset), shlex.quote(args.configuration)
    # Transformers and splines fail under nnU-Net's own recipe.
    trainers = ("",) if network is None else ("Paper", "BaselinePaper")
    for kind in trainers:
        print(f"nnUNetv2_train {dataset} {configuration} FOLD -tr nnUNetTrainerGuiDINO{kind} -p {args.output}")


def _network(args: argparse.Namespace, given: Mapping[str, Any]) -> Network | None:
    settings = {key.removeprefix(NETWORK): value for key, value in given.items() if key.startswith(NETWORK)}
    if args.architecture is not None:
        return Network(args.architecture, args.width, settings)
    if settings or args.width != WIDTHS[0]:
        asked = f"--set {NETWORK}{next(iter(settings))}" if settings else f"--width {args.width}"
        raise GuidinoError(f"{asked} is for the network that --architecture names; give that too")
    return None


def _plans_file(args: argparse.Namespace) -> Path:
    from nnunetv2_guidino.nnunet.folders import preprocessed_folder

    if not args.dataset:
        raise GuidinoError("-d DATASET is missing")
    return preprocessed_folder(args.dataset) / f"{args.plans}.json"


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Values by key, of options and of --set, in the order in which they shall take effect."""
    options = (options.get("dest", option[2:].replace("-", "_")) for option, options in GUIDE_OPTIONS.items())
    given = {key: vars(args)[key] for key in options if key in vars(args)}
    if "lora" in given:
        given["lora"] = {} if given["lora"] else None
    for key, value in _pairs(args.set):
        if key in given and given[key] != value:
            raise GuidinoError(f"{key} is given twice: {json.dumps(given[key])} and {json.dumps(value)}")
        given[key] = value
    return given


def _pairs(arguments: list[str]) -> Iterator[tuple[str, Any]]:
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise GuidinoError(f"--set {argument}: expected KEY=VALUE")
        try:
            yield key, json.loads(text)
        except (ValueError, RecursionError):
            yield key, text  # an unquoted string
