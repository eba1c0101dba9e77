"""Choose, fetch, check and probe pretrained encoders; export a trained model's LoRA adapters."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean

from nnunetv2_guidino.planning.plan import parse_layer
from nnunetv2_guidino.config import ENCODER_VARIABLE, GuideConfig
from nnunetv2_guidino.encoders.registry import KNOWN_ENCODERS, list_encoders
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.plans import preprocessed_folder, read_plans


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("list", help="known encoders: licence, size, recommended layer; needs no network")
    action.set_defaults(action=_list)

    action = actions.add_parser("fetch", help="download an encoder into a folder, for nodes without internet")
    action.add_argument("name", metavar="NAME", help="on the Hugging Face hub, from the list or another")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, required=True)
    action.set_defaults(action=_fetch)

    action = actions.add_parser("check", help="load an encoder, run it, print its token grid and seconds per image")
    action.add_argument("encoder", metavar="NAME_OR_DIR")
    action.add_argument("--layer", type=parse_layer, help="default: last")
    action.add_argument("--size", type=int, default=256, metavar="PIXELS", help="default: %(default)s")
    action.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    action.set_defaults(action=_check)

    action = actions.add_parser(
        "probe",
        help="before any training: the guide's Dice from each layer and input size, on a fold",
    )
    action.add_argument("-d", dest="dataset", metavar="DATASET", required=True, help="name or number")
    action.add_argument("-c", dest="configuration", default="2d", help="default: %(default)s")
    action.add_argument("-f", dest="fold", type=int, default=0, help="default: %(default)s")
    action.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, help="write probe.txt and probe.png there")
    action.add_argument("--encoder", metavar="NAME_OR_DIR", help=f"default: the plans', else {ENCODER_VARIABLE}")
    action.add_argument("--layers", type=_layers, default=None, metavar="4,8,12", help='default: "all"')
    action.add_argument("--sizes", type=int, nargs="+", metavar="PIXELS", help="default: the plans' min_input_size")
    action.add_argument("--seeds", type=int, default=1, metavar="N", help="TokenBooks per layer (default: %(default)s)")
    action.add_argument("--steps", type=int, default=320, help="of the TokenBook's training (default: %(default)s)")
    action.add_argument("--patches", type=int, default=1, metavar="N", help="per case (default: %(default)s)")
    action.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    action.set_defaults(action=_probe)

    action = actions.add_parser("cost", help="tokens, GFLOPs, parameters and memory at several input sizes")
    action.add_argument("names", metavar="NAME", nargs="*", default=[*KNOWN_ENCODERS], help="default: all known ones")
    action.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512], metavar="PIXELS")
    action.set_defaults(action=_cost)

    action = actions.add_parser("export-lora", help="write a trained model's LoRA adapters in peft's format")
    action.add_argument("model_folder", type=Path, help="TRAINER__PLANS__CONFIGURATION in nnUNet_results")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, required=True, help="folder to write")
    action.add_argument("-f", dest="fold", default="0", help="fold (default: %(default)s)")
    action.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    action.set_defaults(action=_export_lora)


def run(args: argparse.Namespace) -> None:
    args.action(args)


# The modules behind the actions import torch, so each is imported when it is asked for.


def _list(args: argparse.Namespace) -> None:
    del args
    print(list_encoders())


def _fetch(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.encoders.fetch import fetch

    weights = fetch(args.name, args.output)
    print(f"{len(weights)} weight file(s), SHA-256 as on the hub. To use them: export {ENCODER_VARIABLE}={args.output}")


def _check(args: argparse.Namespace) -> None:
    import torch

    from nnunetv2_guidino.encoders.check import check

    print(check(args.encoder, args.layer, args.size, torch.device(args.device)))


def _layers(text: str) -> list[int] | None:
    return None if text == "all" else [int(number) for number in text.split(",")]


_layers.__name__ = "layers"  # argparse's messages name it


def _probe(args: argparse.Namespace) -> None:
    import torch

    from nnunetv2_guidino.probe.fold_patches import read_fold
    from nnunetv2_guidino.probe.measure import probe, table, write_results

    for name in ("seeds", "steps", "patches"):
        if getattr(args, name) < 1:
            raise GuidinoError(f"--{name} {getattr(args, name)}: expected at least 1")
    folder = preprocessed_folder(args.dataset)
    config = GuideConfig.from_plans(read_plans(folder / f"{args.plans}.json"))
    if args.encoder:
        config = replace(config, encoder=args.encoder)
    fold = read_fold(folder, args.plans, args.configuration, args.fold)
    sizes = args.sizes or [config.min_input_size]
    title = f"{config.encoder}, {folder.name}, {args.configuration}, fold {args.fold}"
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in fold.cases.items())
    print(f"{title}: cases {counts}; patches of {fold.patch_size[0]}×{fold.patch_size[1]}, {args.patches} per case")
    results = []
    options = (args.seeds, args.steps, args.patches, torch.device(args.device))
    for result in probe(fold, config, args.layers, sizes, *options):
        results.append(result)
        print(f"size {result.size}, layer {result.layer}: guide Dice {mean(result.dice):.3f}", flush=True)
        if args.output:
            write_results(results, title, args.output)
    print(table(results))
    if args.output:
        print(f"Wrote {args.output}/probe.txt and probe.png")
    best = max(results, key=lambda result: mean(result.dice))
    print(
        f"Best: guidino plan -d {args.dataset} -p {args.plans} -o NAME --encoder {config.encoder} "
        f"--layer {best.layer} --min-input-size {best.size}"
    )


def _cost(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.cost.encoder import cost_table

    print(cost_table(args.names, args.sizes))


def _export_lora(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.encoders.export_lora import export_lora

    layers = export_lora(args.model_folder, args.output, args.fold, args.checkpoint)
    print(f"Wrote the adapters of {layers} layers to {args.output}; load them with peft's PeftModel.from_pretrained")
