"""A vision transformer that knows nothing, for no_harm.yaml: tiny, with random weights.

python docs/benchmarks/make_random_encoder.py FOLDER
"""

import sys

import torch
from transformers import Dinov2Config, Dinov2Model

if __name__ == "__main__":
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=84)
    Dinov2Model(config).save_pretrained(sys.argv[1])
