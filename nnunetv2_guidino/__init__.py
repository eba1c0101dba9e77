"""GuiDINO (arXiv 2603.01115) as a plugin of stock nnU-Net v2.

Importing this package stays light: torch and transformers are imported by the modules that need them.
"""

__version__ = "0.1.0"


def registration_folder() -> str:
    """The folder for nnU-Net's variable nnUNet_extTrainer, where the wheel's own registration is not in force."""
    return f"{__path__[0]}/registration"
