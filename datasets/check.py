"""Say what is there of the detection data, what is missing or wrong, where it has to be and how to get it.

    python datasets/check.py lvis
    python datasets/check.py all --root /data

Groups: lvis, coco, objects365, imagenet_lvis, shapes, all. The root is --root, else POMP_DATA, else datasets.
The exit code is 0 when everything is there, else 1.
"""

from __future__ import annotations

from pomp_det.data.catalog import data_root
from pomp_det.data.check_files import PRESENT, Finding, check_group
from pomp_det.data.prepare import add_root
from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.errors import run_command


def show(findings: list[Finding]) -> None:
    """One row for each file or folder; then how to get what is not there, each way once."""
    from rich.table import Table

    table = Table("data set", "state", "path", "what", box=None)
    for finding in findings:
        table.add_row(finding.dataset, finding.state, str(finding.path), finding.detail)
    print_table(table)
    for advice in dict.fromkeys(finding.advice for finding in findings if finding.advice):
        print(f"to do: {advice}")


def main(arguments: list[str] | None = None) -> int:
    """Check one group."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", help="lvis, coco, objects365, imagenet_lvis, shapes or all")
    add_root(parser)
    values = parser.parse_args(arguments)
    findings = check_group(values.group, data_root(values.root))
    show(findings)
    return 0 if all(finding.state == PRESENT for finding in findings) else 1


if __name__ == "__main__":
    run_command(main)
