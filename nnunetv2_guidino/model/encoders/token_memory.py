"""Tokens of inputs that come again, with other folds and turned round, while an image is predicted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Bytes, where the tokens are. A prediction needs less memory than the training did by more than that.
MOST = 2**30
# nnU-Net mirrors a volume along its axes 0, 1, 2, 01, 02, 12 and 012, of which 0 is that through the slices: turned
# round, the slices of each of these with 0 came one, two, two and one before.
TURNED = 3


class TokenMemory:
    """Keeps what an encoder makes of the tiles of an image, for the folds that follow and for mirrored passes.

    To an ensemble's folds, an encoder that none of them has trained is the same. nnU-Net loads one fold after the other
    into its network and shows each the same tiles in the same order. So a tile is compared with the one that came at
    its place before, and has that one's tokens only if the two are equal to the last bit. Until a first tile came
    again, nothing else is kept: one fold alone costs nothing. What does not fit into the memory is encoded by every
    fold.

    A volume that is mirrored through its slices has the same slices in reverse, if every one is encoded. So the tokens
    of the last few volumes are kept too, and half of nnU-Net's eight mirrored passes need no encoder. Rounding may
    differ, since large volumes are encoded in parts.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []  # images and their tokens
        self._bytes = 0
        self._next = 0
        self._has_repeats = False
        self._last_volumes: deque[tuple[Tensor, Tensor]] = deque(maxlen=TURNED)

    def recall(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """The images' tokens, kept or from `encode`."""
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
        """Tokens of slices that came in reverse."""
        if not self._last_volumes:
            return None
        reverse = images.flip(0)
        return next((tokens.flip(0) for seen, tokens in self._last_volumes if _equal(seen, reverse)), None)

    def start_again(self) -> None:
        """Another fold's weights were loaded, and the encoder's among them are those that it has."""
        self._next = 0

    def forget(self) -> None:
        """The encoder has other weights."""
        self._forget_from(0)
        self._last_volumes.clear()

    def _forget_from(self, place: int) -> None:
        del self._kept[place:]
        self._bytes = sum(map(_bytes, self._kept))
        self._next = place


def _bytes(pair: tuple[Tensor, Tensor]) -> int:
    return pair[0].nbytes + pair[1].nbytes


def equal_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are the same to the last bit."""
    return ours.keys() == theirs.keys() and all(_equal(ours[name], tensor) for name, tensor in theirs.items())


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs.to(ours.device))
