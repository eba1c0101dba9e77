"""Define PlansFile, nnU-Net's plans with their file and everything that nnU-Net makes of them.

Read in nnU-Net 2.8.1: PlansManager and LabelManager do not check their dictionaries; the first use of a key fails.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, write_json
from nnunetv2_guidino.nnunet.descriptions import errors_in, read_dataset_json
from nnunetv2_guidino.nnunet.plans import Difference, differences, guide_settings
from nnunetv2_guidino.printable import shown

_NEEDED = {"batch_size": int, "data_identifier": str, "normalization_schemes": list, "architecture": dict}


class PlansFile:
    """Plans with their file, data set and networks; each of these is made once, when it is first used.

    The content is never changed in place. The methods `changed`, `with_configuration` and `with_guide` return other
    plans, which share the built networks, because a network depends on its configuration alone.

    Args:
        path: File of the plans.
        plans: Content of the file.
        dataset_json: Content of nnU-Net's dataset.json; None: the file beside the plans.
        source: File from which the plans are derived, for error messages; None: `path`.
    """

    def __init__(
        self, path: Path, plans: dict[str, Any], dataset_json: dict[str, Any] | None = None, source: Path | None = None
    ):
        self.path, self.plans, self.source = path, plans, source or path
        self.label = str(self.source)  # subject of error messages
        if dataset_json is not None:
            self.dataset_json = dataset_json
        self._configurations: dict[str, Any] = {}
        self._networks: dict[str, Any] = {}

    @classmethod
    def read(cls, path: Path) -> PlansFile:
        """Read a plans file.

        Raises:
            GuidinoError: If the file does not exist, where the error names the plans beside it, or is no plans file.
        """
        try:
            plans = read_json(path, dict)
        except GuidinoError as error:
            if path.exists():
                raise
            beside = sorted(other.stem for other in path.parent.glob("*Plans*.json"))
            there = f"there are {', '.join(beside)}" if beside else "run nnUNetv2_plan_and_preprocess first"
            raise GuidinoError(f"{path} does not exist; {there}") from error
        configurations = plans.get("configurations")
        if not isinstance(configurations, dict) or not all(isinstance(raw, dict) for raw in configurations.values()):
            raise GuidinoError(f"{path} has no configurations: it is not a plans file of nnU-Net")
        return cls(path, plans)

    def changed(self, **content: Any) -> PlansFile:
        """Return plans with other values of some top-level keys; `plans_name` also names the file."""
        path = self.path.with_name(f"{content['plans_name']}.json") if "plans_name" in content else self.path
        other = PlansFile(path, self.plans | content, vars(self).get("dataset_json"), self.source)
        other._networks = self._networks
        if "configurations" in content:
            other.label = f"{self.source} with these changes"
        else:
            other.label, other._configurations = self.label, self._configurations
        return other

    def with_configuration(self, name: str, **settings: Any) -> PlansFile:
        """Return plans with other settings in one configuration."""
        configurations = self.plans["configurations"]
        return self.changed(configurations={**configurations, name: {**configurations[name], **settings}})

    def with_guide(self, settings: dict[str, Any], **content: Any) -> PlansFile:
        """Return plans with a complete guide section.

        Args:
            settings: Settings that differ from those of these plans (see `guide_settings`).
            content: Other values of top-level keys, such as plans_name.
        """
        return self.changed(**content, **{PLANS_KEY: guide_settings(self.plans, settings)})

    @cached_property
    def guide(self) -> GuideConfig:
        """The guide that the plans describe, the default guide for plans without a section.

        Raises:
            GuidinoError: If the section is invalid. The error names the file.
        """
        try:
            return GuideConfig.from_plans(self.plans)
        except GuidinoError as error:
            raise GuidinoError(f"{self.path}: {error}") from error

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """The content of the dataset.json beside the file, with its labels and channels checked."""
        return read_dataset_json(self.path.with_name("dataset.json"), "labels", "channel_names")

    @cached_property
    def manager(self) -> Any:
        """nnU-Net's PlansManager."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.plans)

    @cached_property
    def label_manager(self) -> Any:
        """nnU-Net's LabelManager.

        Raises:
            GuidinoError: If nnU-Net cannot use the labels.
        """
        with errors_in(self.path.with_name("dataset.json"), "has labels that nnU-Net cannot use"):
            return self.manager.get_label_manager(self.dataset_json)

    def configuration(self, name: str) -> Any:
        """Return nnU-Net's ConfigurationManager, checked for the keys that every training needs.

        Raises:
            GuidinoError: If there is no such configuration, or a key in it is missing.
        """
        if name not in self._configurations:
            if name not in self.plans["configurations"]:
                known = ", ".join(self.plans["configurations"])
                raise GuidinoError(f"{self.label} has no configuration {name}; there are {known}")
            with errors_in(self.label, f"does not describe the configuration {name}"):
                self._configurations[name] = self._checked(self.manager.get_configuration(name))
        return self._configurations[name]

    def _checked(self, settings: Any) -> Any:
        sides = [int(side) for side in settings.patch_size]
        if len(sides) not in (2, 3) or min(sides) < 1:
            raise ValueError(f"patch_size is {settings.patch_size}; expected two or three sides")
        for key, kind in _NEEDED.items():
            value = settings.configuration[key]
            if not isinstance(value, kind) or value in ([], ""):
                raise ValueError(f"{key} is {shown(value)}; expected {kind.__name__}")
        if self.manager.label_manager_class is None:
            raise ValueError("nnU-Net has no class with the name in label_manager")
        return settings

    def input_channels(self, name: str) -> int:
        """Return the number of a configuration's input channels, as nnU-Net counts them."""
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        return int(determine_num_input_channels(self.manager, self.configuration(name), self.dataset_json))

    def network(self, name: str) -> Any:
        """Return a configuration's network with deep supervision on torch's meta device, where it takes no memory.

        Errors of nnU-Net pass through; `errors_in` turns them into a message.
        """
        import torch
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        settings = self.configuration(name)
        architecture = (
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            self.input_channels(name),
            self.label_manager.num_segmentation_heads,
        )
        if repr(architecture) not in self._networks:
            with torch.device("meta"):
                network = get_network_from_plans(*architecture, allow_init=False, deep_supervision=True)
            self._networks[repr(architecture)] = network
        return self._networks[repr(architecture)]

    def affected_by(self, names: Collection[str]) -> list[str]:
        """Return the configurations that a change of these affects: they, and all that inherit from them."""
        found = set(names)
        while True:
            more = {name for name, raw in self.plans["configurations"].items() if raw.get("inherits_from") in found}
            if more <= found:
                return sorted(found)
            found |= more

    def differs_from(self, other: PlansFile) -> list[Difference]:
        """Return all values that differ between these plans, `ours`, and others, `theirs`."""
        return list(differences(self.plans, other.plans))

    def write(self) -> None:
        """Write the file as a whole or not at all.

        Raises:
            GuidinoError: If the file cannot be written.
        """
        write_json(self.path, self.plans)
