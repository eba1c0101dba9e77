"""A matrix of trainings as one command: its jobs, their state, their launchers and the report."""
