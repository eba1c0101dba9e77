"""Experiments: benchmark, probe, cost and demo."""
