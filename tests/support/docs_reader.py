"""Read a page of the docs as a user does: what it says to type, in order, as one script of bash.

Comments in a page mark a block that is not typed, with the reason: <!-- not run: needs two GPUs -->
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)

DATASET = "Dataset501_KvasirSEG"
SHORT = "_1epochs_1iterations"
GUIDED = f"nnUNet_results/{DATASET}/nnUNetTrainerGuiDINO{SHORT}__nnUNetPlans__2d"
PLAIN = f"nnUNet_results/{DATASET}/nnUNetTrainerGuiDINOBaseline{SHORT}_seed0__nnUNetPlans__2d"
LORA = GUIDED.replace(SHORT, f"LoRA{SHORT}")

# What is typed instead of what stands in a page: patterns, and what takes their place. The rest is typed as it stands.
SUBSTITUTIONS = {
    # trainings of one step, and no more of the other things
    r"(-tr |/)(nnUNetTrainerGuiDINO(?:Baseline)?(?:Paper)?(?:LoRA)?)(?:_50epochs)?(?=[_\s])": rf"\1\2{SHORT}",
    r"nnUNet_results/(Dataset501_KvasirSEG|…)/nnUNetTrainer__nnUNetPlans__2d": PLAIN,
    r"epochs: 100": "epochs: 1\niterations: 1",
    r"seeds: \[0, 1, 2\]": "seeds: [0]",
    r"--sizes 256 384 --seeds 2": "--sizes 64",
    r"sizes=\[256, 384\], seeds=2": "sizes=[64], seeds=1",
    r'measure\("501",': 'measure("501", rounds=1,',
    r"--resize 256 256": "--resize 64 64",
    # the CPU, and few processes
    r"nnUNetv2_(train|predict\w*) ": r"\g<0>-device cpu ",
    r"guidino benchmark \S+\.yaml": r"\g<0> -device cpu",
    r"guidino guide ": r"\g<0>-device cpu ",
    r'"cuda"': '"cpu"',
    r"nnUNetv2_predict_from_modelfolder ": r"\g<0>-npp 1 -nps 1 ",
    r"nnUNetv2_plan_and_preprocess ": r"\g<0>-npfp 1 -np 1 ",
    # names that stand for the user's own
    r"(nnUNet_\w+)=…": r"\1=$\1",
    r"-i IMAGES -o PREDICTIONS (-d 4 )": r"-i nnUNet_raw/Dataset004_Volumes/imagesTs -o predicted_volumes \1",
    r"-i (IMAGES|imagesTs)": f"-i nnUNet_raw/{DATASET}/imagesTs",
    r"PREDICTIONS": "predictions",
    r"MODEL_FOLDER": GUIDED,
    r"/shared/": "$PWD/",
    # encoders with random weights in place of downloads
    r"facebook/dinov2-small": "dinov2-small",
    r"facebook/dinov3-vits16-pretrain-lvd1689m": "dinov3-vits16",
    r'fetch\("timm/.*\n': "pass  # a fake: the encoder is there\n",
    # the tiny encoders have three blocks
    r"--set architecture.head=published": (
        r"\g<0> --set 'architecture.layers=[1, 2, 3]' --set 'architecture.widths=[4, 6, 8]'"
    ),
    # a page that stands alone makes again what another one has made
    r"dataset_id=501": "dataset_id=530",
    r'beside=\["nnUNetResEncUNetMPlans"\]': 'beside=["nnUNetPlansBottleneck"]',
}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str  # none: output, not typed
    text: str
    reason: str | None  # why it is not run


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    return [Block(found["language"], found["text"], found["reason"]) for found in BLOCK.finditer(page.read_text())]


def commands(page: Path, done: Collection[str] = ()) -> Iterator[str]:
    """What a user types, with the substitutions: all of a guide, and of a page of the reference its Python.

    Args:
        done: Commands of nnU-Net that other pages have typed in the same folders, which are left out.
    """
    languages = ("python",) if page.parent.name == "reference" else ("bash", "yaml", "python")
    typed = [block for block in blocks(page) if block.language in languages and not block.reason]
    for language, together in itertools.groupby(typed, key=lambda block: block.language):
        text = "\n".join(block.text for block in together)
        for pattern, instead in SUBSTITUTIONS.items():
            text = re.sub(pattern, instead, text)
        if language == "bash":
            # Without comments, which make no other command.
            lines = [re.sub(r"(^|\s+)#.*", "", line) for line in re.sub(r"\\\n\s*", " ", text).splitlines()]
            yield from (line for line in lines if line and not (line.startswith("nnUNetv2_") and line in done))
        elif language == "yaml":
            yield f"cat > {text.split()[1]} << 'END'\n{text}END"
        else:
            # A script that starts processes must have this, as the pages say.
            script = f"if __name__ == '__main__':\n{textwrap.indent(text, '    ')}"
            yield f"cat > {page.stem}.py << 'END'\n{script}END\npython {page.stem}.py"
