"""The memory that large images need, and the number of processes for them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import square, write_nifti, write_pngs
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_guidino.tools.evaluation import scoring
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase

MEASURE = """
import json, sys
from pathlib import Path
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2_guidino.tools.evaluation.cases import PredictedCase
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet
from nnunetv2_guidino.tools.evaluation.reading import PairReader
from nnunetv2_guidino.tools.evaluation.scoring import Scorer

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))

reader, reference, prediction = sys.argv[1:]
before = peak()
scorer = Scorer(PairReader(recursive_find_reader_writer_by_name(reader), LabelSet({"x": 1})), "penalize", None)
dice = scorer(PredictedCase("a", Path(reference), Path(prediction)))["metrics"]["1"]["Dice"]
print(json.dumps([before, peak(), dice]))
"""


def balls(*shape: int) -> list[np.ndarray]:
    """Return a disc or ball in the middle, and one slightly beside it."""
    axes = np.ogrid[tuple(slice(side) for side in shape)]
    centres = ([side // 2 + shift for side in shape] for shift in (0, 3))
    radius = min(shape) * 0.3
    return [sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius**2 for centre in centres]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("reader", "ending"), [(NaturalImage2DIO, ".png"), (SimpleITKIO, ".nii.gz"), (NibabelIO, ".nii")]
)
def test_memory_is_what_the_number_of_processes_is_chosen_by(reader, ending, tmp_path):
    """12 million pixels, 4000×3000 or a volume, once needed 1.3 GB."""
    files = []
    shape = (3000, 4000) if ending == ".png" else (200, 200, 300)
    for name, mask in zip("ab", balls(*shape), strict=True):
        if ending == ".png":
            write_pngs(tmp_path, {name: mask})
        else:
            write_nifti(tmp_path / f"{name}{ending}", mask.astype(np.uint8))
        files.append(str(tmp_path / f"{name}{ending}"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, reader.__name__, *files], capture_output=True, text=True, check=True
    )
    before, peak, dice = json.loads(done.stdout)
    assert 0.8 < dice < 1
    assert before < scoring.PROCESS_BYTES
    assert peak - before < scoring.PIXEL_BYTES / 2 * 12_000_000  # their surfaces are small


@pytest.mark.parametrize(("memory", "expected"), [(None, 4), (1 << 40, 4), (3 * (300 << 20) + 10**6, 2), (1, 1)])
def test_processes_are_chosen_by_memory(memory, expected, tmp_path, monkeypatch):
    write_pngs(tmp_path, {"a": square(5, 5, shape=(1500, 2000))})
    cases = [PredictedCase(name, tmp_path / "a.png", tmp_path / "a.png") for name in "abcdef"]
    monkeypatch.setattr(scoring, "default_num_processes", 4)
    monkeypatch.setattr(scoring.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(scoring, "available_memory", lambda: memory)
    assert scoring.affordable_processes(cases) == expected


def test_available_memory_is_less_than_the_machine_has():
    found = scoring.available_memory()
    if not Path("/proc/meminfo").exists():
        assert found is None
    else:
        assert found is not None
        assert 0 < found < 1 << 50
