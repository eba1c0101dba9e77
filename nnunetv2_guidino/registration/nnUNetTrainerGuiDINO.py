"""Answer stock nnU-Net, which looks for trainers here and asks this module for a name with hasattr.

The wheel places this file in nnunetv2/training/nnUNetTrainer. Where that is not possible, nnU-Net's own variable
nnUNet_extTrainer points at the folder this file lies in. Nothing heavy is imported before one of our trainers is asked
for, so that the others start as fast as without us.
"""

PREFIX = "nnUNetTrainerGuiDINO"


def __getattr__(name: str) -> type:
    if name.startswith(PREFIX):
        from nnunetv2_guidino.training.naming import asked_by_nnunet

        if trainer := asked_by_nnunet(name):
            return trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
