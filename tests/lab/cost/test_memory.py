"""The estimate of GPU memory, for images and volumes."""

import inspect
import re
from dataclasses import replace
from pathlib import Path

import planned
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnunetv2_guidino import lists
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.memory import BAND_BYTES, GB_PER_ELEMENT, TOKEN_COPIES, Memory, estimate

ENCODER = "facebook/dinov3-vits16-pretrain-lvd1689m"  # 256 tokens of 256×256 pixels
PART = {"frozen": 256, "LoRA": 64}  # slices that are encoded at a time
DATASET = {"labels": {"background": 0, "polyp": 1}, "channel_names": {"0": "R", "1": "G", "2": "B"}}


def estimated(patch_size: tuple[int, ...], cascade: bool = False, **guide: object) -> Memory:
    plans = planned.plans({"encoder": ENCODER, **guide}, patch_size=patch_size).plans
    (configuration,) = plans["configurations"]
    if cascade:
        inherited = {"inherits_from": configuration, "previous_stage": "3d_lowres"}
        plans["configurations"][configuration := "3d_cascade_fullres"] = inherited
    memory = estimate(PlansFile(Path("plans.json"), plans, DATASET), configuration)
    assert memory is not None
    return replace(memory, gates_per_patch=0.0, boundary_per_patch=0.0)  # they have tests of their own


@pytest.mark.parametrize("dimensions", [2, 3])
def test_reference_values_are_those_of_nnunet_s_planner(dimensions):
    """They are set in its constructor, which needs a whole data set."""
    source = inspect.getsource(ExperimentPlanner.__init__)
    names = (f"val_{dimensions}d", f"val_corresp_bs_{dimensions}d", "val_corresp_GB")
    elements, batch, gigabytes = (int(re.search(rf"UNet_reference_{name} = (\d+)", source)[1]) for name in names)
    assert pytest.approx(gigabytes / (elements * batch)) == GB_PER_ELEMENT[dimensions]


def test_volumes_need_their_slices():
    image, volume = estimated((256, 256)), estimated((20, 256, 256))
    assert volume.slices_per_patch == 20
    assert estimated((20, 256, 256), slice_stride=4).slices_per_patch == 6  # 0, 4, …, 16 and 19
    same = ("guide_fixed", "guide_per_slice", "slices_at_once", "encoding_per_slice")
    assert [getattr(volume, name) for name in same] == [getattr(image, name) for name in same]
    assert volume.guide(2) == pytest.approx(image.guide(40))


def test_patches_above_the_largest_input_size_cost_no_more_in_the_encoder():
    at_most, larger = estimated((512, 512), max_input_size=512), estimated((1024, 1024), max_input_size=512)
    assert larger.encoding_per_slice == at_most.encoding_per_slice
    assert estimated((1024, 1024), max_input_size=None).encoding_per_slice > 3 * at_most.encoding_per_slice


@pytest.mark.parametrize(("tuning", "guide"), [("frozen", {}), ("LoRA", {"lora": {}})])
def test_the_encoder_works_on_a_part_of_the_slices(tuning, guide):
    part = PART[tuning]
    memory = estimated((part, 256, 256), **guide)
    one, two, three = (memory.guide(patches) for patches in (1, 2, 3))
    assert two - one == pytest.approx(part * memory.guide_per_slice)
    assert three - two == pytest.approx(two - one)
    assert one - memory.guide_fixed > part * memory.encoding_per_slice > two - one


def test_gradients_through_several_layers_keep_all_activations():
    slices = PART["frozen"]
    frozen, adapted = (estimated((slices, 256, 256), layer=[6, 12], lora=lora) for lora in (None, {}))
    assert frozen.guide(2) - frozen.guide(1) == pytest.approx(slices * frozen.guide_per_slice)
    assert adapted.guide(2) - adapted.guide(1) > 0.9 * (adapted.guide(1) - adapted.guide_fixed)


@pytest.mark.parametrize("gate", lists.GATES)
@pytest.mark.parametrize(("gate_at", "elements"), [("skips", 7), ("bottleneck", 1), ("input", 3)])
def test_gates_keep_each_gated_feature_once_more(gate_at, elements, gate):
    """Features of 4, 8 and 16 channels, at all, a quarter and a sixteenth of the pixels."""
    plans = planned.plans({"encoder": ENCODER, "gate_at": gate_at, "gate": gate}, patch_size=(32, 48)).plans
    assert (
        estimate(PlansFile(Path("plans.json"), plans, DATASET), "2d").gates_per_patch == 2 * elements * 32 * 48 / 2**30
    )


@pytest.mark.parametrize(
    ("labels", "settings", "classes"),
    [
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, {}, 2),
        ({"background": 0, "whole": [1, 2], "core": 2}, {"regions_class_order": [1, 2]}, 2),
    ],
)
def test_the_boundary_s_loss_is_counted_for_each_class(labels, settings, classes):
    dataset = {**DATASET, "labels": labels, **settings}
    for weight in (0.0, 0.5):
        plans = planned.plans({"encoder": ENCODER, "lambda_boundary": weight}, patch_size=(8, 32, 48)).plans
        counted = estimate(PlansFile(Path("plans.json"), plans, dataset), "3d_fullres").boundary_per_patch
        assert counted == (BAND_BYTES * classes * 8 * 32 * 48 / 2**30 if weight else 0)


def test_a_cascade_needs_what_its_full_resolution_needs():
    assert estimated((20, 64, 64), cascade=True) == estimated((20, 64, 64))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_tokenbook_keeps_no_more_than_counted(similarity):
    book, tokens = TokenBook(16, 4, similarity, "logistic"), torch.randn(8, 16, 10, 10)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        book(tokens)
    large = [storage for storage in kept.values() if storage.nbytes() >= tokens.nbytes]
    assert len(large) == TOKEN_COPIES - (similarity == "dot")


def test_the_largest_batch_that_fits():
    memory = replace(estimated((PART["LoRA"], 256, 256), lora={}), network_per_patch=1.0)
    assert memory.largest_batch(memory.total(5), planned=12) == 5
    assert memory.largest_batch(memory.total(5), planned=4) == 4
    assert memory.largest_batch(0.1, planned=12) == 2
