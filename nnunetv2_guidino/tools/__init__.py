"""Commands' work before and after a training."""
