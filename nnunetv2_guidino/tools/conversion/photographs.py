"""Convert images without masks to the input of a trained model."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_folder
from nnunetv2_guidino.nnunet.descriptions import read_dataset_json
from nnunetv2_guidino.printable import printable
from nnunetv2_guidino.tools.conversion.checking import try_all
from nnunetv2_guidino.tools.conversion.dataset import IMAGE_SUFFIX
from nnunetv2_guidino.tools.conversion.image_files import as_image, decode, is_grey, on_black
from nnunetv2_guidino.tools.conversion.pairing import normalised, problems_of_names
from nnunetv2_guidino.tools.conversion.sources import SourceFile, list_files
from nnunetv2_guidino.tools.conversion.writing import MOST_PIXELS, Size, no_formula, resized, save_new, write_mapping

ENDINGS = (".png", ".bmp", ".tif")  # of the pictures that nnU-Net reads and writes
MODES = {1: "L", 3: "RGB"}  # Pillow's modes by the number of channels
COLOURS = {"r", "g", "b", "red", "green", "blue", "rgb_to_0_1"}


@dataclass(frozen=True)
class ModelInput:
    """The images that a trained model expects."""

    mode: str  # L or RGB
    ending: str
    size: Size | None  # of the training images, if a converter resized them


def read_model_input(model: Path) -> ModelInput:
    """Read the input of a model from the dataset.json in its folder.

    Raises:
        GuidinoError: If there is no such file, or the model does not take pictures in colour or grey.
    """
    file = model / "dataset.json"
    description = read_dataset_json(file, "channel_names", "file_ending")
    if description["file_ending"] not in ENDINGS:
        taken = description["file_ending"]
        raise GuidinoError(f"{file}: the model takes {taken} files; pictures become {', '.join(ENDINGS)}")
    names = [str(name) for name in description["channel_names"].values()]
    if len(names) not in MODES or (len(names) > 1 and not {name.lower() for name in names} <= COLOURS):
        raise GuidinoError(
            f"{file}: the model has the channels {', '.join(names)}; pictures have one channel of grey, or R, G, B"
        )
    # data sets converted by 0.1.0 have the size in their description only
    words = re.search(r"Resized to (\d+) × (\d+) pixels \(height × width\)", str(description.get("description")))
    size = description.get("resized_to", [int(side) for side in words.groups()] if words else None)
    if size is not None:
        is_size = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        if not is_size or math.prod(size) > MOST_PIXELS:
            raise GuidinoError(
                f"{file}: resized_to is {size!r}; expected [height, width], at most {MOST_PIXELS:,} pixels"
            )
        size = tuple(size)
    return ModelInput(MODES[len(names)], description["file_ending"], size)


@dataclass
class PicturesReport:
    """The result of a conversion of images or predictions, and the next steps."""

    folder: Path
    cases: int
    notes: list[str] = field(default_factory=list)
    next_commands: list[str] = field(default_factory=list)


def convert_images(sources: Sequence[Path], model: Path, output: Path, processes: int = 1) -> PicturesReport:
    """Convert images without masks to a trained model's channels and file ending.

    They become upright and keep their names. They also keep their sizes, unless a converter resized the training
    images: then they get that size.

    Args:
        sources: Folders, zips or image files.
        model: The folder of the model that nnU-Net trained.
        output: A folder that does not exist yet.
        processes: The number of processes; more than one need a script's `if __name__ == "__main__"`.

    Raises:
        GuidinoError: If the sources, the model or the output have a fault; nothing was written.
    """
    expected = read_model_input(model)
    cases, notes = _named_cases(sources, expected.ending)
    with whole_folder(output) as folder:
        write = partial(_write_image, folder=folder, expected=expected)
        rows, problems = try_all(write, cases, processes, "writing")
        refuse(problems)
        write_mapping(folder / "mapping.csv", [row for row in rows if row])
    if expected.size:
        notes.append("resized to {} × {} (height × width), as the training images were".format(*expected.size))
    return PicturesReport(output, len(cases), notes, _next_commands(model, output))


def refuse(problems: Sequence[str]) -> None:
    """Raise a GuidinoError with all problems, if there are any."""
    if problems:
        raise GuidinoError("\n".join([*problems, "Nothing was written."]))


def _named_cases(sources: Sequence[Path], ending: str) -> tuple[list[tuple[str, SourceFile]], list[str]]:
    """Return the images among the sources with the names of their cases, and notes on the other files."""
    singles = [source.absolute() for source in sources if _is_image(source.name) and source.is_file()]
    files = list_files(source for source in sources if source.absolute() not in singles)
    files += [SourceFile(single.parent, single.name) for single in singles]
    cases = [
        (normalised(re.sub(rf"{IMAGE_SUFFIX}$", "", PurePosixPath(file.name).name)), file)
        for file in files
        if _is_image(file.name)
    ]
    if not cases:
        raise GuidinoError(f"{', '.join(str(source) for source in sources)}: no images found; expected png, jpg, …")
    refuse(problems_of_names(cases, ending))
    return cases, [f"ignored: {file}" for file in files if not _is_image(file.name)]


def _is_image(name: str) -> bool:
    return re.search(rf"{IMAGE_SUFFIX}$", name) is not None


def _write_image(case: tuple[str, SourceFile], folder: Path, expected: ModelInput) -> dict[str, Any]:
    """Write an image, and return its row of mapping.csv. Raises ValueError if the model cannot take it."""
    name, file = case
    picture = decode(file).upright
    if expected.mode == "L" and not is_grey(on_black(picture)):
        raise ValueError(f"{file}: is in colour, but the model was trained on grey images; save it as grey")
    original = as_image(picture, expected.mode)
    image = resized(original, expected.size)
    save_new(image, folder / f"{name}_0000{expected.ending}")
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
