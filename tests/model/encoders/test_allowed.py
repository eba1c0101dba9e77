"""What a config.json, or the plans of somebody else, may make us build."""

import json
import shutil
import time

import pytest
import torch
from tiny_encoders import CONFIGS, FAMILIES

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.allowed import checked
from nnunetv2_guidino.model.encoders.architecture import build_vit, read_encoder_config
from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

REFUSED = [
    ("timm_dinov2", {"model_args": {"checkpoint_path": "pickle.pth"}}, "model_args.checkpoint_path is refused"),
    ("timm_dinov2", {"model_args": {"pretrained_cfg": {"file": "x"}}}, "model_args.pretrained_cfg is refused"),
    ("timm_dinov2", {"model_args": {"pretrained": True}}, "model_args.pretrained is refused"),
    (
        "timm_dinov2",
        {"model_args": {"pos_embed": "hf-hub:x/y"}},
        "model_args.pos_embed is 'hf-hub:x/y'; expected",
    ),
    ("timm_dinov2", {"architecture": "hf-hub:x/y"}, "architecture is 'hf-hub:x/y'; expected a plain name, no address"),
    ("timm_dinov2", {"architecture": "local-dir:/x"}, "architecture is 'local-dir:/x'; expected a plain name"),
    ("dinov3", {"_attn_implementation": "kernels-community/x"}, "_attn_implementation is refused"),
    ("dinov2", {"attn_implementation": "kernels-community/x"}, "attn_implementation is refused"),
    ("vit", {"quantization_config": {"quant_method": "x"}}, "quantization_config is refused"),
    ("vit", {"hidden_act": {"a": 1}}, "hidden_act is .*; expected a number, true, false or a name"),
    ("dinov2", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; expected a number of at most 512"),
    ("dinov2", {"hidden_size": 10**9}, "hidden_size is 1000000000; expected a number of at most 65536"),
    ("vit", {"image_size": 10**9}, "image_size is 1000000000; expected"),
    ("dinov3", {"layer_norm_eps": float("inf")}, "layer_norm_eps is inf; expected"),
    ("timm_dinov3", {"model_args": {"depth": 10**6}}, "model_args.depth is 1000000; expected a number of at most 512"),
    ("dinov2", {"hidden_size": 2**16, "num_attention_heads": 2**6}, "describes a transformer of .* billion parameters"),
    ("dinov2", {"model_type": "no_such_model"}, "transformers does not know the model 'no_such_model'"),
    ("dinov2", {"model_type": None}, "model_type is None"),
    ("vit", {"hidden_size": "wide"}, "no vit can be made of this"),
    ("dinov2", {"num_attention_heads": 0}, "is not a vision transformer"),
    ("dinov2", {"num_hidden_layers": 0}, "describes a transformer of 0 blocks"),
    ("dinov2", {"num_hidden_layers": -1}, "(describes a transformer of 0 blocks|is not a vision)"),
    ("vit", {"patch_size": 0}, "is not a vision transformer"),
    ("timm_dinov2", {"model_args": {"depth": 1, "nonsense": 2}}, "model_args.nonsense is refused"),
    ("timm_dinov2", {"architecture": "no_such_vit"}, "is not a vision transformer"),
    ("timm_dinov2", {"architecture": "resnet18"}, "is not a vision transformer"),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_refused_at_the_folder_and_at_the_plans_at_once(family, changes, message, tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder(family), tmp_path / "encoder")
    plain = read_encoder_config(folder, None)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    start = time.perf_counter()
    with pytest.raises(GuidinoError, match=f"config.json: {message}|config.json {message}"):
        read_encoder_config(folder, None)
    with pytest.raises(GuidinoError, match=f"guidino.encoder_config in the plans:? {message}"):
        TokenEncoder({**plain, **changes}, None, ["ZScoreNormalization"] * 3, 64)
    assert time.perf_counter() - start < 10


def test_plans_without_a_model_are_refused():
    with pytest.raises(GuidinoError, match="guidino.encoder_config in the plans: model_type is None"):
        TokenEncoder({}, None, ["ZScoreNormalization"] * 3, 64)
    with pytest.raises(GuidinoError, match="guidino.encoder_config in the plans is not a vision transformer"):
        TokenEncoder({"model_type": "bert", "hidden_size": 16}, None, ["ZScoreNormalization"] * 3, 64)


def test_command_names_the_refused_key(tiny_encoder, tmp_path, capsys):
    folder = shutil.copytree(tiny_encoder("timm_dinov2"), tmp_path / "encoder")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_args": {"checkpoint_path": str(file)}}))
    assert main(["encoder", "check", str(folder)]) == 1
    assert "model_args.checkpoint_path is refused" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_what_0_1_0_wrote_is_taken(family, tiny_encoder):
    """All of transformers' to_dict but a few keys."""
    left_out = {
        "transformers_version",
        "_name_or_path",
        "architectures",
        "dtype",
        "id2label",
        "label2id",
        "label_names",
    }
    written = {key: value for key, value in CONFIGS[family].to_dict().items() if key not in left_out}
    if family.startswith("timm"):
        written["model_args"] = {**written["model_args"], "dynamic_img_size": True}
    architecture = read_encoder_config(tiny_encoder(family), None)
    assert checked(written, "x") == architecture
    assert build_vit(written).state_dict().keys() == build_vit(architecture).state_dict().keys()
    assert {"return_dict", "output_hidden_states", "chunk_size_feed_forward"}.isdisjoint(architecture)


@pytest.mark.parametrize("name", KNOWN_ENCODERS)
def test_known_encoders_may_be_built(name):
    with torch.device("meta"):
        build_vit(KNOWN_ENCODERS[name].architecture)


def test_configuration_as_timm_s_hub_writes_it(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("timm_dinov2"), tmp_path / "encoder")
    written = {
        "architecture": "vit_small_patch14_dinov2", "num_classes": 0, "num_features": 32, "global_pool": "token",
        "model_args": CONFIGS["timm_dinov2"].model_args, "pretrained_cfg": {"hf_hub_id": "timm/x", "tag": "lvd142m"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written))
    assert read_encoder_config(folder, None) == read_encoder_config(tiny_encoder("timm_dinov2"), None)


@pytest.mark.parametrize("layer", [0, -1, 4, [0, 1], [2, 4]])
def test_blocks_that_are_not_there_are_refused_in_the_plans_too(layer, tiny_encoder):
    architecture = read_encoder_config(tiny_encoder("dinov2"), None)
    for use in (
        lambda: read_encoder_config(tiny_encoder("dinov2"), layer),
        lambda: TokenEncoder(architecture, layer, ["ZScoreNormalization"] * 3, 64),
    ):
        with pytest.raises(GuidinoError, match=r"guidino.layer is .*, but .* has 3 blocks, counted from 1"):
            use()


def test_config_json_of_another_shape_is_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("dinov2"), tmp_path / "encoder")
    for text, message in (("[]", "holds list"), ("{", "is no JSON file"), ("{}", "model_type is None")):
        (folder / "config.json").write_text(text)
        with pytest.raises(GuidinoError, match=f"config.json.* {message}"):
            read_encoder_config(folder, None)
