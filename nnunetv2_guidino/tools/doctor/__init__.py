"""Examine an installation, and name a remedy for each fault."""
