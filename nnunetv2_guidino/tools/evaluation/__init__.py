"""Scores of predicted segmentations, and comparisons of methods by their scores."""
