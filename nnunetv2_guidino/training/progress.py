"""Draw guide_progress.png: the loss terms, the guide's Dice, and the guide at stages of a training.

The picture lies beside nnU-Net's progress.png.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nnunetv2_guidino.display import displayed, draw_outline
from nnunetv2_guidino.files import whole_file
from nnunetv2_guidino.lists import LOSS_TERMS
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork

Array = npt.NDArray[Any]

CASES = 4
STAGES = 8  # number of stages after the start at which the guide is recorded
TILE = 128  # pixels of a patch's longer side in the picture
SECONDS = 60  # shortest time between two pictures that show the same guides


@contextmanager
def reported(log: Callable[[str], None]) -> Iterator[None]:
    """Log errors of the picture and do not raise them: a picture is no reason to lose a training of days."""
    try:
        yield
    except Exception as error:
        log(f"guide_progress.png could not be brought up to date: {type(error).__name__}: {error}")


def prototypes_in_use(weights: Tensor) -> float:
    """Return exp(entropy of α), averaged over all guides (α as in equation 1).

    The value is K if all prototypes have equal weight and 1 if one prototype has all the weight.

    Shape:
        weights (G, K); each row sums to one
    """
    return float(torch.distributions.Categorical(probs=weights.detach(), validate_args=False).perplexity().mean())


def fixed_patches(dataset: Any, patch_size: Sequence[int], foreground: Sequence[int]) -> tuple[Array, Array]:
    """Return patches around the foreground of a few cases. Every call returns the same: no random number is drawn.

    Args:
        dataset: nnU-Net's preprocessed data set. A volume gives the slice with the largest foreground.
        patch_size: (H, W) in pixels.
        foreground: Labels that count as foreground.

    Returns:
        Preprocessed images (n, C, H, W) and foreground masks (n, H, W).
    """
    names = sorted(dataset.identifiers)
    images, masks = [], []
    for i in np.linspace(0, len(names) - 1, min(CASES, len(names)), dtype=int):
        data, labels, *_ = dataset.load_case(names[i])
        mask = np.isin(labels[0], foreground)
        z = int(mask.sum((1, 2)).argmax())
        box = _box_around(mask[z], patch_size)
        images.append(crop_and_pad_nd(np.asarray(data[:, z]), box, 0))
        masks.append(crop_and_pad_nd(mask[z], box, False))
    return np.stack(images), np.stack(masks)


def _box_around(mask: Array, patch_size: Sequence[int]) -> list[list[int]]:
    """Return start and end along each axis; a box that leaves the image has to be padded."""
    box = []
    centres = np.argwhere(mask).mean(0) if mask.any() else np.array(mask.shape) / 2
    for centre, size, patch in zip(centres, mask.shape, patch_size, strict=True):
        slack = size - patch
        start = int(np.clip(centre - patch / 2, 0, slack)) if slack > 0 else slack // 2
        box.append([start, start + patch])
    return box


def stages(epochs: int) -> list[int]:
    """Return the numbers of finished epochs at which the guide is recorded.

    They are spaced geometrically, because the guide changes fastest in the beginning.
    """
    return [0, *sorted({int(n) for n in np.geomspace(1, epochs, STAGES).round()})]


class GuideProgress:
    """Record the guide of fixed patches at some stages of a training, and draw it below the curves.

    The recorded guides lie in guide_progress.npz beside the picture, so that a resumed training finds them.

    Args:
        folder: nnU-Net's output folder of the fold.
        images, masks: Images and masks as fixed_patches returns them.
        epochs: Number of epochs of the training.
        finished: Number of epochs already trained; later records, from before a kill, are dropped.
    """

    def __init__(self, folder: Path, images: Array, masks: Array, epochs: int, finished: int):
        self.file = folder / "guide_progress.npz"
        self.images, self.masks = images, masks
        self.stages = stages(epochs)
        scale = min(1.0, TILE / max(masks.shape[1:]))
        self.tile = tuple(max(1, round(side * scale)) for side in masks.shape[1:])
        self.guides: dict[int, Array] = {}  # finished epochs -> (n, *tile) in 0…255
        # Time of the last picture, and the number of guides in it.
        self._drawn = -math.inf
        self._drawn_guides = 0
        if finished and self.file.is_file():
            with np.load(self.file) as recorded:
                if recorded["guides"].shape[1:] == (len(images), *self.tile):
                    pairs = zip(recorded["finished"], recorded["guides"], strict=True)
                    self.guides = {int(n): guide for n, guide in pairs if n <= finished}

    def record(self, network: GuidedNetwork, finished: int) -> None:
        """Record the guide and write the file, if this number of finished epochs is one of the stages."""
        if finished not in self.stages or finished in self.guides:
            return
        training = network.training
        network.eval()  # dropout would use random numbers of the training
        with torch.no_grad():
            device = next(network.parameters()).device
            guide = network.guide(torch.from_numpy(self.images).float().to(device)).float()
            guide = F.interpolate(guide, size=self.tile, mode="bilinear").clamp(0, 1)
        network.train(training)
        self.guides[finished] = (255 * guide[:, 0]).round().byte().cpu().numpy()
        with whole_file(self.file) as unfinished:
            np.savez_compressed(unfinished, finished=list(self.guides), guides=np.stack(list(self.guides.values())))

    def update(self, network: GuidedNetwork, finished: int, history: Mapping[str, Sequence[float]]) -> None:
        """Record the guide, and draw the picture if it is due, as it always is after the last epoch."""
        self.record(network, finished)
        if self._is_due():
            self.draw(history, network.tokenbook.weights.shape[1])

    def _is_due(self) -> bool:
        """Return True if a guide was recorded since the last picture, or if that picture is a minute old.

        Drawing takes one or two seconds of the CPU, while the GPU waits.
        """
        return len(self.guides) > self._drawn_guides or time.monotonic() - self._drawn >= SECONDS

    def draw(self, history: Mapping[str, Sequence[float]], prototypes: int) -> None:
        """Write guide_progress.png.

        Args:
            history: nnU-Net's log, with one value for each epoch under each key.
            prototypes: Number K of prototypes.
        """
        rows = len(self.images)
        with style.context("default"):  # undoes nnU-Net's change of the fonts, which affects the whole process
            figure = Figure(figsize=(15, 3.2 + 1.4 * rows), layout="constrained")
            above, below = cast(Iterable[Any], figure.subfigures(2, 1, height_ratios=(3, 1.4 * rows)))
            _draw_curves(above, history, prototypes)
            self._draw_guides(below.subplots())
            with whole_file(self.file.with_suffix(".png")) as unfinished:
                figure.savefig(unfinished, dpi=80)
        self._drawn, self._drawn_guides = time.monotonic(), len(self.guides)

    def _draw_guides(self, axes: Axes) -> None:
        # All tiles are one image: matplotlib would need seconds to lay out an axis for each.
        finished = sorted(self.guides)
        colours = matplotlib.colormaps["inferno"]
        columns = [self._thumbnails(), *(colours(self.guides[n])[..., :3] for n in finished)]
        axes.imshow(np.hstack([_stacked(tiles, 1) for tiles in columns]))
        outline = np.tile(_stacked(_resized(self.masks[:, None], self.tile)[..., 0] > 0.5, False), len(columns))
        draw_outline(axes, outline, "white", 0.8)
        width = outline.shape[1] / len(columns)
        titles = ["image", *("before training" if n == 0 else f"after {n} epoch{'s' * (n > 1)}" for n in finished)]
        axes.set_xticks([width * (i + 0.5) for i in range(len(columns))], titles, fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_yticks([])
        axes.set_frame_on(False)

    def _thumbnails(self) -> Array:
        """Return the images as tiles (n, *tile, 3) in 0…1."""
        tiles = _resized(np.stack([displayed(image) for image in self.images]), self.tile)
        return np.broadcast_to(tiles, (*tiles.shape[:3], 3))


def _resized(images: Array, size: tuple[int, ...]) -> Array:
    """Resize by area: (n, C, H, W) -> (n, *size, C)."""
    resized = F.interpolate(torch.from_numpy(images).float(), size=size, mode="area")
    return resized.movedim(1, -1).numpy()


def _stacked(tiles: Array, margin: float) -> Array:
    """Place tiles (n, h, w, …) one below the other, with margins."""
    around = [(0, 0), (2, 2), (2, 2)] + [(0, 0)] * (tiles.ndim - 3)
    return np.concatenate(np.pad(tiles, around, constant_values=margin))


def _draw_curves(figure: Any, history: Mapping[str, Sequence[float]], prototypes: int) -> None:
    labels = {"seg": "segmentation loss"} | {name: term.label for name, term in LOSS_TERMS.items()}
    terms = [term for term in labels if f"train_{term}_loss" in history]
    panels = {
        labels[term]: {"training": history[f"train_{term}_loss"], "validation": history[f"val_{term}_loss"]}
        for term in terms
    }
    panels["Dice"] = {"guide": history["guide_dice"], "segmentation (pseudo Dice)": history["mean_fg_dice"]}
    panels["prototypes in use"] = {"exp(entropy of α)": history["prototypes_in_use"]}
    axes = dict(zip(panels, figure.subplots(1, len(panels)), strict=True))
    for title, curves in panels.items():
        for (label, values), line in zip(curves.items(), ("-", "--"), strict=False):
            marker = "." if len(values) < 20 else None  # a line needs two points
            axes[title].plot(range(1, len(values) + 1), values, line, marker=marker, label=label)
        axes[title].set_title(title, fontsize=10)
        axes[title].set_xlabel("epochs", fontsize=9)
        axes[title].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes["Dice"].set_ylim(0, 1)
    axes["prototypes in use"].set_ylim(0, 1.1 * prototypes)
    axes["prototypes in use"].axhline(prototypes, color="grey", linestyle="dotted", label=f"all {prototypes}")
    for axis in axes.values():
        axis.legend(fontsize=8)
