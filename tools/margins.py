"""Show the margins of the local correction for any number of classes N and of sampled classes K.

    python tools/margins.py --classes 10450 --sampled 100,319,500,1000

The margin is added to the logits of the K - 1 sampled negatives.
"""

import argparse

from rich.table import Table

from pomp_lab.arguments import whole_numbers
from prompt_core.command_line import ArgumentParser, print_table, whole_number
from prompt_core.errors import run_command
from prompt_core.losses import correction_margin
from prompt_core.ranges import COUNT, Range


def main() -> None:
    """Print one row per base of the logarithm, one column per K."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--classes", type=whole_number(COUNT), default=10450, metavar="N", help="training classes (default: 10450)"
    )
    parser.add_argument(
        "--sampled", metavar="K,K,…", default="100,319,500,1000", help="sampled classes (default: 100,319,500,1000)"
    )
    arguments = parser.parse_args()
    sizes = whole_numbers("--sampled", arguments.sampled, Range(2, arguments.classes))
    table = Table(title=f"margin added to the K - 1 sampled logits, N = {arguments.classes}")
    table.add_column("correction")
    for size in sizes:
        table.add_column(f"K = {size}", justify="right")
    labels = {"log10": "log10 (published code)", "ln": "ln (formula; estimates the full softmax)"}
    for base, label in labels.items():
        table.add_row(label, *(f"{correction_margin(arguments.classes, size - 1, base):.4f}" for size in sizes))
    print_table(table)


if __name__ == "__main__":
    run_command(main)
