"""The quality of a guide, measured before a training."""
