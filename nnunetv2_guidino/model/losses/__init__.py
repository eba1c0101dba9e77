"""The terms that a guided training adds to nnU-Net's loss."""
