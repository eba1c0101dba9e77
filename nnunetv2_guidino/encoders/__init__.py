"""Which pretrained encoders there are, and what to do with them before and after a training."""
