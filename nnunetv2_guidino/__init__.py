"""GuiDINO (arXiv 2603.01115) as a plugin of stock nnU-Net v2.

Importing this package stays light: torch and transformers are imported by the modules that need them.
"""

from pathlib import Path

__version__ = "0.2.0.dev0"


def registration_folder() -> str:
    """Return the folder for nnU-Net's variable nnUNet_extTrainer, for an nnU-Net in another installation.

    A clone has it in this package. A wheel has moved it beside the package, to where nnU-Net keeps its trainers; that
    helps if nnunetv2 itself is installed elsewhere.
    """
    package = Path(__path__[0])
    in_clone = package / "registration"
    return str(in_clone if in_clone.is_dir() else package.parent / "nnunetv2" / "training" / "nnUNetTrainer")


def converters_folder() -> Path:
    """Return the folder dataset_conversion: inside the package in a wheel, beside the package in a clone."""
    package = Path(__path__[0]).resolve()
    carried = package / "dataset_conversion"
    return carried if (carried / "folder.py").is_file() else package.parent / "dataset_conversion"
