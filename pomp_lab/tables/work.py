"""Work in units that need no measurement: passes of the image tower, texts and tokens.

A text is a class name behind a prompt; what all texts of a pass share is encoded once, so that a text's tokens are
those behind the shared beginning. Steps with sampled classes take ``K - 1`` draws and the classes of their images, at
most; those that coincide are encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from prompt_core.data.catalog.hand_written import imagenet_templates, selected_templates
from prompt_core.methods.registry import method_class
from prompt_core.text.tokens import PromptTokenizer

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

# When class names are encoded: in each step, for each image of it, or once and for all.
TEXTS = {
    "zero_shot": "once",
    "ensemble": "once",
    "vpt": "once",
    "linear_probe": "never",
    "logistic_regression": "never",
    "cocoop": "image",
}


@dataclass(frozen=True)
class Work:
    """What is left of a row, or of several.

    Attributes:
        images: passes of the image tower that fill the cache, hash of what they are of → how many.
        step_images: passes of the image tower in learning steps, with a gradient.
        steps: of learning.
        texts, tokens: of learning; at most.
        scored_texts, scored_tokens: of scoring.
        rough: whether counts of the catalogue or of another list of names stand in for data that is not there.
    """

    images: dict[str, int] = field(default_factory=dict)
    step_images: int = 0
    steps: int = 0
    texts: int = 0
    tokens: int = 0
    scored_texts: int = 0
    scored_tokens: int = 0
    rough: bool = False

    def __add__(self, other: Work) -> Work:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMS}
        return Work({**self.images, **other.images}, rough=self.rough or other.rough, **sums)

    @property
    def image_passes(self) -> int:
        """Images to encode; what several rows read is counted once."""
        return sum(self.images.values())


_SUMS = ("step_images", "steps", "texts", "tokens", "scored_texts", "scored_tokens")


@cache
def _tokenizer() -> PromptTokenizer:
    import open_clip

    return PromptTokenizer(open_clip.SimpleTokenizer())


def count_tokens(names: Sequence[str], n_ctx: int) -> tuple[int, int]:
    """Tokens of the shared beginning, and of all the names behind it, with full stop and end of text."""
    return _count_tokens(tuple(names), n_ctx)


@cache
def _count_tokens(names: tuple[str, ...], n_ctx: int) -> tuple[int, int]:
    sequences = _tokenizer().prompts(names, n_ctx)
    return sequences.prefix_length, int((sequences.lengths - sequences.prefix_length).sum())


def context_length(cfg: CfgNode) -> int:
    """Learned or fixed word vectors before a name."""
    if cfg.METHOD.NAME == "maple":
        return len(cfg.METHOD.MAPLE.WORDS.split())
    return len(cfg.PROMPT.INIT.replace("_", " ").split()) or int(cfg.PROMPT.N_CTX)


def templates_of(cfg: CfgNode) -> int:
    """Hand-written templates of a method whose texts are encoded once."""
    if cfg.METHOD.NAME != "ensemble":
        return 1
    which = cfg.METHOD.ENSEMBLE.TEMPLATES
    return len(imagenet_templates()) if which == "imagenet" else len(selected_templates()) + (which == "selected_own")


def learning_work(cfg: CfgNode, names: Sequence[str], images: int) -> Work:
    """Steps, texts and tokens of learning on ``images`` images over ``names``."""
    kind = method_class(cfg.METHOD.NAME)
    if kind.learned_by != "steps":
        return Work()
    batch = min(cfg.OPTIM.BATCH, images)
    steps = images // batch * cfg.OPTIM.EPOCHS if batch else 0
    views = 1 if cfg.AUGMENT.STORED_VIEWS == 0 else cfg.AUGMENT.VIEWS
    if kind.reads != "images":
        views = min(views, max(1, cfg.AUGMENT.STORED_VIEWS)) if views > 0 else max(1, cfg.AUGMENT.STORED_VIEWS)
    step_images = steps * batch * views if kind.reads == "images" else 0
    when = TEXTS.get(cfg.METHOD.NAME, "step")
    if when == "never":
        return Work(step_images=step_images, steps=steps)
    prefix, behind = count_tokens(names, 4 if when == "once" else context_length(cfg))
    if when == "once":
        return Work(step_images=step_images, steps=steps, texts=len(names), tokens=prefix + behind)
    number = len(names)
    if 0 < cfg.LOSS.NUM_CLASSES < len(names):
        number = min(len(names), cfg.LOSS.NUM_CLASSES - 1 + batch)
    times = steps * (batch * views if when == "image" else 1)
    # The shared beginning is encoded once in each pass.
    each = round(behind * number / len(names)) + prefix * (-(-number // cfg.LOSS.CHUNK) if cfg.LOSS.CHUNK else 1)
    return Work(step_images=step_images, steps=steps, texts=times * number, tokens=times * each)


def scoring_work(cfg: CfgNode, names: Sequence[str], columns: Sequence[tuple[int, int]]) -> Work:
    """Texts and tokens of scoring.

    Args:
        names: all that some column asks for.
        columns: numbers of images and candidates, which count where class features differ from image to image.
    """
    when = TEXTS.get(cfg.METHOD.NAME, "step")
    if when == "never" or not names:
        return Work()
    prefix, behind = count_tokens(names, 4 if when == "once" else context_length(cfg))
    if when == "image":
        texts = sum(images * count for images, count in columns)
        passes = sum(images for images, _ in columns)
        return Work(scored_texts=texts, scored_tokens=passes * prefix + round(texts * behind / len(names)))
    times = templates_of(cfg) if when == "once" else 1
    return Work(scored_texts=times * len(names), scored_tokens=times * (prefix + behind))
