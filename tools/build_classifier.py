"""Class names and a prompt (or templates) to a classifier file.

    python tools/build_classifier.py --vocabulary lvis --prompt runs/mini/prompt.safetensors --output lvis.safetensors
    python tools/build_classifier.py --vocabulary "cat,remote control" --clip mini --template "a {}" --output two.npy
    python tools/build_classifier.py --vocabulary "cat,remote control" --clip mini --template "a {}" \\
        --background imagenet21k --negatives "dog,television" --output two.safetensors

The file holds unit-norm features with names and provenance; with an --output that ends in .npy it is the matrix that
Detic and POMP read, with the names in a file next to it. With --background it also holds the names that a photo may
show instead, so that it can answer "none of these" (TextClassifier.own_share).
"""

from prompt_core.classifier import TextClassifier
from prompt_core.command_line import (
    add_subject_arguments,
    config_parser,
    load_model,
    parse_with_overrides,
    resolve_subject,
)
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable
from prompt_core.metrics import uniformity
from prompt_core.visible import say
from prompt_core.vocabulary import read_vocabulary


def main() -> None:
    """Parse, encode, write."""
    parser = config_parser(__doc__, output="the file to write: .safetensors or .npy")
    add_subject_arguments(parser)
    parser.add_argument(
        "--vocabulary", required=True, metavar="WORDS", help="names joined by commas, a file, or a published vocabulary"
    )
    parser.add_argument("--synonyms", action="store_true", help="average over the synonyms of each class")
    parser.add_argument(
        "--average-raw", action="store_true", help="average synonyms before features are normalised, as Detic does"
    )
    parser.add_argument(
        "--keep-underscores", action="store_true", help="encode names with their underscores, as Detic does"
    )
    parser.add_argument(
        "--background",
        metavar="WORDS",
        help="names that a photo may show instead: a vocabulary (imagenet21k), a file, …",
    )
    parser.add_argument("--negatives", metavar="WORDS", help="further such words, joined by commas, or a file")
    arguments = parse_with_overrides(parser)
    if not str(arguments.output).endswith((".safetensors", ".npy")):
        raise UserError(f"--output is {arguments.output}; a file ending in .safetensors or .npy is expected")
    if arguments.average_raw and not arguments.synonyms:
        raise UserError("--average-raw is about synonyms; give --synonyms, or leave it out")
    if str(arguments.output).endswith(".npy") and (arguments.background or arguments.negatives):
        raise UserError("a .npy has no room for --background and --negatives; write a .safetensors")
    check_writable(arguments.output)
    vocabulary = read_vocabulary(arguments.vocabulary)
    cfg, subject = resolve_subject(arguments)
    classifier = TextClassifier.build(
        load_model(cfg, arguments.random_weights),
        vocabulary,
        subject,
        arguments.synonyms,
        keep_underscores=arguments.keep_underscores or None,
        average_raw=arguments.average_raw,
        background=arguments.background,
        negatives=read_vocabulary(arguments.negatives).names if arguments.negatives else (),
        cache=cfg.DATA.CACHE,
    )
    classifier.metadata["vocabulary"] = vocabulary.source or arguments.vocabulary
    classifier.save(arguments.output)
    size, width = classifier.weight.shape
    spread = f", uniformity {float(uniformity(classifier.weight)):.3f}" if size > 1 else ""
    beside = f", {len(classifier.background)} names in the background" if classifier.background else ""
    say(f"{size} classes of {arguments.vocabulary}, {width} dimensions{spread}{beside}, written to {arguments.output}")


if __name__ == "__main__":
    run_command(main)
