"""What a photo costs as words grow: text features that are encoded once, against a pipeline that runs once a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from prompt_core.errors import UserError

DETECT, CLASSIFY, PIPELINE = "pomp detect", "pomp classify", "OWL-ViT pipeline"
MANY = 50


def owl_vit_pipeline(**settings: Any) -> tuple[Callable[[np.ndarray, Sequence[str]], Any], dict[str, Any]]:
    """Transformers' zero-shot object detection on a random OWL-ViT (arXiv 2205.06230).

    Nothing is downloaded: weights are random, which costs as much as learned ones, and the tokenizer is CLIP's
    byte-pair encoding as open_clip carries it. Without settings it is ``OwlViTConfig()``, the sizes of
    ``owlvit-base-patch32``, the smallest published.

    Args:
        settings: of ``OwlViTConfig``.

    Returns:
        the pipeline as a function of pixels (H, W, 3) in RGB and words; and its sizes.

    Raises:
        UserError: when transformers is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise UserError("the pipeline to compare with needs transformers; run: pip install transformers") from error
    from open_clip.tokenizer import SimpleTokenizer
    from PIL import Image

    pairs = SimpleTokenizer()
    merges = [tuple(pair) for pair in pairs.bpe_ranks]
    # open_clip names the two special tokens otherwise.
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in pairs.encoder.items()}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)
    config = transformers.OwlViTConfig(**settings)
    model = transformers.OwlViTForObjectDetection(config).eval()
    side = config.vision_config.image_size
    processor = transformers.OwlViTImageProcessor(size={"height": side, "width": side})
    pipe = transformers.pipeline(
        "zero-shot-object-detection", model=model, tokenizer=tokenizer, image_processor=processor, device="cpu"
    )
    sizes = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": side,
        "patch_size": config.vision_config.patch_size,
        "vision": f"{config.vision_config.num_hidden_layers} layers of {config.vision_config.hidden_size}",
        "text": f"{config.text_config.num_hidden_layers} layers of {config.text_config.hidden_size}",
        "transformers": transformers.__version__,
    }

    def run(pixels: np.ndarray, words: Sequence[str]) -> Any:
        return pipe(Image.fromarray(pixels), candidate_labels=list(words))

    return run, sizes


def front_model(task: str) -> tuple[Callable[[Sequence[str]], Any], Callable[[np.ndarray], Any]]:
    """Setting the words of an embedded model, and its answer for a photo."""
    import pomp

    model = pomp.load("mini", task)
    return model.words, model.describe


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def best(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """The fewest seconds of several turns, of the processor and of the clock; others may use the machine."""
    turns = [seconds(call) for _ in range(repeats)]
    return {"cpu_seconds": min(cpu for cpu, _ in turns), "wall_seconds": min(wall for _, wall in turns)}


def words_costs(
    photos: Sequence[np.ndarray],
    vocabulary: Sequence[str],
    counts: Sequence[int],
    pipeline: Callable[[np.ndarray, Sequence[str]], Any],
    pipeline_counts: Sequence[int],
    models: Sequence[tuple[str, Callable[[Sequence[str]], Any], Callable[[np.ndarray], Any]]],
    repeats: int,
) -> list[dict[str, Any]]:
    """One row for each system and number of words, all in this process, one after the other.

    Args:
        photos: (H, W, 3) in RGB; the pipeline sees the first one.
        vocabulary: the words are its first ones.
        counts: numbers of words for ``models``.
        pipeline_counts: the same for ``pipeline``; more than :data:`MANY` words are measured once.
        models: name, setting of words, answer for a photo.

    Returns:
        rows with ``system``, ``words``, ``per_photo`` and, where words are set before, ``setting_words``.
    """
    rows: list[dict[str, Any]] = []
    for name, set_words, answer in models:
        set_words(vocabulary[:3])
        answer(photos[0])  # a warm-up
        for count in counts:
            setting = best(partial(set_words, vocabulary[:count]), 1)
            turns = [best(partial(answer, photo), repeats) for photo in photos]
            per_photo = {key: float(np.mean([turn[key] for turn in turns])) for key in turns[0]}
            rows.append({"system": name, "words": count, "per_photo": per_photo, "setting_words": setting})
    pipeline(photos[0], vocabulary[:1])
    for count in pipeline_counts:
        per_photo = best(partial(pipeline, photos[0], vocabulary[:count]), 1 if count > MANY else repeats)
        rows.append({"system": PIPELINE, "words": count, "per_photo": per_photo})
    return rows


def ratios(rows: Sequence[dict[str, Any]], key: str = "cpu_seconds") -> list[dict[str, Any]]:
    """How many times as long as each of our systems the pipeline takes for as many words, and what more words cost."""
    at = {(row["system"], row["words"]): row["per_photo"][key] for row in rows}
    found: list[dict[str, Any]] = []
    for (system, count), value in at.items():
        if system == PIPELINE:
            continue
        fewest = min(words for other, words in at if other == system)
        entry = {"system": system, "words": count, "times_of_fewest_words": value / at[system, fewest]}
        if (PIPELINE, count) in at:
            entry["pipeline_takes_times"] = at[PIPELINE, count] / value
        found.append(entry)
    counts = sorted(count for system, count in at if system == PIPELINE)
    found += [
        {
            "system": PIPELINE,
            "words": count,
            "times_of_fewest_words": at[PIPELINE, count] / at[PIPELINE, counts[0]],
        }
        for count in counts
    ]
    return found
