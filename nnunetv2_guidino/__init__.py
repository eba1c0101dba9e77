"""GuiDINO (arXiv 2603.01115) as a plugin of stock nnU-Net v2.

Importing this package stays light: torch and transformers are imported by the modules that need them.
"""

__version__ = "0.1.0"
