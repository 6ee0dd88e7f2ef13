"""The demonstration, top to bottom: images, a learned prompt, a classifier, scores, pictures and one page.

It needs no download, no photo and no GPU: the images are drawn, the model is the embedded one. Matching results in the
output folder are reused; an interrupted run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp.demo.demo_folder import claim_folder
from pomp_lab import runs
from pomp_lab.demo.drawings import draw_accuracy, draw_examples, draw_learning
from pomp_lab.demo.scores import (
    PromptRow,
    attribute_shares,
    chosen_examples,
    hand_prompts,
    load_columns,
    protocols,
    score_columns,
)
from pomp_lab.demo.summary import DemoResult, demo_page
from pomp_lab.report.page import render_html
from pomp_lab.report.plots import require_matplotlib
from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.classifier import TextClassifier
from prompt_core.command_line import counting, load_model
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import read_sealed_json, write_text
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

SHAPES = ShapesOptions(parts=("classification",), val_images_per_class=10)
# Everything that a demo writes next to the shapes, which have a manifest of their own: --fresh deletes nothing else.
WRITTEN = (
    "index.html",
    "metrics.json",
    "classifier.safetensors",
    "examples.png",
    "learning.png",
    "accuracy.png",
    "prompt/state.pt",
    "prompt/log.jsonl",
    "prompt/metrics.json",
    "prompt/method.safetensors",
    "prompt/prompt.safetensors",
    "prompt/tensorboard/events.out.tfevents.*",
    "cache/[0-9a-f]*/index.json",
    "cache/[0-9a-f]*/features.npy",
)


def run_demo(
    output: str | os.PathLike[str],
    cfg: CfgNode,
    shapes: ShapesOptions = SHAPES,
    fresh: bool = False,
    workers: int = 2,
) -> DemoResult:
    """Make, learn, score, draw; everything in the folder ``output``.

    Args:
        cfg: a prompt learning configuration; its ``DATA`` paths are replaced by those of the demo's own shapes.
        fresh: delete what an earlier demo wrote there and start over.
        workers: processes that draw the images.

    Raises:
        UserError: for a folder that holds something else, or an earlier demo with other settings.
        KeyboardInterrupt: when learning is interrupted; the next call continues.
    """
    require_matplotlib()
    folder = claim_folder(output, WRITTEN if fresh else ())
    seconds: dict[str, float] = {}

    with _phase("make the images", seconds):
        build_shapes(folder / "shapes", shapes, overwrite=fresh, workers=workers)
    cfg = with_shapes(cfg, folder)

    with _phase("encode the training images, learn the prompt", seconds):
        learn(cfg, folder / "prompt")
    prompt = SoftPrompt.load(folder / "prompt" / "prompt.safetensors")
    learning = read_sealed_json(folder / "prompt" / "metrics.json")

    with _phase("encode the validation images", seconds):
        clip = load_model(cfg)
        with counting("encoding validation images") as progress:
            columns = load_columns(clip, folder / "shapes", cfg.DATA.CACHE, progress)

    with _phase("encode the names", seconds):
        encoder = PromptedTextEncoder(clip)
        names = columns[-1].test_set.candidates
        rows = [*hand_prompts(), PromptRow("learned", f"learned prompt ({prompt.n_ctx} vectors)", prompt)]
        classifiers = {row.key: TextClassifier.build(clip, names, row.subject, encoder=encoder) for row in rows}
        classifiers["learned"].metadata["vocabulary"] = names.source
        classifiers["learned"].save(folder / "classifier.safetensors")

    with _phase("score and draw", seconds):
        weights = {key: classifier.weight for key, classifier in classifiers.items()}
        metrics = score_columns(columns, weights)
        metrics |= attribute_shares(columns, weights, folder / "shapes")
        examples = chosen_examples(columns, weights, before="photo", after="learned")
        history = learning["_run"]["history"]
        draw_examples(folder / "examples.png", examples, f"{len(names):,} names to choose from")
        draw_learning(folder / "learning.png", history)
        draw_accuracy(folder / "accuracy.png", columns, rows, metrics)

    result = DemoResult(folder, columns, rows, metrics, examples, history, seconds)
    run = run_description(
        cfg.dump(),
        cfg.SEED,
        str(clip.device),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        clip={"name": clip.name, "sha256": clip.fingerprint},
        shapes=shapes.manifest(),
        history=history,
        training_images=learning["_run"]["images"],
    )
    protocol = protocols(columns, shapes)
    write_text(folder / "index.html", render_html(demo_page(result, run, protocol)))
    write_metrics(folder / "metrics.json", metrics, run, protocol)
    return result


def with_shapes(cfg: CfgNode, folder: Path) -> CfgNode:
    """``cfg`` with the demo's own images, names and cache."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.TRAIN = f"folder:{folder / 'shapes' / 'classification'}"
    cfg.DATA.VOCABULARY = str(folder / "shapes" / "class_names.txt")
    cfg.DATA.CACHE = str(folder / "cache")
    cfg.freeze()
    return cfg


def learn(cfg: CfgNode, folder: Path) -> None:
    """Learn the prompt, or resume learning it, or find that it is done.

    Raises:
        UserError: when the folder holds a run with other settings.
        KeyboardInterrupt: when it is interrupted.
    """
    going_on = (folder / "state.pt").exists()
    try:
        runs.learn(cfg, folder)
    except UserError as error:
        raise UserError(f"{error}; --fresh starts the demo over") if going_on else error from error
    except KeyboardInterrupt:
        print("run the demo again to go on")
        raise


@contextlib.contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[Any]:
    """Print what happens, and record how long it took."""
    print(f"{name} ...", flush=True)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
