"""What is asked of an installation: is everything there, and what to do if not."""
