"""Tables of runs next to the published numbers, plots, and one page: report.md and report.html.

    python tools/report.py docs/results/base_novel.json docs/results/scenes.json runs/coco_pomp --output runs/report

Each RUN is a folder with a metrics.json, a file with results, or a folder to search for both; NAME=PATH calls a run
NAME. Numbers of different protocols never share a column.
"""

from argparse import RawDescriptionHelpFormatter

from pomp_lab.report.build import write_report
from prompt_core.command_line import ArgumentParser
from prompt_core.visible import say


def main() -> None:
    """Parse, write, print where."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder or file with results, or NAME=PATH")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for report.md and report.html")
    parser.add_argument(
        "--baseline", metavar="ROW", help="row that single classes are compared with (default: a hand prompt)"
    )
    arguments = parser.parse_intermixed_args()
    report = write_report(arguments.runs, arguments.output, arguments.baseline)
    say(report.summary)
    for note in report.notes:
        say(note)
    say(f"open {arguments.output}/report.html")
