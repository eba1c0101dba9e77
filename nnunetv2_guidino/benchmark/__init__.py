"""A matrix of trainings as one command: what runs, what is done, who runs it, and what came out."""
