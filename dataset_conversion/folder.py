"""Any folder with images/NAME and masks/NAME; the file endings may differ.

Without values in --labels, the converter cuts masks of two levels between them. With values, masks are label maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # as a script, in a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_guidino.tools.conversion.dataset import IMAGES, MASKS, Dataset

DATASET = Dataset(
    id=500,
    name="",  # the user gives the name and the labels
    image=IMAGES,
    mask=MASKS,
    layout="images/NAME.png (or jpg, bmp, tif, gif) and masks/NAME.png",
    labels=(),
    may_be_grey=True,
    licence="unknown",
)


if __name__ == "__main__":
    from nnunetv2_guidino.cli import main

    sys.exit(main(["convert", "folder", *sys.argv[1:]]))
