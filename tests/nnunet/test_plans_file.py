"""Plans with their file, data set and networks."""

import json

import planned
import pytest
from nnunetv2.utilities import get_network_from_plans as builder

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans_file import PlansFile
from nnunetv2_guidino.tools.plan.derive_plans import plan
from nnunetv2_guidino.tools.plan.network_options import Network

DATASET = {"labels": {"background": 0, "polyp": 1}, "channel_names": {"0": "R", "1": "G", "2": "B"}}


@pytest.fixture
def plans(tmp_path) -> PlansFile:
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(planned.plans({}).plans))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    return PlansFile.read(file)


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The classes of the networks that nnU-Net builds."""
    built, build = [], builder.get_network_from_plans
    monkeypatch.setattr(
        builder,
        "get_network_from_plans",
        lambda name, *args, **options: built.append(name) or build(name, *args, **options),
    )
    return built


def test_a_network_is_built_once_without_memory(plans, built):
    network = plans.network("2d")
    guided = plans.with_guide({"gate_at": "input"}, plans_name="Guided").with_configuration("2d", batch_size=4)
    assert guided.network("2d") is plans.network("2d") is network
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert len(built) == 1


def test_other_settings_build_another_network(plans, built):
    kwargs = plans.configuration("2d").network_arch_init_kwargs | {"features_per_stage": [4, 8, 8]}
    architecture = plans.configuration("2d").configuration["architecture"] | {"arch_kwargs": kwargs}
    changed = plans.with_configuration("2d", architecture=architecture)
    assert changed.network("2d") is not plans.network("2d")
    assert len(built) == 2


@pytest.mark.parametrize("network", [None, Network("nnwnet"), Network("ukan")])
def test_a_plan_builds_its_network_once(network, plans, built, monkeypatch):
    folder = plans.path.parent / "preprocessed" / planned.DATASET
    folder.mkdir(parents=True)
    for name in ("nnUNetPlans.json", "dataset.json"):
        (plans.path.parent / name).rename(folder / name)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    plan(planned.DATASET, "New", changes={"configurations.2d.batch_size": 4}, network=network)
    assert len(built) == 1


def test_derived_plans_leave_their_source_as_it_is(plans):
    before = json.dumps(plans.plans)
    derived = plans.with_guide({"prototypes": 8}, plans_name="Derived").with_configuration("2d", batch_size=9)
    derived.write()
    assert json.dumps(plans.plans) == before
    assert derived.path == plans.path.with_name("Derived.json")
    written = PlansFile.read(derived.path)
    assert written.guide.prototypes == 8
    assert written.configuration("2d").batch_size == 9
    assert {difference.key for difference in plans.differs_from(written)} >= {
        "plans_name",
        "configurations.2d.batch_size",
    }


def test_a_network_of_another_class_differs_as_a_whole(plans):
    other = {"network_class_name": "another.Network", "arch_kwargs": {}}
    changed = plans.with_configuration("2d", architecture=other)
    assert [difference.key for difference in plans.differs_from(changed)] == ["configurations.2d.architecture"]


def test_a_change_affects_all_that_inherit(plans):
    configurations = {"2d": {}, "b": {"inherits_from": "2d"}, "c": {"inherits_from": "b"}, "d": {"inherits_from": "d"}}
    assert plans.changed(configurations=configurations).affected_by(["2d"]) == ["2d", "b", "c"]


def test_errors_of_derived_plans_name_their_source(plans):
    with pytest.raises(GuidinoError, match="nnUNetPlans.json has no configuration 3d; there are 2d"):
        plans.configuration("3d")
    derived = plans.with_guide({}, plans_name="New").with_configuration("2d", patch_size=[])
    with pytest.raises(GuidinoError, match="nnUNetPlans.json with these changes does not describe .* two or three"):
        derived.configuration("2d")
