"""Time `guidino convert folder` against a plain loop of Pillow's open, threshold, save, over the same files.

python tests/tools/conversion/benchmark.py [--cases 1000] [--repeats 1] [-np 2]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def generate(folder: Path, cases: int) -> None:
    """600 × 500 JPEG pairs with the texture of a photograph: noise at several scales."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for case in range(cases):
        image = np.zeros((500, 600, 3))
        for side, amplitude in ((6, 80), (40, 25), (200, 8)):
            noise = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
            image += amplitude / 128 * (np.asarray(noise.resize((600, 500), Image.Resampling.BICUBIC)) - 128.0)
        Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8)).save(folder / "images" / f"{case:04}.jpg")
        mask = Image.new("L", (600, 500))
        left, top, width, height = random.integers(50, 250, 4).tolist()
        ImageDraw.Draw(mask).ellipse((left, top, left + width, top + height), fill=255)
        mask.save(folder / "masks" / f"{case:04}.jpg")


def plain_loop(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted((source / "images").iterdir()):
        Image.open(file).save(target / f"{file.stem}_0000.png")
        mask = Image.open(source / "masks" / file.name).convert("L").point(lambda level: level > 127)
        mask.save(target / f"{file.stem}.png")


def convert(source: Path, target: Path, processes: int) -> None:
    command = [sys.executable, "-m", "nnunetv2_guidino.cli", "convert", "folder", source, "-o", target]
    subprocess.run([*command, "-np", str(processes)], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("-np", dest="processes", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "source", args.cases)
        for repeat in range(args.repeats):
            seconds, cpu_seconds = [], []
            for title, function in (
                ("plain loop", lambda target: plain_loop(folder / "source", target)),
                ("guidino convert", lambda target: convert(folder / "source", target, args.processes)),
            ):
                target = folder / f"{title} {repeat}"
                cpu, start = sum(os.times()[:4]), time.perf_counter()
                function(target)
                seconds.append(time.perf_counter() - start)
                cpu_seconds.append(sum(os.times()[:4]) - cpu)
                size = sum(file.stat().st_size for file in target.rglob("*.png")) / 1e6
                print(f"{title:16} {seconds[-1]:7.1f} s wall {cpu_seconds[-1]:7.1f} s CPU {size:7.1f} MB of PNG")
            print(f"wall time ratio {seconds[1] / seconds[0]:.2f}, CPU {cpu_seconds[1] / cpu_seconds[0]:.2f}")


if __name__ == "__main__":
    main()
