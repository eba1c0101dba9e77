"""The guide of a trained model on images."""
