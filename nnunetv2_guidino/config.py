"""GuideConfig describes a guided model, and is read from and written to nnU-Net's plans."""

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
FORMAT = 2  # format of the section; sections of version 0.1.0 have none

SIMILARITIES = ("cosine", "dot")
READOUTS = ("logistic", "affine")
GUIDES = ("foreground", "classes")
# Names that a setting may have.
CHOICES: dict[str, Iterable[str]] = {
    "similarity": SIMILARITIES, "readout": READOUTS, "guides": GUIDES, "gate_at": lists.GATE_POSITIONS,
    "gate": lists.GATES,
}  # fmt: skip
LAMBDA = "lambda_"  # prefix of a loss term's weight in plans; the term's name follows
# All keys that version 0.1.0 wrote into the section of a model before its training.
_SETTINGS_OF_0_1_0 = {
    "encoder", "layer", "min_input_size", "prototypes", "similarity", "readout", "guides", "slice_stride", "gate_at",
    "lambda_guide", "lambda_boundary", "lora",
}  # fmt: skip
_POSITIONS_OF_0_1_0 = ("skips", "bottleneck", "input")


def default_lambdas() -> dict[str, float]:
    """Return the weight λ of each loss term that holds if the plans set none (equation 2)."""
    return {name: term.weight for name, term in lists.LOSS_TERMS.items()}


def default_encoder() -> str:
    """Return the encoder that holds if the plans name none: GUIDINO_ENCODER, else the paper's DINOv3 ViT-S."""
    return os.environ.get(ENCODER_VARIABLE) or DEFAULT_ENCODER


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation of the token encoder (arXiv 2106.09685), with the values of the GuiDINO paper's code.

    Args:
        rank: Rank r of the update of each weight matrix.
        alpha: Scale of the update, which is multiplied by alpha / rank.
        dropout: Probability of dropping an input of the adapters, in training only.
        learning_rate: Learning rate of the adapters (section 4.2 of the GuiDINO paper); the rest of the network has
            another.

    Raises:
        GuidinoError: If a value has the wrong type or is out of range. The error names the key.
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
        """Read settings from plans; settings that are missing there have their defaults.

        Args:
            section: Object in the plans.
            where: Key of the object in the plans, for error messages.

        Raises:
            GuidinoError: If a key is unknown (the error names the nearest valid one) or a value is invalid.
        """
        settings = _known_settings(_keys(cls), section, where)
        try:
            return cls(**settings)
        except GuidinoError as error:
            raise GuidinoError(where + str(error).removeprefix(_LORA_KEY)) from None


@dataclass(frozen=True)
class GuideConfig:
    """The settings of a guided model, as nnU-Net's plans have them under "guidino".

    Args:
        encoder: Pretrained token encoder: a name on the Hugging Face hub or a local folder. Default: the environment
            variable GUIDINO_ENCODER, else DINOv3 ViT-S.
        layer: Number of the transformer block that gives the tokens, counted from 1. None is the last block. A list in
            ascending order concatenates the tokens of several blocks. Tokens of every block pass the encoder's final
            norm.
        min_input_size: Shortest side of the guide's input in pixels; smaller inputs are enlarged (256 pixels are
            16 tokens of DINOv3, as in the paper).
        max_input_size: Side, in pixels, of the largest square whose area an input may have, but at least
            min_input_size; larger inputs are reduced to this area. None: no limit. The cost of an encoder grows faster
            than the area.
        prototypes: Number K of the TokenBook's prototypes.
        similarity: Similarity of token and prototype in equation 1: "cosine" or "dot".
        readout: Map from mean similarity s to guide: "logistic", σ(τ·s + b), or "affine", ½ + ½·s.
        guides: One guide for the whole "foreground", or one for each of the "classes" or regions, whose maximum gates.
        slice_stride: Step between the slices of a volume that are encoded; the guide is interpolated between them.
        gate_at: Features on which the guide acts. lists.GATE_POSITIONS has the names.
        gate: Action of the guide on a feature. lists.GATES has the names.
        late_fusion: Addition of the guide's logits to the segmentation's in predictions, with a weight and a bias that
            are fitted on training patches. If False, the guide acts by its gates alone. See guide.late_fusion.
        lambdas: Weight λ of each loss term in lists.LOSS_TERMS (equation 2), by name. 0 switches a term off, and a
            missing name has its default. "guide" is the guide's binary cross-entropy (equation 3), "guide_dice" its
            Dice loss, "boundary" the boundary's hinge loss (section 3.2, without an equation). In plans, each weight
            has a key of its own, lambda_NAME.
        lora: LoRA of the encoder. None: the encoder is frozen. The trainers called …LoRA set the defaults here.
        encoder_config: Architecture of the encoder (transformers' config), from which the network can be rebuilt
            without hub and weights. The trainer fills it in when training starts.
        encoder_source: Source of the encoder's weights (see source.EncoderSource). The trainer fills it in.
        classes: Number of foreground classes or regions. The trainer fills it in.
        versions: Versions of the packages that trained the model. The trainer fills them in.

    Raises:
        GuidinoError: If a value has the wrong type or is out of range. The error names the key.
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
    gate_at: str = "skips"
    gate: str = "blend"
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
        for name, allowed in CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name, weight in self.lambdas.items():
            _check_choice("lambdas", name, lists.LOSS_TERMS)
            _check_type(LAMBDA + name, weight, float)
            _check(0 <= weight < float("inf"), LAMBDA + name, weight, "0 (off) or a positive number")
        # A frozen dataclass allows no plain assignment.
        object.__setattr__(self, "lambdas", default_lambdas() | self.lambdas)
        if self.similarity == "dot" and self.readout == "affine":
            raise GuidinoError(
                'guidino.readout: "affine" needs similarity "cosine": a dot product leaves [-1, 1], so that ½ + ½·s '
                "would leave [0, 1]"
            )

    @classmethod
    def from_plans(cls, plans: Mapping[str, Any]) -> GuideConfig:
        """Read the section "guidino"; settings that are missing there have their defaults.

        Version 0.1.0 wrote complete sections without a format. Such a model keeps the behaviour of that version: gates
        that multiply, no late fusion, no Dice loss of the guide, and inputs of any size.

        Raises:
            GuidinoError: If a newer version wrote the section, a key is unknown (the error names the nearest valid one)
                or a value is invalid.
        """
        written = plans.get(PLANS_KEY, {})
        section = _known_settings(_keys(cls), _readable(written), PLANS_KEY)
        if isinstance(section.get("lora"), Mapping):
            section["lora"] = LoRA.from_plans(section["lora"], _LORA_KEY)
        if "format" not in written and section.keys() >= _SETTINGS_OF_0_1_0:
            then = {"gate": "product", "late_fusion": False, "lambda_guide_dice": 0, "max_input_size": None}
            section = {**then, **section}
        lambdas = {key: section.pop(key) for key in list(section) if key.startswith(LAMBDA)}
        return cls(**section, lambdas={key.removeprefix(LAMBDA): weight for key, weight in lambdas.items()})

    def to_plans(self) -> dict[str, Any]:
        """Return the complete section "guidino". Reading it gives an equal GuideConfig in every environment."""
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
    """Check the format of a section and return the section without it, with the keys of this format.

    The format is checked before the keys, because a newer format may have other keys or other meanings of them.
    """
    if not isinstance(section, Mapping) or "format" not in section:
        return _with_present_keys(section)
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
    without = {key: value for key, value in section.items() if key != "format"}
    return _with_present_keys(without) if written < FORMAT else without


def _with_present_keys(section: Any) -> Any:
    """Return a section of format 1 or of version 0.1.0 with the keys of this format.

    In these, "gate" is the position of the gates, which is "gate_at" now, and "gating" is their form, "gate" now.
    """
    if not isinstance(section, Mapping) or ("gating" not in section and section.get("gate") not in _POSITIONS_OF_0_1_0):
        return section
    renamed = {"gate": "gate_at", "gating": "gate"}
    return {renamed.get(key, key): value for key, value in section.items()}


def _keys(cls: type) -> list[str]:
    """Return the valid keys of a section: the fields, with a key for each loss term in place of `lambdas`."""
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
    if float in allowed:  # JSON writes whole numbers as int
        allowed += (int,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("null" if a is type(None) else a.__name__ for a in allowed)
        raise GuidinoError(f"{PLANS_KEY}.{name} is {value!r}, of type {type(value).__name__}; expected {names}")
