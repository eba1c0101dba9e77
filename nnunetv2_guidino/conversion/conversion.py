"""What the data set converters share: find the pairs, check all of them, then write them as nnU-Net wants them.

A converter describes its data set (`Dataset`) and how it is split; `convert` does the rest, in this order: list the
source, pair images with masks, read every file once and collect all problems; only then write into a hidden folder
beside the target, which gets the target's name when it is complete.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps
from tqdm import tqdm

from nnunetv2_guidino import __version__
from nnunetv2_guidino.conversion.image_files import (
    SourceFile,
    decode,
    is_grey,
    list_files,
    on_black,
    read_image,
    read_mask,
)
from nnunetv2_guidino.errors import GuidinoError

IMAGE_SUFFIX = r"(?i:\.(?:png|jpe?g|bmp|tiff?|gif))"
IMAGES = rf"images/(?P<stem>[^/]+){IMAGE_SUFFIX}"
MASKS = rf"masks/(?P<stem>[^/]+){IMAGE_SUFFIX}"
SPLIT_HELP = "published lists: train.txt, val.txt, test.txt with a case per line, or one json with these keys"
Fold = dict[str, list[str]]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    name: str  # nnU-Net's case identifier
    part: str  # of the published set: Training, trainval …; "" where it has none
    image: SourceFile
    mask: SourceFile


@dataclass(frozen=True)
class Dataset:
    """A data set as published, and as nnU-Net shall know it.

    `image` and `mask` are regular expressions for the end of a path, with a group `stem` that pairs them and, where the
    set is published in parts, a group `part`.
    """

    id: int
    name: str
    image: str
    mask: str
    layout: str  # `image` and `mask` in words, for messages
    labels: tuple[str, ...]  # foreground labels, 1, 2, …
    values: tuple[int, ...] | None = None  # their values in the masks; None: one label, binarised at half of the range
    case_name: str = "{stem}"
    split_files: str = r"(?!)"  # files that the converter's split reads
    counts: Mapping[str, int] = field(default_factory=dict)  # part: cases published
    may_be_grey: bool = False  # one channel if all images are grey
    reference: str = ""
    licence: str = ""
    release: str = ""
    description: str = ""


@dataclass
class Found:
    cases: list[Case] = field(default_factory=list)
    split_files: list[SourceFile] = field(default_factory=list)
    ignored: list[SourceFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Split:
    """Which cases are for testing, and nnU-Net's folds over the others; no folds leave them to nnU-Net."""

    test: frozenset[str] = frozenset()
    folds: tuple[Fold, ...] = ()

    def of(self, case: str) -> str:
        if case in self.test:
            return "test"
        if len(self.folds) != 1:
            return "trainval"
        return "val" if case in self.folds[0]["val"] else "train"


# ---------------------------------------------------------------------------------------------- finding the pairs


def find_cases(dataset: Dataset, files: Iterable[SourceFile]) -> Found:
    """Pair images with masks by their stems. A file without its counterpart is a problem."""
    found = Found()
    images: dict[tuple[str, str], SourceFile] = {}
    masks: dict[tuple[str, str], SourceFile] = {}
    for file in files:
        for pattern, kind in ((dataset.image, images), (dataset.mask, masks)):
            if match := re.search(f"(?:^|/){pattern}$", file.path):
                # macOS decomposes accented letters in file names, other systems do not
                key = (match.groupdict().get("part") or "", unicodedata.normalize("NFC", match["stem"]))
                if key in kind:
                    found.problems.append(f"{file}: has the same name as {kind[key]}; give SRC so that one is left")
                kind[key] = file
                break
        else:
            for_split = re.search(f"(?:^|/){dataset.split_files}$", file.path)
            (found.split_files if for_split else found.ignored).append(file)

    for key in sorted(images.keys() | masks.keys()):
        part, stem = key
        if key not in masks:
            found.problems.append(f"{images[key]}: has no mask")
        elif key not in images:
            found.problems.append(f"{masks[key]}: is the mask of no image")
        else:
            name = dataset.case_name.format(part=part, stem=stem)
            found.cases.append(Case(name, part, images[key], masks[key]))
    if not images and not masks:
        found.problems.append(f"no images found; expected {dataset.layout} in SRC, its subfolders or the zip")
    return found


# --------------------------------------------------------------------------------------- work on one case, in a worker


@dataclass(frozen=True)
class Inspection:
    problems: list[str]
    is_grey: bool = True
    mask_range: int = 0
    is_empty: bool = False


def inspect(case: Case, dataset: Dataset) -> Inspection:
    """Read both files of a case completely and say what is wrong with them."""
    problems = []
    image, labels, mask_range = None, None, 0
    try:
        image = on_black(decode(case.image))
    except Exception as error:  # each of Pillow's decoders has its own way to fail on a damaged file
        problems.append(f"{case.image}: {error}")
    try:
        labels, mask_range = read_mask(case.mask, dataset.values)
    except Exception as error:
        problems.append(f"{case.mask}: {error}")
    if image is None or labels is None:
        return Inspection(problems)
    if image.size != labels.shape[::-1]:
        sizes = "image {}×{}, mask {}×{}".format(*image.size, *labels.shape[::-1])
        problems.append(f"{case.image}: image and mask differ in size ({sizes}; width × height, upright after EXIF)")
    return Inspection(problems, dataset.may_be_grey and is_grey(image), mask_range, not labels.any())


def write_case(
    case_and_split: tuple[Case, str], target: Path, dataset: Dataset, mode: str, size: tuple[int, int] | None
) -> dict[str, Any]:
    """Write one case below `target`; returns its row of mapping.csv. `size` is (height, width)."""
    case, split = case_and_split
    image = read_image(case.image, mode)
    original_size = image.size
    mask = Image.fromarray(read_mask(case.mask, dataset.values)[0])
    if size is not None:
        height, width = size
        shrinks = width <= image.width and height <= image.height
        image = image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    suffix = "Ts" if split == "test" else "Tr"
    # Lossless, four times as fast as zlib's default level, and within a few per cent of its size
    image.save(target / f"images{suffix}" / f"{case.name}_0000.png", compress_type=zlib.Z_RLE)
    mask.save(target / f"labels{suffix}" / f"{case.name}.png", compress_type=zlib.Z_RLE)
    row = {
        "case": case.name,
        "original_image": case.image.path,
        "original_mask": case.mask.path,
        "split": split,
        "width": image.width,
        "height": image.height,
        "foreground_fraction": f"{np.mean(np.asarray(mask) > 0):.6f}",
    }
    if size is not None:
        row |= {"original_width": original_size[0], "original_height": original_size[1]}
    return row


def _leave_with_parent() -> None:
    """Initialise a worker: Ctrl-C is the parent's affair, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _map(function: Callable[[Item], Result], items: Sequence[Item], processes: int, title: str) -> list[Result]:
    bar = partial(tqdm, total=len(items), desc=title, unit=" cases")
    if processes == 1:
        return list(bar(map(function, items)))
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _leave_with_parent)
    try:
        return list(bar(pool.map(function, items)))
    except BrokenProcessPool:
        raise GuidinoError("a worker process was killed; if memory ran out, try fewer processes (-np)") from None
    finally:
        pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------------------------------------- splits


def read_split(files: Iterable[Path], cases: Sequence[Case], problems: list[str]) -> Split:
    """The split that published lists give: text files train…, val… and test… with a case per line, or one json."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            contents = json.loads(text) if file.suffix == ".json" else {file.stem: text.splitlines()}
        except (OSError, ValueError) as error:
            problems.append(f"{file}: cannot be read as a list of cases: {error}")
            continue
        for title, names in contents.items():
            role = next((role for role in lists if title.lower().startswith(role)), None)
            if role is None:
                problems.append(f"{file}: {title!r} is none of train, val, test")
            else:
                stripped = (re.sub(rf"{IMAGE_SUFFIX}$", "", PurePosixPath(name.strip()).name) for name in names)
                lists[role] += [unicodedata.normalize("NFC", name) for name in stripped if name]

    known = {case.name for case in cases}
    times = Counter(name for names in lists.values() for name in names)
    problems += [f"{name}: is in the lists of --split, but not in SRC" for name in sorted(times.keys() - known)]
    problems += [f"{name}: is in none of the lists of --split" for name in sorted(known - times.keys())]
    problems += [f"{name}: is {n} times in the lists of --split" for name, n in sorted(times.items()) if n > 1]
    test = frozenset(lists.pop("test"))
    return Split(test, (lists,) if lists["train"] and lists["val"] else ())


# --------------------------------------------------------------------------------------------------------- converting


def add_arguments(parser: argparse.ArgumentParser, dataset_id: int) -> None:
    parser.add_argument("source", metavar="SRC", type=Path, nargs="+", help="extracted folder, its parent, or zip(s)")
    parser.add_argument(
        "-d", dest="dataset_id", metavar="ID", type=int, default=dataset_id, help="default: %(default)s"
    )
    parser.add_argument("-o", dest="output", metavar="NNUNET_RAW", type=Path, help="default: $nnUNet_raw")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set if it exists")
    parser.add_argument(
        "-np", dest="processes", metavar="N", type=int, default=_usable_cpus(), help="default: %(default)s"
    )
    parser.add_argument("--resize", metavar=("H", "W"), type=int, nargs=2, help="to H × W pixels, e.g. 256 256")
    parser.add_argument("--preview", metavar="FILE.png", type=Path, help="draw three of the converted cases")


def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, 8)


def convert(
    args: argparse.Namespace, dataset: Dataset, split_cases: Callable[[list[Case], list[SourceFile], list[str]], Split]
) -> None:
    """Convert `dataset` from args.source. `split_cases(cases, split_files, problems)` appends to the problems.

    Raises GuidinoError, and then nothing was written.
    """
    target = _target(args, dataset)
    found = find_cases(dataset, list_files(args.source))
    problems = found.problems + _problems_of_target(target, args)
    split = split_cases(found.cases, found.split_files, problems)
    if found.cases and all(case.name in split.test for case in found.cases):
        problems.append("there are no training cases")
    existing_splits = _preprocessed_splits(target)
    if existing_splits and not args.overwrite and _read_json(existing_splits) not in (None, list(split.folds)):
        problems.append(f"{existing_splits}: nnU-Net would use these other splits; remove it or pass --overwrite")
    _report_ignored(found.ignored)

    inspections = _map(partial(inspect, dataset=dataset), found.cases, args.processes, "checking")
    problems += [problem for inspection in inspections for problem in inspection.problems]
    if dataset.values is None:
        problems += _problems_of_ranges(found.cases, inspections)
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        raise GuidinoError(f"{problems[0]} (problems: {len(problems)}, listed above; nothing was written)")
    _warn(dataset, found.cases, inspections)

    mode = "L" if dataset.may_be_grey and all(inspection.is_grey for inspection in inspections) else "RGB"
    try:
        with _complete_or_absent(target) as folder:
            _write(folder, target.name, args, dataset, found.cases, split, mode)
    except OSError as error:
        raise GuidinoError(f"{target} could not be written: {error}; nothing was changed") from error
    if existing_splits:
        _install_splits(target / "splits_final.json", existing_splits)
    if args.preview:
        draw_preview(target, [case.name for case in found.cases if case.name not in split.test], args.preview)
    print(f"{len(found.cases) - len(split.test)} training and {len(split.test)} test cases are in {target}\n"
          f"Next: nnUNetv2_plan_and_preprocess -d {args.dataset_id} -c 2d --verify_dataset_integrity")  # fmt: skip


def _target(args: argparse.Namespace, dataset: Dataset) -> Path:
    from nnunetv2.paths import nnUNet_raw

    if args.output is None and not nnUNet_raw.is_set():
        raise GuidinoError("where to? Set the environment variable nnUNet_raw or pass -o NNUNET_RAW")
    if not 1 <= args.dataset_id <= 999:
        raise GuidinoError(f"-d {args.dataset_id}: nnU-Net's data set ids are 1 to 999")
    if args.processes < 1 or min(args.resize or [1]) < 1:
        raise GuidinoError("-np and --resize take numbers from 1 on")
    if args.preview and args.preview.suffix != ".png":
        raise GuidinoError(f"--preview {args.preview}: expected a name that ends in .png")
    return Path(args.output or nnUNet_raw).absolute() / f"Dataset{args.dataset_id:03d}_{dataset.name}"


def _problems_of_target(target: Path, args: argparse.Namespace) -> list[str]:
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

    problems = []
    if target.exists() and not args.overwrite:
        problems.append(f"{target}: exists; pass --overwrite to replace it")
    nnunet_folders = (Path(folder) for folder in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) if folder.is_set())
    for folder in {target.parent, *nnunet_folders}:
        for other in folder.glob(f"Dataset{args.dataset_id:03d}_*"):
            if other.name != target.name:
                problems.append(f"{other}: has the id {args.dataset_id} already, which nnU-Net allows once; pass -d")
    for leftover in target.parent.glob(f".{target.name}.*"):
        advice = "delete it" if ".incomplete-" in leftover.name or target.exists() else f"rename it to {target.name}"
        print(f"warning: {leftover} is left of a conversion that was killed; {advice}", file=sys.stderr)
    return problems


def _problems_of_ranges(cases: Sequence[Case], inspections: Sequence[Inspection]) -> list[str]:
    """A mask of 0 and 1 among masks of 0 and 255 is empty or full: only its author knows."""
    largest = max((inspection.mask_range for inspection in inspections), default=0)
    example = next(
        (case.mask for case, found in zip(cases, inspections, strict=True) if found.mask_range == largest), None
    )
    return [
        f"{case.mask}: its levels end at {found.mask_range}, those of {example} at {largest}; expected one encoding"
        for case, found in zip(cases, inspections, strict=True)
        if 0 < found.mask_range <= largest / 2
    ]


def _report_ignored(files: Sequence[SourceFile]) -> None:
    folders: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        folders.setdefault(str(path.parent), []).append(path.name)
    for folder, names in folders.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"ignored in {folder}: {', '.join(names[:3])}{more}", file=sys.stderr)


def _warn(dataset: Dataset, cases: Sequence[Case], inspections: Sequence[Inspection]) -> None:
    counts = Counter(case.part for case in cases)
    for part, expected in dataset.counts.items():
        if counts[part] != expected:
            difference = f"{counts[part]:,} instead of {expected:,} ({counts[part] - expected:+,})"
            print(f"warning: {part or dataset.name}: the number of cases is {difference}", file=sys.stderr)
    empty = [case.name for case, inspection in zip(cases, inspections, strict=True) if inspection.is_empty]
    if empty:
        print(f"warning: {len(empty)} masks are empty: {', '.join(empty[:10])}", file=sys.stderr)


@contextmanager
def _complete_or_absent(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end. If anything goes wrong before, SIGTERM too, `target` stays
    as it was and the folder is removed."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    folder, old = (target.with_name(f".{target.name}.{what}-{os.getpid()}") for what in ("incomplete", "old"))
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        folder.mkdir(parents=True)
        yield folder
        try:
            if target.exists():
                target.rename(old)
            folder.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)


def _write(
    folder: Path, name: str, args: argparse.Namespace, dataset: Dataset, cases: Sequence[Case], split: Split, mode: str
) -> None:
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    for suffix in ("Tr", "Ts") if split.test else ("Tr",):
        (folder / f"images{suffix}").mkdir()
        (folder / f"labels{suffix}").mkdir()
    write = partial(write_case, target=folder, dataset=dataset, mode=mode, size=args.resize and tuple(args.resize))
    rows = _map(write, [(case, split.of(case.name)) for case in cases], args.processes, "writing")
    with (folder / "mapping.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    if split.folds:
        (folder / "splits_final.json").write_text(json.dumps(split.folds, indent=1) + "\n", encoding="utf-8")
    resized = " Resized to {} × {} pixels (height × width).".format(*args.resize) if args.resize else ""
    generate_dataset_json(
        str(folder),
        channel_names={0: "grey"} if mode == "L" else {0: "R", 1: "G", 2: "B"},
        labels={"background": 0, **{label: value for value, label in enumerate(dataset.labels, start=1)}},
        num_training_cases=len(cases) - len(split.test),
        file_ending=".png",
        dataset_name=name,
        reference=dataset.reference or None,
        release=dataset.release or None,
        license=dataset.licence,
        description=dataset.description + resized,
        converted_by=f"nnunetv2-guidino {__version__}",
    )


def _preprocessed_splits(target: Path) -> Path | None:
    from nnunetv2.paths import nnUNet_preprocessed

    return Path(nnUNet_preprocessed) / target.name / "splits_final.json" if nnUNet_preprocessed.is_set() else None


def _read_json(file: Path) -> Any:
    """The contents; None if there is no such file, or no json in it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _install_splits(source: Path, destination: Path) -> None:
    """Put the new splits, or none, where nnU-Net's trainer looks for them."""
    try:
        if not source.exists():
            destination.unlink(missing_ok=True)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        copy = destination.with_name(f".{destination.name}.{os.getpid()}")
        shutil.copyfile(source, copy)
        copy.replace(destination)
    except OSError as error:
        raise GuidinoError(f"{source.parent} is complete, but {destination} could not be written: {error}") from error


def draw_preview(target: Path, cases: Sequence[str], file: Path) -> None:
    """Three training cases, evenly spread over `cases`: the image, and below it the same with the mask's outline."""
    chosen = [cases[len(cases) * i // 3] for i in range(min(3, len(cases)))]
    size = 320
    sheet = Image.new("RGB", (size * len(chosen), size * 2), "white")
    for column, case in enumerate(chosen):
        image = Image.open(target / "imagesTr" / f"{case}_0000.png").convert("RGB")
        mask = Image.open(target / "labelsTr" / f"{case}.png").point(lambda label: 255 if label else 0)
        image = ImageOps.contain(image, (size, size))
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
        inside = mask.filter(ImageFilter.MinFilter(5))
        outlined = image.copy()
        outlined.paste("yellow", mask=ImageChops.subtract(mask, inside))
        sheet.paste(image, (column * size, 0))
        sheet.paste(outlined, (column * size, size))
    try:
        sheet.save(file)
    except OSError as error:
        raise GuidinoError(f"{target} is complete, but --preview {file} could not be written: {error}") from error
