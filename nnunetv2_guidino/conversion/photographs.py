"""Images without masks become what a trained model takes, and its predictions masks and pictures for people."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2_guidino.conversion.dataset import IMAGE_SUFFIX
from nnunetv2_guidino.conversion.image_files import as_image, decode, is_grey, on_black
from nnunetv2_guidino.conversion.pairing import LONGEST
from nnunetv2_guidino.conversion.sources import SourceFile, list_files
from nnunetv2_guidino.conversion.workers import map_cases
from nnunetv2_guidino.conversion.writing import MOST_PIXELS, Size, no_formula, resized, save_new, write_mapping
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, whole_folder
from nnunetv2_guidino.printable import printable

ENDINGS = (".png", ".bmp", ".tif")  # of the pictures that nnU-Net reads and writes
MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
COLOURS = {"r", "g", "b", "red", "green", "blue", "rgb_to_0_1"}


@dataclass(frozen=True)
class ModelInput:
    """What the images of a trained model are like."""

    mode: str  # L or RGB
    ending: str
    size: Size | None  # to which the images were resized before training

    @classmethod
    def of(cls, model: Path) -> ModelInput:
        """Read it from the dataset.json of a model folder.

        Raises:
            GuidinoError: If there is none, or the model takes something else than pictures in colour or grey.
        """
        file = model / "dataset.json"
        description = read_json(file, dict)
        channels, ending = description.get("channel_names"), description.get("file_ending")
        if not isinstance(channels, dict) or not isinstance(ending, str):
            raise GuidinoError(f"{file}: expected the keys channel_names and file_ending, as nnU-Net writes them")
        names = [str(name) for name in channels.values()]
        if ending not in ENDINGS:
            raise GuidinoError(f"{file}: the model takes {ending} files; pictures become {', '.join(ENDINGS)}")
        if len(names) not in MODES or (len(names) > 1 and not {name.lower() for name in names} <= COLOURS):
            raise GuidinoError(
                f"{file}: the model has the channels {', '.join(names)}; pictures give one of grey, or R, G, B"
            )
        return cls(MODES[len(names)], ending, _training_size(description, file))


def _training_size(description: dict[str, Any], file: Path) -> Size | None:
    size = description.get("resized_to")
    if size is None:  # data sets converted by 0.1.0 say it in words only
        words = re.search(r"Resized to (\d+) × (\d+) pixels \(height × width\)", str(description.get("description")))
        return (int(words[1]), int(words[2])) if words else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise GuidinoError(f"{file}: resized_to is {size!r}; expected [height, width]")
    if size[0] * size[1] > MOST_PIXELS:
        raise GuidinoError(f"{file}: resized_to is {size!r}; expected at most {MOST_PIXELS:,} pixels")
    return size[0], size[1]


@dataclass
class ImagesReport:
    """What became of the images, and what comes next."""

    folder: Path
    cases: int = 0
    notes: list[str] = field(default_factory=list)
    next_commands: list[str] = field(default_factory=list)


def convert_images(sources: Sequence[Path], model: Path, output: Path, processes: int = 1) -> ImagesReport:
    """Write images without masks as a trained model takes them: its channels and file ending, upright, names kept.

    Sizes are kept too, unless the model's training images were resized: then these are, likewise.

    Args:
        sources: Folders, zips or image files.
        model: The folder that nnU-Net trained the model into.
        output: A folder that does not exist yet.
        processes: How many work; more than one need a script's `if __name__ == "__main__"`.

    Raises:
        GuidinoError: If anything is wrong with the sources, the model or the output; nothing was written then.
    """
    takes = ModelInput.of(model)
    report = ImagesReport(output)
    cases, report.notes = _named_cases(sources, takes.ending)
    with whole_folder(output) as folder:
        write = partial(_write_image, folder=folder, takes=takes)
        rows = map_cases(write, list(cases.items()), processes, "writing")
        _refuse([row for row in rows if isinstance(row, str)])
        write_mapping(folder / "mapping.csv", [row for row in rows if not isinstance(row, str)])
    report.cases = len(cases)
    if takes.size:
        report.notes.append("resized to {} × {} (height × width), as the training images were".format(*takes.size))
    report.next_commands = _next_commands(model, output)
    return report


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise GuidinoError("\n".join([*problems, "Nothing was written."]))


def _named_cases(sources: Sequence[Path], ending: str) -> tuple[dict[str, SourceFile], list[str]]:
    """The images among the sources, by the names of their cases, and notes on what else there is."""
    singles = [source.absolute() for source in sources if _is_image(source.name) and source.is_file()]
    files = list_files(source for source in sources if source.absolute() not in singles)
    files += [SourceFile(single.parent, single.name) for single in singles]
    cases: dict[str, SourceFile] = {}
    notes, problems = [], []
    for file in files:
        if not _is_image(file.name):
            notes.append(f"ignored: {file}")
            continue
        name = unicodedata.normalize("NFC", re.sub(rf"{IMAGE_SUFFIX}$", "", file.name.rpartition("/")[2]))
        if name in cases:
            problems.append(f"{file}: has the same name as {cases[name]}")
        if not name.isprintable() or len(f"{name}_0000{ending}".encode()) > LONGEST:
            problems.append(f"{file}: its name is too long, or has letters that cannot be printed")
        cases[name] = file
    if not cases:
        raise GuidinoError(f"{', '.join(str(source) for source in sources)}: no images found; expected png, jpg, …")
    _refuse(problems)
    return cases, notes


def _is_image(name: str) -> bool:
    return re.search(rf"{IMAGE_SUFFIX}$", name) is not None


def _write_image(case: tuple[str, SourceFile], folder: Path, takes: ModelInput) -> dict[str, Any] | str:
    """Write an image; returns its row of mapping.csv, or what is wrong with it."""
    name, file = case
    try:
        picture = decode(file).upright
        if takes.mode == "L" and not is_grey(on_black(picture)):
            return f"{file}: is in colour, but the model was trained on grey images; save it as grey"
        original = as_image(picture, takes.mode)
    except Exception as error:  # each of Pillow's decoders has its own way to fail on a damaged file
        return f"{file}: {str(error) or type(error).__name__}"
    image = resized(original, takes.size)
    save_new(image, folder / f"{name}_0000{takes.ending}")
    return {
        "case": no_formula(name),
        "original_image": no_formula(file.path),
        "width": image.width,
        "height": image.height,
        "original_width": original.width,
        "original_height": original.height,
    }


def _next_commands(model: Path, output: Path) -> list[str]:
    trained = sorted(file.parent.name.removeprefix("fold_") for file in model.glob("fold_*/checkpoint_final.pth"))
    # Fold "all" is a model of its own, and no member of the others' ensemble.
    folds = [fold for fold in trained if fold.isdigit()] or trained or ["0"]
    predicted, pictures = output.with_name(f"{output.name}_predicted"), output.with_name(f"{output.name}_masks")
    commands: list[list[object]] = [
        ["nnUNetv2_predict_from_modelfolder", "-i", output, "-o", predicted, "-m", model, "-f", *folds],
        ["guidino", "convert", "predictions", predicted, "-i", output, "-o", pictures],
    ]
    return [printable(shlex.join(str(word) for word in command)) for command in commands]
