"""The pretrained part of each architecture: what is loaded where, what does not fit, and who may train without it.

The weights are fakes: tiny random ones with timm's names.
"""

import json
from dataclasses import asdict

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from safetensors.torch import load_file, save_file
from timm_weights import FAKES, save_fake
from tiny_networks import ON_TOKENS, tiny_network

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config

SIZE = (64, 96)


@pytest.fixture
def start(tmp_path, tiny_encoder):
    """A tiny network that is to start from fake weights, and their folder."""

    def start(name: str, channels: int = 3, **settings):
        if name in FAKES:
            folder = save_fake(name, tmp_path / name)
        else:
            folder = tiny_encoder("dinov3")
            layers = {"layers": [1, 2, 3], "widths": [4, 6, 8]} if name == "segdino" else {"layers": [3]}
            settings = {"encoder_config": read_encoder_config(folder, None), **layers, **settings}
        return tiny_network(name, SIZE, channels, pretrained=str(folder), **settings), folder

    return start


def test_published_weights_are_named_where_there_is_such_a_part():
    named = {name: entry.load().published_weights for name, entry in lists.ARCHITECTURES.items()}
    assert named.pop("swin_unet") == "timm/swin_tiny_patch4_window7_224.ms_in1k"
    assert named.pop("h2former") == "timm/resnet34.tv_in1k"
    assert {name for name, weights in named.items() if weights is not None} == set(ON_TOKENS)


def test_swin_s_blocks_go_into_the_encoder_and_mirrored_into_the_decoder(start):
    network, folder = start("swin_unet")
    network.load_pretrained()
    theirs = load_file(folder / "model.safetensors")
    ours = network.state_dict()
    for stage in range(4):
        for block in range(2):
            key = f"{block}.attn.qkv.weight"
            expected = theirs[f"layers.{stage}.blocks.{key}"]
            assert torch.equal(ours[f"encoder.stages.{stage}.{key}"], expected)
            assert stage == 3 or torch.equal(ours[f"decoder.stages.{stage}.{key}"], expected)
    for key, name in {
        "embedding.weight": "patch_embed.proj.weight",
        "embedding_norm.bias": "patch_embed.norm.bias",
        "mergings.0.reduction.weight": "layers.1.downsample.reduction.weight",
        "mergings.2.norm.weight": "layers.3.downsample.norm.weight",
        "norm.weight": "norm.weight",
    }.items():
        assert torch.equal(ours[f"encoder.{key}"], theirs[name])


@pytest.mark.parametrize("side", [192, 96])
def test_swin_s_encoder_computes_what_timm_s_does(side, start):
    """With as many blocks as there are in the weights, in whole windows; at 96 one covers the last map."""
    network, _ = start("swin_unet", blocks=[2, 2, 6, 2], drop_path=0.0)
    network.load_pretrained()
    theirs = FAKES["swin_unet"]().eval()
    theirs.set_input_size((side, side), window_size=(3, 3))
    patch = torch.randn(1, 3, side, side)
    with torch.no_grad():
        last = network.eval().encode(patch)[-1]
        torch.testing.assert_close(last.permute(0, 2, 3, 1), theirs.forward_features(patch))


def test_the_names_of_swin_s_authors_are_understood(start):
    network, folder = start("swin_unet")
    theirs = load_file(folder / "model.safetensors")
    renamed = {}
    for key, tensor in theirs.items():
        stage = key.split(".")[1] if ".downsample." in key else None
        renamed[key if stage is None else key.replace(f"layers.{stage}", f"layers.{int(stage) - 1}")] = tensor
    save_file(renamed, folder / "model.safetensors")
    network.load_pretrained()
    assert torch.equal(network.encoder.mergings[0].norm.weight, theirs["layers.1.downsample.norm.weight"])


def test_the_resnet_is_filled_and_nothing_else(start):
    network, folder = start("h2former")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.load_pretrained()
    theirs = load_file(folder / "model.safetensors")
    for key, tensor in network.state_dict().items():
        name = key.removeprefix("encoder.resnet.")
        assert torch.equal(tensor, theirs[name] if name != key else before[key]), key


def test_weights_without_counters_fit(start):
    network, folder = start("h2former")
    theirs = load_file(folder / "model.safetensors")
    save_file({key: theirs[key] for key in theirs if "num_batches" not in key}, folder / "model.safetensors")
    network.load_pretrained()


@pytest.mark.parametrize(("name", "weight"), [("swin_unet", "encoder.embedding"), ("h2former", "encoder.resnet.conv1")])
def test_other_channels_get_the_first_convolution_summed_up_or_repeated(name, weight, start):
    colour, grey, four = (start(name, channels)[0] for channels in (3, 1, 4))
    for network in (colour, grey, four):
        network.load_pretrained()
    weights = [network.get_submodule(weight).weight for network in (colour, grey, four)]
    torch.testing.assert_close(weights[1], weights[0].sum(dim=1, keepdim=True))
    torch.testing.assert_close(weights[2][:, 3], weights[0][:, 0] * 3 / 4)


@pytest.mark.parametrize("name", ["segdino", "seg_guidino", "seg_guidino_partner"])
def test_a_transformer_is_filled(name, start):
    network, folder = start(name)
    network.load_pretrained()
    theirs = load_file(folder / "model.safetensors")
    key = "norm.weight"
    assert torch.equal(network.token_encoder.vit.state_dict()[key], theirs[key])


@pytest.mark.parametrize("name", ["swin_unet", "h2former", "segdino"])
def test_what_was_loaded_is_described(name, start):
    network, folder = start(name)
    network.load_pretrained()
    source = asdict(network.pretrained_source)
    assert json.loads(json.dumps(source)) == source
    assert (source["name"], source["folder"]) == (str(folder), str(folder))
    assert len(source["sha256"]) == 64
    assert source["parameters"] == sum(t.numel() for t in load_file(folder / "model.safetensors").values())
    assert source["licence"] == ("dinov3-license" if name == "segdino" else "mit")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "swin_unet",
            {"width": 16},
            r"patch_embed.proj.weight has shape \(8, 3, 4, 4\), expected \(16, 3, 4, 4\);",
        ),
        ("swin_unet", {"blocks": [2, 2, 8, 2]}, r"layers.2.blocks.6.norm1.weight is missing, expected \(32,\)"),
        (
            "swin_unet",
            {"window": 7},
            "relative_position_bias_table has shape .*--set architecture.pretrained=null",
        ),
        ("h2former", {"blocks": [2, 1, 1, 1]}, "layer1.1.conv1.weight is missing"),
        ("segdino", {"layers": [1, 2], "widths": [4, 4], "min_input_size": 32}, None),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(name, settings, message, start):
    network, _ = start(name, **settings)
    if message is None:  # fewer blocks do
        network.load_pretrained()
        return
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(GuidinoError, match=message):
        network.load_pretrained()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_numbers_that_are_none_are_refused(start):
    network, folder = start("h2former")
    save_fake("h2former", folder, **{"layer1.0.conv1.weight": torch.full((8, 8, 3, 3), torch.nan)})
    with pytest.raises(GuidinoError, match="layer1.0.conv1.weight contains NaN or infinite values"):
        network.load_pretrained()


def test_where_there_is_no_hub_it_says_how_to_bring_the_weights():
    network = tiny_network("h2former", SIZE, pretrained="timm/resnet34.tv_in1k")
    with pytest.raises(
        GuidinoError,
        match="run `hf download timm/resnet34.tv_in1k --local-dir FOLDER`, copy FOLDER here and plan "
        "with --set architecture.pretrained=FOLDER; or point HF_HOME",
    ):
        network.load_pretrained()


@pytest.mark.parametrize("name", [*FAKES, "segdino"])
def test_without_its_weights_it_predicts_and_refuses_to_train(name, start, tmp_path):
    network, folder = start(name)
    patch = torch.randn(2, 3, *SIZE)
    message = f"is to start from {folder}, which this trainer does not load: train it with -tr nnUNetTrainerGuiDINO"
    with pytest.raises(GuidinoError, match=message):
        network(patch)
    with torch.no_grad():
        network(patch)
    network.eval()(patch)
    torch.save({"network_weights": network.state_dict()}, tmp_path / "checkpoint.pth")
    network, _ = start(name)
    load_pretrained_weights(network, tmp_path / "checkpoint.pth")
    network(patch)


@pytest.mark.parametrize("name", FAKES)
def test_a_compiled_network_refuses_likewise_and_trains_without_a_graph_break(name, start):
    network, _ = start(name)
    compiled = torch.compile(network, backend="eager")
    patch = torch.randn(2, 3, *SIZE)
    with pytest.raises(GuidinoError, match="which this trainer does not load"):
        compiled(patch)
    network.load_pretrained()
    compiled(patch)
    torch._dynamo.reset()
    report = torch._dynamo.explain(network)(patch)
    assert report.graph_break_count == 0, report.break_reasons
