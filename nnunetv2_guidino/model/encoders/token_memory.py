"""Keep the tokens of inputs that occur again, in other folds or mirrored, while an image is predicted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Bytes on the device of the tokens. A prediction needs less memory than the training, by more than this.
MOST = 2**30
# nnU-Net mirrors a volume along its axes 0, 1, 2, 01, 02, 12 and 012, where axis 0 runs through the slices. The passes
# that mirror axis 0 have the slices of the pass that came one, two, two or one before, in reverse.
TURNED = 3


class TokenMemory:
    """Keep an encoder's tokens of the tiles of an image, for the following folds and for mirrored passes.

    All folds of an ensemble have the same frozen encoder. nnU-Net loads one fold after the other into its network and
    passes the same tiles in the same order to each. So each tile is compared with the tile at the same place in the
    pass before, and gets its tokens if both tiles are equal to the last bit. Until the first tile occurs again, only
    this tile is kept, so a single fold costs nothing. Every fold encodes the tiles that do not fit into the memory.

    A volume that is mirrored through its slices has the same slices in reverse, if every slice is encoded. So the
    tokens of the last few volumes are kept too, and half of nnU-Net's eight mirrored passes need no encoder. Rounding
    may differ, because large volumes are encoded in parts.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []  # images and their tokens
        self._bytes = 0
        self._next = 0
        self._has_repeats = False
        self._last_volumes: deque[tuple[Tensor, Tensor]] = deque(maxlen=TURNED)

    def recall(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the images' tokens, from the memory or from `encode`."""
        if self._next < len(self._kept):
            pair = self._kept[self._next]
            if _equal(pair[0], images):
                self._has_repeats = True
                self._next += 1
                self._note_volume(pair)
                return pair[1]
            self._forget_from(self._next)
        turned = self._turned(images)
        tokens = encode(images) if turned is None else turned
        pair = images.clone(), tokens
        if (self._has_repeats or not self._kept) and self._bytes + _bytes(pair) <= MOST:
            self._kept.append(pair)
            self._bytes += _bytes(pair)
            self._next += 1
        self._note_volume(pair)
        return tokens

    def _note_volume(self, pair: tuple[Tensor, Tensor]) -> None:
        if len(pair[0]) > 1 and TURNED * _bytes(pair) <= MOST:
            self._last_volumes.append(pair)

    def _turned(self, images: Tensor) -> Tensor | None:
        """Return the tokens of an earlier volume with the same slices in reverse, None if there is none."""
        if not self._last_volumes:
            return None
        reverse = images.flip(0)
        return next((tokens.flip(0) for seen, tokens in self._last_volumes if _equal(seen, reverse)), None)

    def start_again(self) -> None:
        """Begin with the first tile again: another fold was loaded, and its encoder has equal weights."""
        self._next = 0

    def forget(self) -> None:
        """Forget all tokens: the encoder has other weights."""
        self._forget_from(0)
        self._last_volumes.clear()

    def _forget_from(self, place: int) -> None:
        del self._kept[place:]
        self._bytes = sum(map(_bytes, self._kept))
        self._next = place


def _bytes(pair: tuple[Tensor, Tensor]) -> int:
    return pair[0].nbytes + pair[1].nbytes


def equal_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Return True if two state dicts are equal to the last bit."""
    return ours.keys() == theirs.keys() and all(_equal(ours[name], tensor) for name, tensor in theirs.items())


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs.to(ours.device))
