"""The memory that `guidino plan` estimates for the guide, against the peak of real training steps under autocast."""

import json
import os
import subprocess
import sys

import planned
import pytest
from transformers import AutoModel, Dinov2Config

from nnunetv2_guidino.lab.cost.fresh import MALLOC_SETTINGS
from nnunetv2_guidino.lab.cost.timing import GUIDED, LORA, PLAIN, TRAINERS
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.memory import estimate

BATCH = 16
# Autocast on the CPU, which lowers the same operations as on a GPU.
MEASURE = """
import sys, torch
from nnunetv2_guidino.lab.cost.fresh import measure_here
with torch.autocast("cpu", torch.bfloat16):
    print(measure_here(*sys.argv[1:]).peak_bytes)
"""


def peak(file, network: str) -> float:
    """GB of two steps, in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(file), "2d", TRAINERS[network], "cpu", "2"]
    environment = {**os.environ, **MALLOC_SETTINGS}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1]) / 2**30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_guide_takes_what_is_estimated(tmp_path):
    file = tmp_path / "plans.json"
    dataset = {"labels": {"background": 0, "polyp": 1}, "channel_names": {"0": "R", "1": "G", "2": "B"}}
    file.with_name("dataset.json").write_text(json.dumps(dataset))

    # wide enough for what is counted to be more than what an allocator rounds
    config = Dinov2Config(hidden_size=192, num_hidden_layers=4, num_attention_heads=3, image_size=224, patch_size=14)
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")

    def plans(**guide):
        content = planned.plans({"encoder": str(tmp_path / "encoder"), **guide}, patch_size=(256, 256)).plans
        content["configurations"]["2d"]["batch_size"] = BATCH
        file.write_text(json.dumps(content))
        return content

    plans()
    plain = peak(file, PLAIN)
    found = {}
    for layer in (None, [1, 2, 3, 4]):
        for network, lora in ((GUIDED, None), (LORA, {})):
            memory = estimate(PlansFile(file, plans(layer=layer, lora=lora)), "2d")
            found[network, str(layer)] = (memory.guide(BATCH), peak(file, network) - plain)
    # a fifth, and 20 MB that an allocator may or may not have given back
    wrong = {of: pair for of, pair in found.items() if abs(pair[1] - pair[0]) > 0.2 * pair[1] + 0.02}
    assert wrong == {}, found
