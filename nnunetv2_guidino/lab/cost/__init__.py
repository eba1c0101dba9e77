"""What a guide costs, computed before a training."""
