"""Checkpoints are read without running the code that a file may hold."""

import numpy as np
import pytest
import torch

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.model_folder import read_checkpoint

CONTENT = {"trainer_name": "nnUNetTrainer", "init_args": {"configuration": "2d"}, "network_weights": {}}


class Runs:
    """An object that writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_that_runs_a_program_is_refused_and_does_not_run_it(mmap, tmp_path):
    file, written = tmp_path / "checkpoint_final.pth", tmp_path / "written"
    torch.save({**CONTENT, "logging": Runs(written)}, file)
    with pytest.raises(GuidinoError, match="holds io.open, which may run a program; expected weights, numbers"):
        read_checkpoint(file, mmap=mmap)
    assert not written.exists()


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64])
def test_numbers_of_numpy_are_read(kind, tmp_path):
    torch.save({**CONTENT, "_best_ema": kind(1)}, tmp_path / "checkpoint_final.pth")
    assert read_checkpoint(tmp_path / "checkpoint_final.pth")["_best_ema"] == 1


def test_a_name_of_numpy_1_is_read(tmp_path):
    file = tmp_path / "checkpoint_final.pth"
    torch.save({**CONTENT, "_best_ema": np.float32(0.5)}, file, _use_new_zipfile_serialization=False)
    present = np.float32(0).__reduce__()[0].__module__.encode()
    file.write_bytes(file.read_bytes().replace(present, b"numpy.core.multiarray"))
    assert read_checkpoint(file)["_best_ema"] == 0.5
