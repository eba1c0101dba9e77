"""Plans for experiments: derived, checked, estimated."""
