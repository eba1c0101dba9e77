"""Choose, fetch, check and probe pretrained encoders; export a trained model's LoRA adapters."""

from __future__ import annotations

import argparse
import shlex
from statistics import mean

from nnunetv2_guidino.bounds import FOLD
from nnunetv2_guidino.commands.options import count, device, fold, layer, layers, pixels, torch_device, whole
from nnunetv2_guidino.commands.signature import Action, Option, options_of
from nnunetv2_guidino.config import ENCODER_VARIABLE


def _list(args: argparse.Namespace) -> None:
    del args
    from nnunetv2_guidino.model.encoders.known_encoders import list_encoders

    print(list_encoders())


def _fetch(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.model.encoders.fetch import fetch

    weights = fetch(args.name, args.folder)
    folder = shlex.quote(str(args.folder.absolute()))
    print(f"{len(weights)} weight file(s), SHA-256 as on the hub. To use them: export {ENCODER_VARIABLE}={folder}")


def _check(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.devices import usable_device
    from nnunetv2_guidino.model.encoders.check import check

    print(check(args.encoder, args.layer, args.size, usable_device(args.device)))


def _probe(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.lab.probe.probe import best, probe, table

    asked = probe(**vars(args))
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


def _export_lora(args: argparse.Namespace) -> None:
    from nnunetv2_guidino.model.encoders.export_lora import export_lora

    layers = export_lora(**vars(args))
    print(f"Wrote the adapters of {layers} layers to {args.output}; load them with peft's PeftModel.from_pretrained")


def actions() -> dict[str, Action]:
    """Return the commands of `guidino encoder`."""
    return {
        "list": Action(
            "known encoders: licence, size, recommended layer; needs no network", lambda parser: None, _list
        ),
        "fetch": Action(
            "download an encoder into a folder, for nodes without internet",
            options_of(
                "nnunetv2_guidino.model.encoders.fetch:fetch",
                name=Option("NAME", help="on the Hugging Face hub, from the list or another"),
                folder="-o DIR",
            ),
            _fetch,
        ),
        "check": Action(
            "load an encoder, run it, print its token grid and seconds per image",
            options_of(
                "nnunetv2_guidino.model.encoders.check:check",
                encoder=Option("NAME_OR_DIR", help="name on the Hugging Face hub, or a folder"),
                layer=Option("--layer LAYER", type=layer, default=None, help="last, N, or N,N. Default: last"),
                size=Option("--size PIXELS", type=pixels, default=256, help="side of the image"),
                device=torch_device,
            ),
            _check,
        ),
        "probe": Action(
            "before any training: the guide's Dice from each layer and input size, on a fold",
            options_of(
                "nnunetv2_guidino.lab.probe.probe:probe",
                dataset="-d DATASET",
                configuration="-c CONFIGURATION",
                fold=Option("-f FOLD", type=whole(FOLD)),
                plans="-p PLANS",
                output="-o DIR",
                encoder="--encoder NAME_OR_DIR",
                layers=Option("--layers 4,8,12", type=layers, nargs=None),
                sizes=Option("--sizes PIXELS", type=pixels),
                seeds=Option("--seeds N", type=count),
                steps=Option("--steps N", type=count),
                patches=Option("--patches N", type=count),
                device=device,
            ),
            _probe,
        ),
        "export-lora": Action(
            "write a trained model's LoRA adapters in peft's format",
            options_of(
                "nnunetv2_guidino.model.encoders.export_lora:export_lora",
                model_folder="MODEL_FOLDER",
                output="-o DIR",
                fold=Option("-f FOLD", type=fold, default="0"),
                checkpoint=Option("-chk FILE", default="checkpoint_final.pth"),
            ),
            _export_lora,
        ),
    }
