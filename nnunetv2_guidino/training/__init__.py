"""Extend nnU-Net's trainers with a guide; each overridden hook adds one idea."""
