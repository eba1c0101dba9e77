"""What an encoder's configuration may say: sizes and switches, never a file, a network address or code to run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.printable import first_line

MOST_BLOCKS = 512
LARGEST_NUMBER = 2**16  # a width, a side of an image; ViT-7B's largest is 8192
_DEPTHS = ("num_hidden_layers", "depth")
_WORD = re.compile(r"[\w.+-]{0,80}")
# Keys of any configuration of transformers 4 and 5 that say nothing about what is built; they are left out.
WITHOUT_MEANING = frozenset(
    {
        "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "add_cross_attention", "architectures",
        "auto_map", "bad_words_ids", "base_model_pp_plan", "base_model_tp_plan", "begin_suppress_tokens",
        "bos_token_id", "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id",
        "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
        "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
        "gradient_checkpointing", "id2label", "is_decoder", "is_encoder_decoder", "label2id", "label_names",
        "length_penalty", "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups",
        "num_beams", "num_classes", "num_labels", "num_return_sequences", "out_features", "out_indices",
        "output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix", "problem_type",
        "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
        "sep_token_id", "stage_names", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
        "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
        "transformers_version", "typical_p", "use_bfloat16", "use_cache", "use_return_dict",
    }
)  # fmt: skip
# Of families that nobody has looked at: these make transformers build from the hub, from files or from other code.
_NEVER = frozenset(
    {
        "backbone", "backbone_config", "backbone_kwargs", "use_pretrained_backbone", "use_timm_backbone",
        "quantization_config",
    }
)  # fmt: skip


def described_keys(model_type: str) -> frozenset[str]:
    """The keys by which a transformer of this type is built; raises ValueError if transformers does not know it."""
    keys = family_of(model_type).keys
    if keys is not None:
        return keys
    config = AutoConfig.for_model(model_type)
    names = {*config.to_dict(), *getattr(config, "attribute_map", {})}
    return frozenset(name for name in names if not name.startswith("_")) - WITHOUT_MEANING - _NEVER


def checked(architecture: Mapping[str, Any], where: str) -> dict[str, Any]:
    """An architecture without what says nothing about it.

    Args:
        architecture: As in a config.json or in the plans.
        where: That place, for the message.

    Raises:
        GuidinoError: For a key that does not belong to its model_type, or a value that is not a bounded number, a
            switch or a plain word, naming it.
    """
    model_type = architecture.get("model_type")
    if not isinstance(model_type, str):
        raise GuidinoError(f"{where}: model_type is {model_type!r}; expected the name of one of transformers' models")
    try:
        keys = described_keys(model_type)
    except Exception as error:  # each of transformers' configurations fails in its own way
        raise GuidinoError(f"{where}: transformers does not know the model {model_type!r}: {_first(error)}") from error
    family = family_of(model_type)
    kept: dict[str, Any] = {"model_type": model_type}
    for key, value in architecture.items():
        if key in keys:
            kept[key] = _checked_value(value, key, where, family.allowed_inside.get(key))
        elif key not in WITHOUT_MEANING and key not in family.without_meaning:
            raise GuidinoError(f"{where}: {key} is refused, as no {model_type} is built by it; remove that key")
    return kept


def _checked_value(value: Any, key: str, where: str, inside: frozenset[str] | None) -> Any:
    if inside is not None and isinstance(value, Mapping):
        for inner in value:
            if inner not in inside:
                raise GuidinoError(
                    f"{where}: {key}.{inner} is refused; {key} may hold sizes and switches: {', '.join(sorted(inside))}"
                )
        return {inner: _checked_value(item, f"{key}.{inner}", where, None) for inner, item in value.items()}
    for item in value if isinstance(value, (list, tuple)) else [value]:
        expected = _expected(item, key.rpartition(".")[2])
        if expected is not None:
            raise GuidinoError(f"{where}: {key} is {_shortened(item)}; expected {expected}")
    return list(value) if isinstance(value, tuple) else value


def _expected(item: Any, key: str) -> str | None:
    """What one value should be; None if it is that."""
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, (int, float)):
        largest = MOST_BLOCKS if key in _DEPTHS else LARGEST_NUMBER
        return None if math.isfinite(item) and abs(item) <= largest else f"a number of at most {largest}"
    if isinstance(item, str):
        return None if _WORD.fullmatch(item) else "a plain name, no address and no path"
    return "a number, true, false or a name"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _first(error: Exception) -> str:
    return _shortened(first_line(error)) if str(error).strip() else type(error).__name__
