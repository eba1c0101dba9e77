"""What every architecture must keep, ours and nnU-Net's planned ones."""

from typing import Any

import numpy as np
import planned
import pytest
import tiny_networks
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import Description, decode, describe, encode, strides_for
from nnunetv2_guidino.model.networks.networks_by_name import check_configuration, planned_architecture

TINY = lists.Entry("tiny_architecture:TinyArchitecture", "the least that follows the contract")
PATCH = {2: (64, 96), 3: (16, 64, 96)}
OURS = {**lists.ARCHITECTURES, "tiny": TINY}
CASES = [(name, dimensions) for name, entry in OURS.items() for dimensions in entry.load().dimensions]
CASES += [(name, dimensions) for name in planned.ARCHITECTURES for dimensions in PATCH]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch) -> None:
    monkeypatch.setitem(lists.ARCHITECTURES, "tiny", TINY)


def configuration_of(name: str, dimensions: int) -> Any:
    """nnU-Net's plans with the architecture of that name in place of the planned one."""
    if name in planned.ARCHITECTURES:
        manager = planned.plans({}, name, patch_size=PATCH[dimensions])
        return manager.get_configuration(*manager.available_configurations)
    plans = planned.plans({}, patch_size=PATCH[dimensions]).plans
    ((configuration, settings),) = plans["configurations"].items()
    settings["architecture"] = planned_architecture(name, settings, **tiny_networks.SETTINGS.get(name, {}))
    return PlansManager(plans).get_configuration(configuration)


def build(configuration: Any, deep_supervision: bool, classes: int = 2) -> Any:
    torch.manual_seed(0)
    return nnUNetTrainer.build_network_architecture(None, configuration, 3, classes, deep_supervision)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_outputs_are_what_it_says(name, dimensions):
    configuration = configuration_of(name, dimensions)
    network = build(configuration, deep_supervision=True)
    check_configuration(network, configuration.configuration)
    patch = torch.randn(2, 3, *configuration.patch_size)
    outputs = network(patch)
    assert isinstance(outputs, list)
    assert len(outputs) == describe(network).outputs
    scales = np.cumprod(configuration.pool_op_kernel_sizes, axis=0)
    for output, scale in zip(outputs, scales, strict=False):
        assert tuple(output.shape) == (2, 2, *(np.array(configuration.patch_size) // scale))
    network.decoder.deep_supervision = False
    assert torch.equal(network.eval()(patch), network(patch))
    assert network(patch).shape == outputs[0].shape


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_all_that_is_trained_has_a_gradient_and_all_weights_load_to_predict(name, dimensions):
    configuration = configuration_of(name, dimensions)
    network = build(configuration, deep_supervision=True)
    sum(output.square().mean() for output in network(torch.randn(2, 3, *configuration.patch_size))).backward()
    assert [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    predicting = build(configuration, deep_supervision=False)
    predicting.load_state_dict(network.state_dict())
    assert any(".seg_layers." in f".{key}" for key in network.state_dict())


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_features_and_divisor_are_what_it_says(name, dimensions):
    configuration = configuration_of(name, dimensions)
    network = build(configuration, deep_supervision=False).eval()
    description = describe(network)
    size = [2 * by for by in description.divisor]
    description.check_patch(size)
    patch = torch.randn(1, 3, *size)
    if description.features:
        features = encode(network, patch)
        assert [feature.shape[1] for feature in features] == list(description.features)
        torch.testing.assert_close(decode(network, features, size), network(patch))
    else:
        assert network(patch).shape[2:] == tuple(size)


def test_nnunet_s_planned_networks_say_the_same_of_themselves_in_each_form():
    for name in planned.ARCHITECTURES:
        manager = planned.plans({}, name, patch_size=(8, 32, 48))
        network = build(manager.get_configuration("3d_fullres"), True)
        assert describe(network) == Description(name, outputs=2, divisor=(4, 4, 4), features=(4, 8, 16))


@pytest.mark.parametrize(
    ("patch_size", "message"),
    [
        ([30, 50], r"patch_size is \[30, 50\], but the sides of U must be multiples of \[4, 16\]: .* \[32, 48\]"),
        ([1, 16], r"the nearest is \[4, 16\]"),
        ([2, 24], r"the nearest is \[4, 32\]"),
        ([10, 16], r"the nearest is \[12, 16\]"),
        ([16, 16, 16], "U is for 2 dimensions"),
    ],
)
def test_a_patch_that_it_cannot_take_is_refused_with_the_nearest(patch_size, message):
    with pytest.raises(GuidinoError, match=message):
        Description("U", divisor=(4, 16)).check_patch(patch_size)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_strides_from_which_nnunet_would_weigh_wrongly_are_refused(outputs):
    """In nnU-Net's own rule: with as many entries as said, the outputs weigh 1, ½, ¼ … and the last of several 0."""
    description, needed = Description("U", outputs=outputs), strides_for(outputs)
    weights = np.array([1 / 2**i for i in range(needed - 1)])
    weights[-1] = 0
    assert weights[outputs:].sum() == 0
    assert weights.sum() > 0
    assert outputs == 1 or len(weights) == outputs
    description.check_strides([[1, 1]] * needed)
    for entries in {2, 3, 6} - {needed}:
        with pytest.raises(GuidinoError, match=f"strides has {entries} entries, but U has {outputs} .* {needed} entri"):
            description.check_strides([[1, 1]] * entries)


@pytest.mark.parametrize("strides", [None, 2, [1, 2, 2], "twice"])
def test_a_foreign_encoder_whose_strides_mean_something_else_is_not_described(strides):
    network = torch.nn.Module()
    network.encoder, network.decoder = torch.nn.Identity(), torch.nn.Identity()
    network.encoder.output_channels, network.encoder.strides = [4, 8], strides
    assert describe(network) == Description("Module")


def test_what_is_not_known_is_not_refused():
    network = torch.nn.Conv2d(3, 2, 1)
    description = describe(network)
    assert description == Description("Conv2d")
    description.check_patch([31, 7])
    description.check_strides([[1, 1]])


@pytest.mark.parametrize(
    ("name", "dimensions", "message"),
    [
        ("tiny", 3, "tiny is an architecture for 2D; this configuration has 3 dimensions"),
        ("tini", 2, "the architecture is 'tini'; expected one of .*tiny; did you mean tiny?"),
    ],
)
def test_plans_of_what_there_is_not_are_refused(name, dimensions, message):
    with pytest.raises(GuidinoError, match=message):
        configuration_of(name, dimensions)


@pytest.mark.parametrize(
    ("patch_size", "entries", "message"),
    [
        ((32, 48), 6, "strides has 6 entries, but TinyArchitecture has 1 output .* with 3 entries only"),
        ((30, 50), 3, r"patch_size is \[30, 50\], but .* must be multiples of \[4, 4\]: .* \[32, 52\]"),
    ],
)
def test_a_training_that_cannot_be_right_is_refused_when_it_is_built(patch_size, entries, message, planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINO", architecture="tiny", patch_size=patch_size)
    trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]["strides"] = [[1, 1]] * entries
    with pytest.raises(GuidinoError, match=message):
        trainer.initialize()
