"""`guidino demo`: a plain and a guided nnU-Net side by side, without a hub, a GPU or your own data."""
