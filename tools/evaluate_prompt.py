"""Accuracy of a learned prompt or method, or of hand-written templates, on image sets; one table.

    python tools/evaluate_prompt.py --prompt runs/mini/prompt.safetensors \\
        --datasets tiny_imagenet:datasets/tiny-imagenet-200,csv:datasets/imagenet_samples

    python tools/evaluate_prompt.py --prompt runs/maple/method.safetensors --datasets oxford_pets,eurosat --split test
    python tools/evaluate_prompt.py --ensemble selected_own --datasets oxford_pets,eurosat --split test
    python tools/evaluate_prompt.py --template data_set --datasets oxford_pets --split test --classes base,new

Each data set is a name, KIND:PATH or a path whose layout is recognised. --vocabulary widens the candidates; --classes
scores the first or the second half of the classes, each among its own, and of both the harmonic mean. Templates:
data_set stands for each data set's own one; ensembles are selected (7), selected_own (7, and the data set's own
outside the ImageNet family) and imagenet (80).
"""

import itertools
import re

from rich.table import Table

from prompt_core.command_line import (
    add_subject_arguments,
    config_parser,
    counting,
    load_model,
    parse_with_overrides,
    print_table,
    resolve_subject,
)
from prompt_core.config import one_of
from prompt_core.data.sources import data_set_name, open_images
from prompt_core.data.splits import half_of
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.evaluate import (
    BOTH,
    base_novel_mean,
    class_parts,
    class_rows,
    load_test_set,
    part_name,
    protocol_of,
    score,
)
from prompt_core.evaluation.method_scoring import merges_namesakes, resolve_method, score_method
from prompt_core.evaluation.protocol import run_description, write_metrics
from prompt_core.files import make_output_folder, write_json
from prompt_core.methods.image_towers import image_tower
from prompt_core.methods.templates import ENSEMBLES, TemplateMethod
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.training.selection import selection_words


def main() -> None:
    """Parse, score, print the table, write metrics.json."""
    parser = config_parser(__doc__)
    add_subject_arguments(parser)
    parser.add_argument("--ensemble", choices=ENSEMBLES, help="a published ensemble of templates")
    parser.add_argument("--datasets", help="image sources, separated by commas")
    parser.add_argument("--split", help="split to score (default: EVAL.SPLIT)")
    parser.add_argument("--classes", help="all, base, new or base,new (default: EVAL.CLASSES)")
    parser.add_argument("--vocabulary", help="candidates: a published vocabulary or a file")
    arguments = parse_with_overrides(parser)
    if bool(arguments.prompt) + bool(arguments.template) + bool(arguments.ensemble) != 1:
        raise UserError("give one of --prompt FILE, --ensemble NAME, or one or more --template TEXT")
    named = resolve_method(arguments)
    cfg, subject = resolve_subject(arguments) if named is None else (named[0], None)
    split, vocabulary = arguments.split or cfg.EVAL.SPLIT, arguments.vocabulary or cfg.EVAL.VOCABULARY
    sources = arguments.datasets.split(",") if arguments.datasets else list(cfg.EVAL.DATASETS)
    if not sources:
        raise UserError("no data set; give --datasets KIND:PATH,KIND:PATH")
    output = make_output_folder(arguments.output) if arguments.output else None
    merge = one_of(cfg, "EVAL.NAMESAKES", ("merged", "separate")) == "merged"
    parts = class_parts(arguments.classes or cfg.EVAL.CLASSES)
    image_sets = {source: open_images(source, split) for source in sources}
    clip = load_model(cfg)
    method = named[1](clip) if named is not None else None
    encoder = PromptedTextEncoder(clip) if method is None else None
    merge = merge if method is None else merges_namesakes(method, merge)

    title = arguments.prompt or arguments.ensemble or "; ".join(arguments.template)
    rule = "merged" if merge else "separate"
    table = Table(title=f"{title} with {clip.name}: top-1 over all images, namesakes {rule}")
    for column in ("data set", "split", "images", "candidates", "top-1 %", "top-5 %", "per class %"):
        table.add_column(column, justify="left" if column in ("data set", "split") else "right")
    metrics: dict[str, float] = {}
    protocol, by_class, templates = {}, {}, {}
    for source, part in itertools.product(image_sets, parts):
        images = half_of(image_sets[source], part)
        with counting(f"encoding {source}") as progress:
            tower = clip if method is None else image_tower(method)
            test_set = load_test_set(tower, images, vocabulary, cfg.DATA.CACHE, progress)
        whole = data_set_name(source)
        whole = source if part_name(whole, part) in protocol else whole
        name = part_name(whole, part)
        if method is None:
            assert encoder is not None
            assert subject is not None
            accuracy = score(encoder, test_set, subject, merge)
        else:
            own = method.for_data_set(source)
            accuracy = score_method(own, test_set, merge)
            if isinstance(own, TemplateMethod):
                templates[name] = own.templates
        percent = {"top1": accuracy.top1, "top5": accuracy.top5, "per_class": accuracy.per_class}
        metrics |= {f"{name}/{metric}": 100 * value for metric, value in percent.items()}
        protocol[name] = protocol_of(test_set, split, merge, part)
        if words := selection_words(arguments.prompt, images):
            protocol[name]["selection"] = words
            print(f"{name}: {words}")
        by_class[name] = class_rows(accuracy, test_set)
        shown = [f"{100 * value:.1f}" for value in percent.values()]
        table.add_row(name, split, str(accuracy.images), str(accuracy.candidates), *shown)
        if test_set.unreadable:
            print(f"{name}: {len(test_set.unreadable)} images could not be read and were left out")
        if parts == BOTH and part == BOTH[-1]:
            mean, followed = base_novel_mean(metrics, protocol, whole)
            metrics[f"{whole}_base_and_novel/harmonic_mean"], protocol[f"{whole}_base_and_novel"] = mean, followed
            table.add_row(f"{whole}, harmonic mean", split, "", "", f"{mean:.1f}", "", "")
    print_table(table)
    if output is not None:
        more = {"templates": templates} if templates else {}
        run = run_description(cfg.dump(), cfg.SEED, str(clip.device), prompt=title, **more)
        for name, rows in by_class.items():
            folder = make_output_folder(output / f"inference_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}")
            write_json(folder / "per_class.json", {"dataset": name, "metric": "top1", "classes": rows})
        write_metrics(output / "metrics.json", metrics, run, protocol)
        print(f"numbers written to {output / 'metrics.json'}")


if __name__ == "__main__":
    run_command(main)
