"""`guidino demo`: a plain and a guided nnU-Net side by side, without a hub, a GPU or data of one's own."""
