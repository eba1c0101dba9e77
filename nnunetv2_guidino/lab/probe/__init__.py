"""How good a guide would be, measured before a training."""
