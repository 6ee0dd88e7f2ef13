"""Class names and a prompt (or templates) to a classifier file.

    python tools/build_classifier.py --vocabulary lvis --prompt runs/mini/prompt.safetensors --output lvis.safetensors
    python tools/build_classifier.py --vocabulary "cat,remote control" --clip mini --template "a {}" --output two.npy
    python tools/build_classifier.py --vocabulary "cat,remote control" --clip mini --template "a {}" \\
        --background imagenet21k --negatives "dog,television" --output two.safetensors
    python tools/build_classifier.py --vocabulary "dog,vehicle" --clip mini --template "a {}" --kinds imagenet21k \\
        --output general.safetensors

The file holds unit-norm features with names and provenance; with an --output that ends in .npy it is the matrix that
Detic and POMP read, with the names in a file next to it. With --background it also holds the names that a photo may
show instead, so that it can answer "none of these" (TextClassifier.own_share). With --kinds the row of a general word
is the mean of its kinds, "dog" that of its breeds. ``--format open_clip`` writes what open_clip's zero-shot classifier
is. The command ``pomp export --words`` does the same.
"""

from pomp.exporting.classifier_file import add_classifier_arguments, export_classifier
from prompt_core.command_line import config_parser, parse_with_overrides
from prompt_core.errors import run_command
from prompt_core.visible import say


def main() -> None:
    """Parse, encode, write."""
    parser = config_parser(__doc__, output="the file to write: .safetensors or .npy, or .pt for open_clip")
    add_classifier_arguments(parser, "--vocabulary", "--words")
    say(export_classifier(parse_with_overrides(parser)))


if __name__ == "__main__":
    run_command(main)
