"""Segmentation networks that plans may name, and the contract that each network keeps before it is guided."""
