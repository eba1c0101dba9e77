"""A GPU computes while Python prepares the next operations, until code reads a number. In a step, only nnU-Net does."""

import sys
from pathlib import Path

import nnunetv2
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import nnunetv2_guidino

OURS = str(Path(nnunetv2_guidino.__file__).parent)  # in the clone or in site-packages
NNUNET = str(Path(nnunetv2.__file__).parent)
WAITING = {"cpu", "numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__"}


def asking_file() -> str:
    """Return the innermost file of ours or of nnU-Net's in the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith((OURS, NNUNET)):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


ATEN = torch.ops.aten
# a GPU's host has to know how many there are before it can make room for them
COUNTED = (ATEN.nonzero.default, ATEN.masked_select.default, ATEN._unique2.default, ATEN.bincount.default)


class Scalars(TorchDispatchMode):
    """Record the files that read numbers, or that count the places where a condition holds."""

    def __init__(self, found: list[str]):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        boolean = [i for i in (args[1] if func is ATEN.index.Tensor else ()) if i is not None and i.dtype == torch.bool]
        if func is ATEN._local_scalar_dense.default or func in COUNTED or boolean:
            self.found.append(asking_file())
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Record the files that copy tensors to the CPU; the dispatcher does not see copies of tensors that are there."""

    def __init__(self, found: list[str]):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in WAITING:
            self.found.append(asking_file())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "patch_size", "guide"),
    [
        ("nnUNetTrainerGuiDINO", (32, 48), {}),
        ("nnUNetTrainerGuiDINOLoRA", (32, 48), {"guides": "classes"}),  # of two classes
        ("nnUNetTrainerGuiDINO", (8, 32, 48), {"slice_stride": 2}),
    ],
)
def test_no_step_waits_for_more_than_nnunet_s_own_and_the_size_of_the_band(name, patch_size, guide, planned_trainer):
    labels = {"background": 0, "a": 1, "b": 2} if guide else {"background": 0, "a": 1}
    trainer = planned_trainer(name, guide=guide, patch_size=patch_size, labels=labels)
    trainer.initialize()
    labels = torch.zeros(2, 1, *patch_size)
    labels[..., 8:24, 12:30] = 1
    labels[..., 8:16, 12:30] = len(trainer.label_manager.foreground_labels)
    half = (slice(None), slice(None), *[slice(None, None, 2)] * len(patch_size))
    batch = {"data": torch.randn(2, 3, *patch_size), "target": [labels, labels[half]]}
    found: list[str] = []
    with Scalars(found), Copies(found):
        trained = trainer.train_step(batch)
        with torch.no_grad():
            validated = trainer.validation_step(batch)
    assert any(file.startswith(NNUNET) for file in found)  # they are noticed
    ours = [Path(file.rpartition(":")[0]).name for file in found if file.startswith(OURS)]
    assert ours == ["boundary.py"] * 2  # the band's pixels, once in each step

    trainer.on_train_epoch_end([trained] * 3)
    trainer.on_validation_epoch_end([validated] * 3)
    assert trainer.logger.get_value("train_guide_loss", step=-1) == pytest.approx(float(trained["guide_loss"][0]))
    assert 0 <= trainer.logger.get_value("guide_dice", step=-1) <= 1
