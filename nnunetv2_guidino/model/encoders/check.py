"""Load an encoder, run it, and describe its tokens."""

from __future__ import annotations

import statistics
import time

import torch

from nnunetv2_guidino.bounds import PIXELS
from nnunetv2_guidino.model.encoders.architecture import Layer, read_encoder_config
from nnunetv2_guidino.model.encoders.source import find_encoder
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

REPETITIONS = 3


def check(encoder: str, layer: Layer, size: int, device: torch.device) -> str:
    """Describe the tokens of a square image: their grid, their width, and the median of the seconds per image.

    Args:
        encoder: Folder or name on the hub.
        layer: Block or blocks whose tokens are used, as in GuideConfig.layer.
        size: Side of the image in pixels.
        device: Device that runs the encoder.

    Raises:
        GuidinoError: If the encoder is missing, does not return one token per patch, or `size` is out of range.
    """
    PIXELS.check("--size", size)
    folder = find_encoder(encoder)
    token_encoder = TokenEncoder(read_encoder_config(folder, layer), layer, ["ZScoreNormalization"] * 3, size)
    source = token_encoder.load_pretrained(folder, encoder)
    token_encoder.to(device)
    image = torch.randn(1, 3, size, size, device=device)
    tokens = token_encoder(image)  # warms up
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        tokens = token_encoder(image)
        float(tokens.sum())  # waits for the device
        seconds.append(time.perf_counter() - start)
    in_float16 = f"{'fit' if token_encoder.fits_float16 else 'do not fit'} float16 on GPUs without bfloat16"
    _, channels, rows, columns = tokens.shape
    height, width = token_encoder.input_size(size, size)
    return (
        f"{source}\n"
        f"input {height}×{width} pixels -> {rows}×{columns} tokens of width {channels}, "
        f"patch {token_encoder.patch_size}, block {token_encoder.last_layer}\n"
        f"largest activation {source.largest_activation:.0f}: its matrix products {in_float16}\n"
        f"{statistics.median(seconds):.3f} s per image on {device} "
        f"({torch.get_num_threads()} threads, median of {REPETITIONS})"
    )
