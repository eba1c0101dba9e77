"""Time `guidino evaluate -np 2` beside MONAI's own metrics over two processes, on 1,000 PNG pairs of 600×500.

    python tests/tools/evaluation/benchmark_evaluate.py [number of pairs]

MONAI's time is given with and without starting its processes (which import it). Needs the extra "test".
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from skimage import io

from nnunetv2_guidino.cli import main


def write_pairs(folder: Path, number: int) -> None:
    """Ellipses of 5 to 40 % of the image's width, the prediction shifted and scaled a little, with a rough outline."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:500, :600]
    for name in ("gt", "pred"):
        (folder / name).mkdir()
    for i in range(number):
        centre, axes = rng.uniform((120, 150), (380, 450)), rng.uniform(30, 120, 2)
        for name, shift, roughness in (("gt", 0, 0.0), ("pred", 6, 0.02)):
            v, u = ((y, x) - (centre + rng.normal(0, shift + 1e-9, 2))[:, None, None]) / axes[:, None, None]
            outline = 1 + roughness * np.sin(9 * np.arctan2(v, u))
            io.imsave(
                folder / name / f"case_{i:04}.png", (np.hypot(u, v) < outline).astype(np.uint8), check_contrast=False
            )


def start_monai() -> None:
    import monai.metrics  # noqa: F401
    import torch

    torch.set_num_threads(1)


def monai_metrics(files: tuple[Path, Path]) -> list[float]:
    import torch
    from monai import metrics

    reference, prediction = (torch.from_numpy(io.imread(file) == 1)[None, None] for file in files)
    confusion = metrics.get_confusion_matrix(prediction.float(), reference.float())
    return [
        *(metrics.compute_confusion_matrix_metric(name, confusion).item() for name in ("precision", "sensitivity")),
        metrics.compute_dice(prediction.float(), reference.float()).item(),
        metrics.compute_iou(prediction.float(), reference.float()).item(),
        metrics.compute_hausdorff_distance(prediction, reference, include_background=True, percentile=95).item(),
        metrics.compute_surface_dice(prediction, reference, [1.0], include_background=True).item(),
    ]


def time_monai(folder: Path) -> tuple[float, float]:
    pairs = [(file, folder / "pred" / file.name) for file in sorted((folder / "gt").iterdir())]
    begin = time.perf_counter()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=start_monai) as pool:
        list(pool.map(monai_metrics, pairs[:2]))
        ready = time.perf_counter()
        list(pool.map(monai_metrics, pairs, chunksize=16))
        end = time.perf_counter()
    return end - begin, end - ready


def time_guidino(folder: Path) -> float:
    begin = time.perf_counter()
    arguments = ["-gt", folder / "gt", "-pred", folder / "pred", "-o", folder / "out", "--labels", "object=1", "-np", 2]
    assert main(["evaluate", *map(str, arguments)]) == 0
    return time.perf_counter() - begin


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write_pairs(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
        ours = time_guidino(Path(temporary))
        whole, running = time_monai(Path(temporary))
        print(f"guidino evaluate, whole command: {ours:.1f} s")
        print(f"MONAI, two processes: {running:.1f} s, with their start {whole:.1f} s")
