"""The cost of a guide in time and memory, measured before a training."""
