"""Accuracy of a learned prompt or method, or of hand-written templates, on image sets; one table.

    python tools/evaluate_prompt.py --prompt runs/mini/prompt.safetensors \\
        --datasets tiny_imagenet:datasets/tiny-imagenet-200,csv:datasets/imagenet_samples

    python tools/evaluate_prompt.py --prompt runs/maple/method.safetensors --datasets oxford_pets,eurosat --split test
    python tools/evaluate_prompt.py --ensemble selected_own --datasets oxford_pets,eurosat --split test
    python tools/evaluate_prompt.py --classifier pooled.safetensors --datasets csv:photos
    python tools/evaluate_prompt.py --template data_set --datasets oxford_pets --split test --classes base,novel

Each data set is a name, KIND:PATH or a path whose layout is recognised. --vocabulary extends the candidates; --classes
scores the first or the second half of the classes, each among its own, and for both also the harmonic mean. Templates:
data_set stands for each data set's own template; ensembles are selected (7), selected_own (7, and the data set's own
outside the ImageNet family) and imagenet (80).
"""

import argparse
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from rich.table import Table

from prompt_core.clip import Clip
from prompt_core.command_line import (
    add_subject_arguments,
    config_parser,
    counting,
    load_model,
    parse_with_overrides,
    print_table,
    resolve_method,
)
from prompt_core.config import one_of
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError
from prompt_core.evaluation.evaluate import evaluate, merges_namesakes, metrics_of
from prompt_core.evaluation.protocol import class_parts, run_description, write_metrics
from prompt_core.files import make_output_folder, write_sealed_json
from prompt_core.methods.base import Method
from prompt_core.methods.templates import ENSEMBLES
from prompt_core.ranks.ranks import Ranks, check_same
from prompt_core.ranks.torchrun import one_voice, run_in_ranks
from prompt_core.runs.lock import alone_in
from prompt_core.visible import say

COLUMNS = ("data set", "split", "images", "candidates", "top-1 %", "top-5 %", "per class %")


def main() -> int:
    """Parse, score, print the table, write metrics.json."""
    with one_voice():
        arguments, cfg, make_method = parse()
    split, vocabulary = arguments.split or cfg.EVAL.SPLIT, arguments.vocabulary or cfg.EVAL.VOCABULARY
    sources = arguments.datasets.split(",") if arguments.datasets else list(cfg.EVAL.DATASETS)

    def work(ranks: Ranks) -> int:
        if not sources:
            raise UserError("no data set; give --datasets KIND:PATH,KIND:PATH")
        # numbers beside a prompt that is still learning would be those of another
        with alone_in(arguments.output) if arguments.output and ranks.leads else nullcontext():
            score_all(arguments, cfg, make_method, sources, split, vocabulary, ranks)
        return 0

    return run_in_ranks(work, cfg.DEVICE, cfg.RANKS.TIMEOUT_MINUTES)


def parse() -> tuple[argparse.Namespace, Any, Callable[[Clip], Method]]:
    """The command line, the configuration, and what makes the method."""
    parser = config_parser(__doc__)
    add_subject_arguments(parser)
    parser.add_argument("--ensemble", choices=ENSEMBLES, help="a published ensemble of templates")
    parser.add_argument(
        "--classifier", metavar="FILE", help="a class matrix: .safetensors, or .npy with names beside it"
    )
    parser.add_argument("--datasets", help="image sources, separated by commas")
    parser.add_argument("--split", help="split to score (default: EVAL.SPLIT)")
    parser.add_argument("--classes", help="all, base, novel or base,novel (default: EVAL.CLASSES)")
    parser.add_argument("--vocabulary", help="candidates: a published vocabulary or a file")
    arguments = parse_with_overrides(parser)
    return arguments, *resolve_method(arguments)


def score_all(
    arguments: argparse.Namespace,
    cfg: Any,
    make_method: Callable[[Clip], Method],
    sources: list[str],
    split: str,
    vocabulary: str,
    ranks: Ranks,
) -> None:
    """Score on each image source, by all processes of a job; one prints, and writes into the folder of ``--output``."""
    output = make_output_folder(arguments.output) if arguments.output and ranks.leads else None
    merge = one_of(cfg, "EVAL.NAMESAKES", ("merged", "separate")) == "merged"
    parts = class_parts(arguments.classes or cfg.EVAL.CLASSES)
    image_sets = {source: open_images(source, split) for source in sources}
    clip = load_model(cfg, arguments.random_weights)
    if ranks.size > 1:
        check_same(ranks, weights=clip.fingerprint, photos=[images.fingerprint() for images in image_sets.values()])
    method = make_method(clip)

    title = arguments.prompt or arguments.ensemble or arguments.classifier or "; ".join(arguments.template)
    rule = "merged" if merges_namesakes(method, merge) else "separate"
    table = Table(title=f"{title} with {clip.name}: top-1 over all images, namesakes {rule}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("data set", "split") else "right")
    scores = []
    for score in evaluate(
        method, image_sets, split, parts, vocabulary, cfg.DATA.CACHE, merge, arguments.prompt, counting, ranks
    ):
        scores.append(score)
        shown = [f"{value:.1f}" for value in score.percent.values()]
        table.add_row(score.name, split, str(score.accuracy.images), str(score.accuracy.candidates), *shown)
        if words := score.protocol.get("selection"):
            say(f"{score.name}: {words}")
        if unreadable := score.protocol["unreadable"]:
            say(f"{score.name}: {len(unreadable)} images could not be read and were left out")
        if wrong := score.hierarchical:
            say(
                f"{score.name}: {wrong['right_or_above']:.1f} % right or a class above it, hierarchical F-measure "
                f"{wrong['hierarchical_f1']:.1f} %, answers and classes meet {wrong['lca_height']:.2f} levels up"
            )
        metrics, protocol = metrics_of(scores)
        if (mean := metrics.get(f"{score.data_set}_base_and_novel/harmonic_mean")) is not None:
            table.add_row(f"{score.data_set}, harmonic mean", split, "", "", f"{mean:.1f}", "", "")
    print_table(table)
    if output is not None:
        templates = {score.name: score.templates for score in scores if score.templates}
        more = {"templates": templates} if templates else {}
        run = run_description(cfg.dump(), cfg.SEED, str(clip.device), prompt=title, **more)
        for score in scores:
            folder = make_output_folder(output / f"inference_{re.sub(r'[^A-Za-z0-9_.-]', '_', score.name)}")
            write_sealed_json(
                folder / "per_class.json", {"dataset": score.name, "metric": "top1", "classes": score.classes}
            )
        write_metrics(output / "metrics.json", metrics, run, protocol)
        say(f"numbers written to {output / 'metrics.json'}")
