"""Scores of predicted segmentations, and comparisons of methods by these scores."""
