"""Segmentation networks that plans may name, and what every network is asked before it is guided."""
