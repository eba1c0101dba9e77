"""GuideConfig: the one description of a guided model, and its way to and from nnU-Net's plans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import UnionType
from typing import Any, get_args, get_type_hints

from nnunetv2_guidino import __version__, lists
from nnunetv2_guidino.bounds import COUNT, PIXELS
from nnunetv2_guidino.errors import GuidinoError

DEFAULT_ENCODER = "facebook/dinov3-vits16-pretrain-lvd1689m"
ENCODER_VARIABLE = "GUIDINO_ENCODER"
PLANS_KEY = "guidino"
_LORA_KEY = f"{PLANS_KEY}.lora"
FORMAT = 1  # of the section; sections of version 0.1.0 have none

SIMILARITIES = ("cosine", "dot")
READOUTS = ("logistic", "affine")
GUIDES = ("foreground", "classes")
LAMBDA = "lambda_"  # and a term's name: its weight, as plans name it
# All that version 0.1.0 wrote into a section by which a model was to be trained.
_SETTINGS_OF_0_1_0 = {
    "encoder", "layer", "min_input_size", "prototypes", "similarity", "readout", "guides", "slice_stride", "gate",
    "lambda_guide", "lambda_boundary", "lora",
}  # fmt: skip


def default_lambdas() -> dict[str, float]:
    """The weight of each term of the loss where the plans set none."""
    return {name: term.weight for name, term in lists.LOSS_TERMS.items()}


def default_encoder() -> str:
    """The encoder where the plans name none: GUIDINO_ENCODER, else the paper's DINOv3 ViT-S."""
    return os.environ.get(ENCODER_VARIABLE) or DEFAULT_ENCODER


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation of the token encoder (arXiv 2106.09685), with the values of the GuiDINO paper's code.

    Args:
        rank: Rank r of the update of each weight matrix.
        alpha: The update is scaled by alpha / rank.
        dropout: Probability of dropping an input of the adapters, in training only.
        learning_rate: Of the adapters (section 4.2 of the GuiDINO paper); the rest of the network has its own.

    Raises:
        GuidinoError: For a value of the wrong type or out of range, naming the key.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.05
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        for name, expected in get_type_hints(LoRA).items():
            _check_type(f"lora.{name}", getattr(self, name), expected)
        _check(self.rank >= 1, "lora.rank", self.rank, "at least 1")
        for name in ("alpha", "learning_rate"):
            _check(0 < getattr(self, name) < float("inf"), f"lora.{name}", getattr(self, name), "a positive number")
        _check(0 <= self.dropout < 1, "lora.dropout", self.dropout, "a probability below 1")

    @classmethod
    def from_plans(cls, section: object, where: str) -> LoRA:
        """Read settings from plans; what they do not name takes its default.

        Args:
            section: An object in the plans.
            where: Its key, for errors.

        Raises:
            GuidinoError: For an unknown key (the nearest valid one is named) or a bad value.
        """
        settings = _known_settings(_keys(cls), section, where)
        try:
            return cls(**settings)
        except GuidinoError as error:
            raise GuidinoError(where + str(error).removeprefix(_LORA_KEY)) from None


@dataclass(frozen=True)
class GuideConfig:
    """A guided model, as written under "guidino" in nnU-Net's plans.

    Args:
        encoder: Pretrained token encoder: a name on the Hugging Face hub or a local folder. Default: the environment
            variable GUIDINO_ENCODER, else DINOv3 ViT-S.
        layer: Transformer block whose tokens are used, counted from 1; None is the last. The tokens of several, in
            ascending order, are concatenated. Whatever the block, they pass through the encoder's final norm.
        min_input_size: The guide's input is enlarged until its shorter side has this many pixels (256 pixels are
            16 tokens of DINOv3, as in the paper).
        max_input_size: Where its area is that of a square of more pixels a side than this and min_input_size, it is
            reduced to that area; None: never. What an encoder costs grows faster than the area.
        prototypes: Size K of the TokenBook.
        similarity: Between token and prototype in equation 1: "cosine" or "dot".
        readout: From mean similarity s to guide: "logistic", σ(τ·s + b), or "affine", ½ + ½·s.
        guides: One guide for the whole "foreground", or one for each of the "classes" or regions, whose maximum gates.
        slice_stride: Of a volume, every how many-th slice is encoded; the guide is interpolated between them.
        gate: Which features the guide acts on, of lists.GATES: "skips" (every skip and the bottleneck), "bottleneck"
            (the paper's GuiDINO-U), "input" (GuiDINO-W).
        gating: How it acts on them, of lists.GATINGS: "blend", feature · (1 - s + s · guide) with a learned s for each
            channel, "residual", feature · (1 + guide), "product", feature · guide.
        late_fusion: Whether predictions also add the guide's logits to the segmentation's, with a weight and a bias
            that training learns (see guide.late_fusion); else the guide acts by its gates alone.
        lambdas: λ of each term of the loss in lists.LOSS_TERMS (equation 2), by name; 0 switches it off, and one not
            named has its default: "guide", the guide's binary cross-entropy (equation 3), "guide_dice", its Dice loss,
            and "boundary", the boundary's hinge loss (section 3.2, without an equation). In plans they are keys of
            their own, lambda_NAME.
        lora: Adapts the encoder; None: it is frozen (the trainers called …LoRA put the defaults there).
        encoder_config: The encoder's architecture (transformers' config), filled in when training starts, so that the
            network can be rebuilt without hub and weights.
        encoder_source: What was loaded and from where (see source.EncoderSource), filled in with it.
        classes: Number of foreground classes or regions, filled in with it.
        versions: Of the packages that the model was trained with, filled in with it.

    Raises:
        GuidinoError: For a value of the wrong type or out of range, naming the key.
    """

    encoder: str = field(default_factory=default_encoder)
    layer: int | list[int] | None = None
    min_input_size: int = 256
    max_input_size: int | None = 256
    prototypes: int = 256
    similarity: str = "cosine"
    readout: str = "logistic"
    guides: str = "foreground"
    slice_stride: int = 1
    gate: str = "skips"
    gating: str = "blend"
    late_fusion: bool = True
    lambdas: dict[str, float] = field(default_factory=default_lambdas)
    lora: LoRA | None = None
    encoder_config: dict[str, Any] | None = None
    encoder_source: dict[str, Any] | None = None
    classes: int | None = None
    versions: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, expected in get_type_hints(GuideConfig).items():
            _check_type(name, getattr(self, name), expected)
        _check(bool(self.encoder), "encoder", self.encoder, "a name on the hub or a folder")
        _check(_is_layer(self.layer), "layer", self.layer, "null (the last), at least 1, or an ascending list of such")
        for name, bounds in (("min_input_size", PIXELS), ("prototypes", COUNT), ("slice_stride", COUNT)):
            _check(getattr(self, name) in bounds, name, getattr(self, name), str(bounds))
        largest = self.max_input_size
        _check(largest is None or largest in PIXELS, "max_input_size", largest, f"null (no limit), or {PIXELS}")
        _check(self.classes is None or self.classes >= 1, "classes", self.classes, "at least 1")
        choices: dict[str, Iterable[str]] = {
            "similarity": SIMILARITIES, "readout": READOUTS, "guides": GUIDES, "gate": lists.GATES,
            "gating": lists.GATINGS,
        }  # fmt: skip
        for name, allowed in choices.items():
            _check_choice(name, getattr(self, name), allowed)
        for name, weight in self.lambdas.items():
            _check_choice("lambdas", name, lists.LOSS_TERMS)
            _check_type(LAMBDA + name, weight, float)
            _check(0 <= weight < float("inf"), LAMBDA + name, weight, "0 (off) or a positive number")
        object.__setattr__(self, "lambdas", default_lambdas() | self.lambdas)
        if self.similarity == "dot" and self.readout == "affine":
            raise GuidinoError(
                'guidino.readout: "affine" needs similarity "cosine": a dot product leaves [-1, 1], so that ½ + ½·s '
                "would leave [0, 1]"
            )

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any]) -> GuideConfig:
        """Read the section "guidino"; what it does not name takes its default.

        A complete section without a format is one that version 0.1.0 wrote, and keeps what that version did: the
        product alone, the cross-entropy alone, and inputs of any size.

        Raises:
            GuidinoError: For a section that a newer version wrote, an unknown key (the nearest valid one is named) or a
                bad value.
        """
        written = plans.get(PLANS_KEY, {})
        section = _known_settings(_keys(cls), _readable(written), PLANS_KEY)
        if isinstance(section.get("lora"), Mapping):
            section["lora"] = LoRA.from_plans(section["lora"], _LORA_KEY)
        if "format" not in written and section.keys() >= _SETTINGS_OF_0_1_0:
            then = {"gating": "product", "late_fusion": False, "lambda_guide_dice": 0, "max_input_size": None}
            section = {**then, **section}
        lambdas = {key: section.pop(key) for key in list(section) if key.startswith(LAMBDA)}
        return cls(**section, lambdas={key.removeprefix(LAMBDA): weight for key, weight in lambdas.items()})

    def to_plans(self) -> dict[str, Any]:
        """The section "guidino", complete: reading it back gives an equal GuideConfig, whatever the environment."""
        section: dict[str, Any] = {"format": FORMAT}
        for name, value in asdict(self).items():
            section |= {LAMBDA + term: weight for term, weight in value.items()} if name == "lambdas" else {name: value}
        return section


def _is_layer(layer: int | list[int] | None) -> bool:
    if layer is None:
        return True
    layers = layer if isinstance(layer, list) else [layer]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in layers)
    return whole and bool(layers) and layers[0] >= 1 and layers == sorted(set(layers))


def _readable(section: Any) -> Any:
    """The section without its format, which is checked first: in a newer one, keys may be others or mean others."""
    if not isinstance(section, Mapping) or "format" not in section:
        return section
    written, versions = section["format"], section.get("versions")
    if isinstance(written, bool) or not isinstance(written, int) or written < 1:
        raise GuidinoError(f"{PLANS_KEY}.format is {written!r}; expected a number from 1 to {FORMAT}")
    if written > FORMAT:
        writer = versions.get("nnunetv2-guidino") if isinstance(versions, Mapping) else None
        newer = f"'nnunetv2-guidino>={writer}'" if writer else "-U nnunetv2-guidino"
        raise GuidinoError(
            f"{PLANS_KEY}.format is {written} in the plans, and this is nnunetv2-guidino {__version__}, which reads up "
            f"to {FORMAT}: a newer version wrote them. Install it: pip install {newer}"
        )
    return {key: value for key, value in section.items() if key != "format"}


def _keys(cls: type) -> list[str]:
    """What a section of the plans may name: the fields, and instead of `lambdas` a key for each term of the loss."""
    fields = [name for name in get_type_hints(cls) if name != "lambdas"]
    return fields + [LAMBDA + name for name in lists.LOSS_TERMS] if cls is GuideConfig else fields


def _known_settings(valid: list[str], section: object, where: str) -> dict[str, Any]:
    if not isinstance(section, Mapping):
        raise GuidinoError(f'plans: "{where}" must be an object of settings, not {section!r}')
    for key in section:
        if key not in valid:
            nearest = lists.did_you_mean(key, valid) or f"; expected {lists.one_of(valid)}"
            raise GuidinoError(f"{where}.{key} in the plans is unknown{nearest}")
    return dict(section)


def _check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    _check(value in allowed, name, value, lists.one_of(allowed) + lists.did_you_mean(value, allowed))


def _check(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise GuidinoError(f"{PLANS_KEY}.{name} is {value!r}; expected {expected}")


def _check_type(name: str, value: object, expected: Any) -> None:
    allowed = get_args(expected) if isinstance(expected, UnionType) else (expected,)
    allowed = tuple(getattr(a, "__origin__", a) for a in allowed)  # dict[str, Any] -> dict
    if float in allowed:
        allowed += (int,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("null" if a is type(None) else a.__name__ for a in allowed)
        raise GuidinoError(f"{PLANS_KEY}.{name} is {value!r}, of type {type(value).__name__}; expected {names}")
