"""Tokens of inputs that come again: to an ensemble's folds, an encoder that none of them has trained is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Bytes, where the tokens are. A prediction needs less memory than the training did by more than that.
MOST = 2**30


class TokenMemory:
    """Keeps what an encoder makes of an image's tiles with one fold's weights for the folds that follow.

    nnU-Net loads one fold after the other into its network and shows each the same tiles in the same order. So a tile
    is compared with the one that came at its place before, and its tokens are kept only if the two are equal to the
    last bit. Until a first tile came again, nothing else is kept: one fold alone costs nothing. What does not fit into
    the memory is encoded by every fold.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []  # images and their tokens
        self._bytes = 0
        self._next = 0
        self._has_repeats = False

    def recall(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """The images' tokens, kept or from `encode`."""
        if self._next < len(self._kept):
            seen, tokens = self._kept[self._next]
            if _equal(seen, images):
                self._has_repeats = True
                self._next += 1
                return tokens
            self._forget_from(self._next)
        tokens = encode(images)
        size = images.nbytes + tokens.nbytes
        if (self._has_repeats or not self._kept) and self._bytes + size <= MOST:
            self._kept.append((images.clone(), tokens))
            self._bytes += size
            self._next += 1
        return tokens

    def start_again(self) -> None:
        """Another fold's weights were loaded, and the encoder's among them are those that it has."""
        self._next = 0

    def forget(self) -> None:
        """The encoder has other weights."""
        self._forget_from(0)

    def _forget_from(self, place: int) -> None:
        del self._kept[place:]
        self._bytes = sum(images.nbytes + tokens.nbytes for images, tokens in self._kept)
        self._next = place


def equal_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are the same to the last bit."""
    return ours.keys() == theirs.keys() and all(_equal(ours[name], tensor) for name, tensor in theirs.items())


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs.to(ours.device))
