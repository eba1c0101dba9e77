import shutil

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

ZSCORE = "ZScoreNormalization"


def load(folder) -> TokenEncoder:
    encoder = TokenEncoder(read_encoder_config(folder, None), None, (ZSCORE,) * 3, 64)
    encoder.load_pretrained(folder, "tiny")
    return encoder


def test_source_says_what_was_loaded(tiny_encoder):
    folder = tiny_encoder("dinov3")
    encoder = TokenEncoder(read_encoder_config(folder, 1), 1, [ZSCORE], 64)
    source = encoder.load_pretrained(folder, "tiny/dinov3")
    assert (source.name, source.folder, len(source.sha256)) == ("tiny/dinov3", str(folder), 64)
    assert source.parameters > sum(p.numel() for p in encoder.vit.parameters())  # of the file, not of the part used
    assert source.licence == "dinov3-license"
    assert str(source.licence_url).startswith("https://ai.meta.com/")


def test_licence_is_read_from_the_model_card(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("dinov2"), tmp_path / "encoder")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    encoder = TokenEncoder(read_encoder_config(folder, None), None, [ZSCORE], 64)
    source = encoder.load_pretrained(folder, "facebook/dinov2-small")
    assert (source.licence, source.licence_url) == ("apache-2.0", "https://huggingface.co/facebook/dinov2-small")


@pytest.mark.parametrize("family", ["swin", "bert"])
def test_what_is_not_a_vit_is_refused(family, tiny_encoder):
    folder = tiny_encoder(family)
    with pytest.raises(GuidinoError, match="not a vision transformer that returns one token per patch"):
        load(folder)


def test_layer_beyond_the_last_is_refused(tiny_encoder):
    for layer in (4, [1, 4]):
        with pytest.raises(GuidinoError, match=r"guidino.layer is .*4\]?, but encoder .* has 3 blocks"):
            read_encoder_config(tiny_encoder("dinov2"), layer)


def test_weights_of_another_architecture_are_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("dinov3"), tmp_path / "mixed")
    shutil.copy(tiny_encoder("dinov2") / "model.safetensors", folder)
    with pytest.raises(GuidinoError, match="cannot be loaded into the architecture"):
        load(folder)


def test_a_truncated_weight_file_is_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("dinov3"), tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(GuidinoError, match="the weights cannot be loaded"):
        load(folder)
