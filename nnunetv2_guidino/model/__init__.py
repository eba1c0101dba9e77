"""The model: encoders, guide, losses and networks, all that a checkpoint is made of."""
