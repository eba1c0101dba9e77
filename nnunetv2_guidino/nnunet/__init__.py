"""nnU-Net's own commands and folders."""
