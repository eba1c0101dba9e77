"""The checks of `guidino doctor --train` on a GPU."""

import pytest
import torch

from nnunetv2_guidino.tools.doctor.gpu_check import CHECKS, VOLUME_CHECKS, two_gpus
from nnunetv2_guidino.tools.doctor.rehearsal import rehearsal_on, temporary_folders, volumes_on

CUDA = torch.device("cuda")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("check", CHECKS)
def test_images(check):
    with temporary_folders():
        assert check(rehearsal_on(CUDA)).remedy is None


@pytest.mark.parametrize("check", VOLUME_CHECKS)
def test_volumes_with_lora(check):
    with temporary_folders():
        assert check(volumes_on(CUDA)).remedy is None


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus():
    with temporary_folders():
        assert two_gpus(rehearsal_on(CUDA)).remedy is None
