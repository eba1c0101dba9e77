"""nnU-Net's trainers with a guide: one hook overridden per idea."""
