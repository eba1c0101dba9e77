"""Choose, fetch, check and probe pretrained encoders; export a trained model's LoRA adapters."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from statistics import mean

from nnunetv2_guidino.bounds import COUNT, FOLD, PIXELS
from nnunetv2_guidino.commands.options import add_device, fold, layer, layers, whole
from nnunetv2_guidino.config import ENCODER_VARIABLE
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS, list_encoders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `guidino encoder` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("list", help="known encoders: licence, size, recommended layer; needs no network")
    action.set_defaults(action=_list)

    action = actions.add_parser("fetch", help="download an encoder into a folder, for nodes without internet")
    action.add_argument("name", metavar="NAME", help="on the Hugging Face hub, from the list or another")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, required=True)
    action.set_defaults(action=_fetch)

    action = actions.add_parser("check", help="load an encoder, run it, print its token grid and seconds per image")
    action.add_argument("encoder", metavar="NAME_OR_DIR")
    action.add_argument("--layer", type=layer, help="default: last")
    action.add_argument("--size", type=whole(PIXELS), default=256, metavar="PIXELS", help="default: %(default)s")
    add_device(action)
    action.set_defaults(action=_check)

    _add_probe(
        actions.add_parser(
            "probe", help="before any training: the guide's Dice from each layer and input size, on a fold"
        )
    )

    action = actions.add_parser("cost", help="tokens, GFLOPs, parameters and memory at several input sizes")
    action.add_argument("names", metavar="NAME", nargs="*", default=[*KNOWN_ENCODERS], help="default: all known ones")
    action.add_argument("--sizes", type=whole(PIXELS), nargs="+", default=[256, 384, 512], metavar="PIXELS")
    action.set_defaults(action=_cost)

    action = actions.add_parser("export-lora", help="write a trained model's LoRA adapters in peft's format")
    action.add_argument("model_folder", type=Path, help="TRAINER__PLANS__CONFIGURATION in nnUNet_results")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, required=True, help="folder to write")
    action.add_argument("-f", dest="fold", type=fold, default="0", help="fold (default: %(default)s)")
    action.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    action.set_defaults(action=_export_lora)


def _add_probe(action: argparse.ArgumentParser) -> None:
    count = whole(COUNT)
    action.add_argument("-d", dest="dataset", metavar="DATASET", required=True, help="name or number")
    action.add_argument("-c", dest="configuration", default="2d", help="default: %(default)s")
    action.add_argument("-f", dest="fold", type=whole(FOLD), default=0, help="default: %(default)s")
    action.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    action.add_argument("-o", dest="output", metavar="DIR", type=Path, help="write probe.txt and probe.png there")
    action.add_argument("--encoder", metavar="NAME_OR_DIR", help=f"default: the plans', else {ENCODER_VARIABLE}")
    action.add_argument("--layers", type=layers, default=None, metavar="4,8,12", help='default: "all"')
    action.add_argument(
        "--sizes", type=whole(PIXELS), nargs="+", metavar="PIXELS", help="default: the plans' min_input_size"
    )
    action.add_argument(
        "--seeds", type=count, default=1, metavar="N", help="TokenBooks per layer (default: %(default)s)"
    )
    action.add_argument("--steps", type=count, default=320, help="of the TokenBook's training (default: %(default)s)")
    action.add_argument("--patches", type=count, default=1, metavar="N", help="per case (default: %(default)s)")
    add_device(action)
    action.set_defaults(action=_probe)


def run(args: argparse.Namespace) -> None:
    """Do what the action says."""
    args.action(args)


# The modules behind the actions import torch, so each is imported when it is asked for.


def _list(args: argparse.Namespace) -> None:
    del args
    print(list_encoders())


def _fetch(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.model.encoders.fetch import fetch

    weights = fetch(args.name, args.output)
    folder = shlex.quote(str(args.output.absolute()))
    print(f"{len(weights)} weight file(s), SHA-256 as on the hub. To use them: export {ENCODER_VARIABLE}={folder}")


def _check(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.devices import usable_device
    from nnunetv2_guidino.model.encoders.check import check

    print(check(args.encoder, args.layer, args.size, usable_device(args.device)))


def _probe(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.lab.probe.probe import best, probe, table

    asked = probe(
        dataset=args.dataset,
        configuration=args.configuration,
        fold=args.fold,
        plans=args.plans,
        encoder=args.encoder,
        layers=args.layers,
        sizes=args.sizes,
        seeds=args.seeds,
        steps=args.steps,
        patches=args.patches,
        device=args.device,
        output=args.output,
    )
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in asked.fold.cases.items())
    height, width = asked.fold.patch_size
    print(f"{asked.title}: cases {counts}; patches of {height}×{width}, {args.patches} per case")
    results = []
    for result in asked:
        results.append(result)
        print(f"size {result.size}, layer {result.layer}: guide Dice {mean(result.dice):.3f}", flush=True)
    print(table(results))
    if args.output:
        print(f"Wrote {args.output}/probe.txt and probe.png")
    winner = best(results)
    print(
        f"Best: guidino plan -d {args.dataset} -p {args.plans} -o NAME --encoder {shlex.quote(asked.config.encoder)} "
        f"--layer {winner.layer} --min-input-size {winner.size} --max-input-size {winner.size}"
    )


def _cost(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.tools.plan.encoder_cost import cost_table

    print(cost_table(args.names, args.sizes))


def _export_lora(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.model.encoders.export_lora import export_lora

    layers = export_lora(args.model_folder, args.output, args.fold, args.checkpoint)
    print(f"Wrote the adapters of {layers} layers to {args.output}; load them with peft's PeftModel.from_pretrained")
