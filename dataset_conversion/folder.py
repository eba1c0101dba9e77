"""Any folder with images/NAME and masks/NAME, where the file endings may differ.

Without values in --labels the masks have two levels and are cut between them. With values they are label maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a script: the clone need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nnunetv2_guidino.conversion.dataset import IMAGES, MASKS, Dataset

DATASET = Dataset(
    id=500,
    name="",  # and labels: whoever has the folder knows
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
