"""What a trained guide sees in images."""
