"""What each of open_clip's architectures can do, read from its configuration: nothing is built or fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json
from prompt_core.towers.tokenizers import is_byte_pair

_END_OF_TEXT = 49407  # of CLIP's byte-pair tokenizer


@dataclass(frozen=True)
class TowerSummary:
    """An architecture and its text tower.

    Attributes:
        name: as :func:`prompt_core.load_clip` takes it.
        text_tower: ``open_clip``, or the Hugging Face model.
        tokenizer: ``byte pairs`` (CLIP's own), or a Hugging Face tokenizer.
        causal: whether a token sees only those before it.
        learned_prompt: ``yes``; ``slow`` where each class is encoded at the full context length; ``no`` where only
            hand-written templates work.
        width: E of the joint embedding space.
        context_length: tokens of a text.
        pretrained: tags of published weights.
    """

    name: str
    text_tower: str
    tokenizer: str
    causal: bool
    learned_prompt: str
    width: int
    context_length: int
    pretrained: tuple[str, ...]


def summarise(name: str, settings: dict[str, Any], tags: Sequence[str] = ()) -> TowerSummary:
    """The summary of an open_clip configuration."""
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH

    text = settings["text_cfg"]
    hugging_face = text.get("hf_model_name")
    byte_pairs = is_byte_pair(name, text)
    causal = not hugging_face and not text.get("no_causal_mask", False)
    pools_at_end = text.get("pool_type", "argmax") == "argmax" or text.get("eos_id") == _END_OF_TEXT
    shares = causal and pools_at_end and not text.get("embed_cls", False)
    return TowerSummary(
        name,
        hugging_face or "open_clip",
        "byte pairs" if byte_pairs else text.get("hf_tokenizer_name") or "sentence pieces",
        causal,
        "no" if not byte_pairs else "yes" if shares else "slow",
        settings["embed_dim"],
        text.get("context_length", DEFAULT_CONTEXT_LENGTH),
        tuple(tags),
    )


def list_towers(words: str = "") -> list[TowerSummary]:
    """All architectures of open_clip, and ``mini``, whose names hold ``words`` in any case.

    Raises:
        UserError: when none does.
    """
    import open_clip

    known = open_clip.list_models()
    towers = [summarise("mini", read_json(str(resources.files("prompt_core") / "assets" / "mini.json")), ("embedded",))]
    towers += [
        summarise(name, open_clip.get_model_config(name), open_clip.list_pretrained_tags_by_model(name))
        for name in known
    ]
    chosen = [tower for tower in towers if words.lower() in tower.name.lower()]
    if not chosen:
        raise UserError(f"no architecture has {words!r} in its name{nearest(words, known)}")
    return chosen


def render(towers: Sequence[TowerSummary]) -> str:
    """A table in plain text, one line for each tower."""
    headings = ("architecture", "learned prompt", "causal", "width", "tokens", "text tower", "tokenizer", "pretrained")
    rows = [
        (
            tower.name,
            tower.learned_prompt,
            "yes" if tower.causal else "no",
            str(tower.width),
            str(tower.context_length),
            tower.text_tower,
            tower.tokenizer,
            ", ".join(tower.pretrained) or "-",
        )
        for tower in towers
    ]
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings) - 1)]
    lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in (headings, *rows)]
    return "\n".join(
        [*lines, "", "hand-written templates work with all; a learned prompt: yes, slow (at full length) or no"]
    )


def as_json(towers: Sequence[TowerSummary]) -> list[dict[str, Any]]:
    """The towers as plain values."""
    return [asdict(tower) for tower in towers]
