"""Pages are read as a user reads them: what they say to type is typed, in order, on tiny data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from docs_reader import DATASET, DOCS, GUIDED, LORA, PLAIN, blocks, commands
from nnunet_workspace import Workspace
from pairs import draw_image, make_isic, make_pairs, make_tn3k, save, write_folds
from volumes import save as save_volume

FIRST = "getting_started/first_training.md"
PAGES = sorted(
    str(page.relative_to(DOCS)) for room in ("getting_started", "how_to") for page in (DOCS / room).glob("*.md")
)
PAGES += ["reference/python_api.md", "reference/trainers.md"]
KVASIR, VOLUMES, LORA_PAGE = "how_to/convert_kvasir_seg.md", "how_to/train_on_volumes.md", "how_to/train_with_lora.md"
# Pages whose data and models a page takes for granted.
BEFORE = {
    **{page: [KVASIR] for page in PAGES},
    **{page: [] for page in PAGES if "convert_" in page or page in (VOLUMES, "reference/trainers.md")},
    "how_to/train_on_classes_and_regions.md": [VOLUMES],
    "how_to/evaluate_and_compare.md": [FIRST],
    "reference/python_api.md": [
        FIRST, LORA_PAGE, "how_to/vary_the_guide.md", "how_to/run_experiments.md", "how_to/evaluate_and_compare.md"
    ],
}  # fmt: skip
# What a user has besides.
PREPARED = {
    "how_to/evaluate_and_compare.md": f"""
        ln -s nnUNet_raw/{DATASET}/labelsTs labelsTs
        guidino evaluate -m {PLAIN} -o m1 -np 1
        guidino evaluate -m {GUIDED} -o g1 -np 1
        for seed in 2 3; do cp -r m1 m$seed; cp -r g1 g$seed; done
        """,
    "reference/python_api.md": f"""
        ln -s {LORA} model
        ln -s nnUNet_raw/{DATASET}/imagesTs images
        ln -s nnUNet_raw/{DATASET}/labelsTs labels
        for seed in 0 1; do guidino evaluate -gt labels -pred predictions -o plain_seed$seed -np 1; done
        """,
}


def write_sources(folder: Path) -> None:
    """The data sets that users download, with few and small images."""
    names = [f"cju{number:02}" for number in range(20)]
    make_pairs(folder / "kvasir" / "Kvasir-SEG", names, mask_ending=".jpg")
    shutil.make_archive(str(folder / "kvasir-seg"), "zip", folder / "kvasir")
    isic = make_isic(folder / "isic", {"Training": 6, "Validation": 2, "Test_v2": 1})
    for part in isic.iterdir():
        shutil.make_archive(str(folder / part.name), "zip", isic, part.name)
    (folder / "tn3k").mkdir()
    names = [f"{number:04}" for number in range(10)]
    write_folds(make_tn3k(folder / "tn3k", names, ["0000"], size=(64, 64)), 10)
    shutil.make_archive(str(folder / "tn3k"), "zip", folder, "tn3k")
    make_pairs(folder / "my_data", [f"image{number}" for number in range(5)])
    for number in range(2):
        save(draw_image(seed=number), folder / "photos" / f"photo{number}.jpg")


def write_volumes(folder: Path) -> None:
    """Dataset004 with two classes."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(6):
        truth = np.zeros((10, 32, 28), np.uint8)
        truth[2:7, 8:20, 6:20] = 1
        truth[4:7, 14:20, 12:20] = 2
        image = truth + random.normal(size=truth.shape).astype(np.float32) / 4
        save_volume(image, folder / ("imagesTs" if number == 5 else "imagesTr") / f"v{number}_0000.nii.gz")
        if number < 5:
            save_volume(truth, folder / "labelsTr" / f"v{number}.nii.gz")
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "anterior": 1, "posterior": 2}, "numTraining": 5, '
        '"file_ending": ".nii.gz"}'
    )


class Reader:
    """Types pages in one folder, each once, behind those that it takes for granted."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.done: set[str] = set()
        self.outputs: dict[str, str | None] = {}  # of the pages that were typed: None, or what failed

    def type(self, page: str) -> str | None:
        """Run a page as one script, once; returns its output if it fails."""
        if page not in self.outputs:
            self.outputs[page] = next(filter(None, map(self.type, BEFORE[page])), None) or self._typed(page)
        return self.outputs[page]

    def _typed(self, page: str) -> str | None:
        typed = [PREPARED.get(page, ""), *commands(DOCS / page, self.done)]
        script = self.workspace.root / f"{Path(page).stem}.sh"
        script.write_text("\n".join(typed) + "\n")
        done = subprocess.run(
            ["bash", "-ex", script.name],
            cwd=self.workspace.root, env=self.workspace.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.done |= {*typed}
        return f"{page}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}" if done.returncode else None


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[[str], Path]) -> Reader:
    workspace = Workspace(tmp_path_factory.mktemp("docs"))
    write_sources(workspace.root)
    write_volumes(workspace.raw / "Dataset004_Volumes")
    for name, family in (("dinov3-vits16", "dinov3"), ("dinov2-small", "dinov2")):
        shutil.copytree(tiny_encoder(family), workspace.root / name)
    workspace.environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GUIDINO_ENCODER": str(workspace.root / "dinov3-vits16"),
        # no processes beside the commands' own
        "nnUNet_npp": "0", "nnUNet_nps": "0",
    }  # fmt: skip
    return Reader(workspace)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_type_works(page: str, reader: Reader) -> None:
    failure = reader.type(page)
    assert failure is None, failure


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_what_they_are(page: str) -> None:
    """Output has no language, and no command stands in it or in an indented block."""
    text = (DOCS / page).read_text()
    assert "\n\n    " not in text
    for block in blocks(DOCS / page):
        assert block.language in ("", "bash", "yaml", "python")
        assert block.language or not any(name in block.text for name in ("guidino ", "nnUNetv2_"))
    assert text.count("\n```") == 2 * len(blocks(DOCS / page))
