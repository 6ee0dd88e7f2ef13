"""Zero-shot accuracy of a prompt file, or of hand-written templates, on image sets; one table.

    python tools/evaluate_prompt.py --prompt runs/mini/prompt.safetensors \\
        --datasets tiny_imagenet:datasets/tiny-imagenet-200,csv:datasets/imagenet_samples

Each data set is KIND:PATH or a path whose layout is recognised. --vocabulary widens the candidates.
"""

from pathlib import Path

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
from prompt_core.data.layouts import open_images
from prompt_core.encoder import PromptedTextEncoder
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder
from prompt_core.run_files import run_description, write_metrics
from prompt_core.scoring import load_test_set, protocol_of, score


def main() -> None:
    """Parse, score, print the table, write metrics.json."""
    parser = config_parser(__doc__)
    add_subject_arguments(parser)
    parser.add_argument("--datasets", help="image sources, separated by commas")
    parser.add_argument("--split", help="split to score (default: EVAL.SPLIT)")
    parser.add_argument("--vocabulary", help="candidates: a published vocabulary or a file")
    arguments = parse_with_overrides(parser)
    cfg, subject = resolve_subject(arguments)
    split, vocabulary = arguments.split or cfg.EVAL.SPLIT, arguments.vocabulary or cfg.EVAL.VOCABULARY
    sources = arguments.datasets.split(",") if arguments.datasets else list(cfg.EVAL.DATASETS)
    if not sources:
        raise UserError("no data set; give --datasets KIND:PATH,KIND:PATH")
    output = make_output_folder(arguments.output) if arguments.output else None
    merge = one_of(cfg, "EVAL.NAMESAKES", ("merged", "separate")) == "merged"
    image_sets = {source: open_images(source, split) for source in sources}
    clip = load_model(cfg)
    encoder = PromptedTextEncoder(clip)

    title = arguments.prompt or "; ".join(arguments.template)
    rule = "merged" if merge else "separate"
    table = Table(title=f"{title} with {clip.name}: top-1 over all images, namesakes {rule}")
    for column in ("data set", "split", "images", "candidates", "top-1 %", "top-5 %", "per class %"):
        table.add_column(column, justify="left" if column in ("data set", "split") else "right")
    metrics, protocol = {}, {}
    for source, images in image_sets.items():
        with counting(f"encoding {source}") as progress:
            test_set = load_test_set(clip, images, vocabulary, cfg.DATA.CACHE, progress)
        accuracy = score(encoder, test_set, subject, merge)
        name = Path(source.partition(":")[2] or source).name
        name = source if name in protocol else name
        percent = {"top1": accuracy.top1, "top5": accuracy.top5, "per_class": accuracy.per_class}
        metrics |= {f"{name}/{metric}": 100 * value for metric, value in percent.items()}
        protocol[name] = protocol_of(test_set, split, merge)
        shown = [f"{100 * value:.1f}" for value in percent.values()]
        table.add_row(name, split, str(accuracy.images), str(accuracy.candidates), *shown)
        if test_set.unreadable:
            print(f"{name}: {len(test_set.unreadable)} images could not be read and were left out")
    print_table(table)
    if output is not None:
        run = run_description(cfg.dump(), cfg.SEED, str(clip.device), prompt=title)
        write_metrics(output / "metrics.json", metrics, run, protocol)
        print(f"numbers written to {output / 'metrics.json'}")


if __name__ == "__main__":
    run_command(main)
