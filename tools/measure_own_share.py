"""How often "none of these" is right: own shares against a softmax over the words and a cosine threshold.

    python tools/measure_own_share.py --template "a photo of a {}." --clip mini --output docs/results/own_share.json \\
        --photos datasets/imagenet_samples --tiny-imagenet datasets/tiny-imagenet-200

Words are drawn from the classes of the photos; photos of the other classes should get no answer. The logit scale of own
shares and the threshold of cosines are chosen on one half of the photos, all numbers are of the other half. NAME.md
next to the JSON is the table.
"""

from pathlib import Path

from pomp_lab.arguments import whole_numbers
from pomp_lab.benchmarks.harness import add_option
from prompt_core.command_line import (
    add_subject_arguments,
    config_parser,
    load_model,
    parse_with_overrides,
    resolve_subject,
    show_results,
)
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable, write_sealed_json
from prompt_core.ranges import COUNT
from prompt_core.visible import say


def main() -> None:
    """Parse, measure, write and print."""
    parser = config_parser(__doc__, output="JSON for the results (default: runs/own_share.json)")
    add_subject_arguments(parser)
    parser.add_argument(
        "--photos", required=True, metavar="DIR", help="folder with labels.csv and photos of the 1,000 ImageNet classes"
    )
    parser.add_argument("--tiny-imagenet", metavar="DIR", help="Tiny-ImageNet in its standard layout")
    parser.add_argument(
        "--words", default="5,20,50,100,300", metavar="N,N,…", help="numbers of words (default: 5,20,50,100,300)"
    )
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,…", help="seeds of the words (default: 0,1,2)")
    add_option(parser, "--draws", 20, "draws of words for each seed")
    add_option(parser, "--threads", 1, "torch threads")
    arguments = parse_with_overrides(parser)
    sizes = whole_numbers("--words", arguments.words, COUNT)
    seeds = whole_numbers("--seeds", arguments.seeds)
    output = Path(arguments.output or "runs/own_share.json")
    if output.suffix != ".json":
        raise UserError(f"--output is {output}; a file ending in .json is expected")
    check_writable(output)
    cfg, subject = resolve_subject(arguments)
    import torch

    from pomp_lab.comparisons.own_share_table import Plan, own_share_table, table_rows
    from pomp_lab.tables.data_folders import PHOTOS, TINY, DataFolders
    from prompt_core.evaluation.protocol import run_description

    torch.set_num_threads(arguments.threads)
    places = {PHOTOS: Path(arguments.photos)}
    if arguments.tiny_imagenet:
        places[TINY] = Path(arguments.tiny_imagenet)
    plan = Plan(DataFolders(Path(arguments.photos).parent, places), sizes, seeds, arguments.draws, Path(cfg.DATA.CACHE))
    clip = load_model(cfg, arguments.random_weights)
    document = own_share_table(clip, subject, plan)
    described = arguments.prompt or list(subject)
    run = run_description(device=str(clip.device), clip=clip.name, clip_sha256=clip.fingerprint, prompt=described)
    write_sealed_json(output, {**document, "draws": plan.draws, "seeds": seeds, "_run": run}, durable=True)
    headings, rows = table_rows(document)
    title = f"% at own share > 0.5, logit scale {document['scale']['chosen']}; mean ± half the range over seeds"
    show_results(title, headings, rows, output.with_suffix(".md"))
    say(f"own shares take {document['cost']['percent']:.1f} % of a photo's time")


if __name__ == "__main__":
    run_command(main)
