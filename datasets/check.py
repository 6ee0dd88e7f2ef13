"""Say what is there of the data sets, what is missing or wrong, where it has to be and how to get it.

    python datasets/check.py lvis
    python datasets/check.py all --root /data

Groups of detection: lvis, coco, coco_small, objects365, imagenet_lvis, shapes. Of segmentation: coco_stuff, voc_seg,
pcontext, ade20k, ade20k_full, cityscapes, coco_small_seg, semseg_samples, shapes_seg. all looks at both, without the
small sets. The root is --root, else POMP_DATA, else datasets.
The exit code is 0 when everything is there, else 1.
"""

from __future__ import annotations

from pathlib import Path

from pomp_det.data import catalog as detection
from pomp_det.data.catalog import data_root
from pomp_det.data.check_files import PRESENT, Finding
from pomp_det.data.check_files import check_group as check_detection
from pomp_det.data.prepare import add_root
from pomp_seg.data import catalog as segmentation
from pomp_seg.data.check_files import check_group as check_segmentation
from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.errors import UserError, nearest, run_command


def check_group(group: str, root: Path) -> list[Finding]:
    """Look at the data sets of a group, of either task.

    Raises:
        UserError: for an unknown group.
    """
    known = (*detection.GROUPS, *segmentation.GROUPS, "all")
    if group not in known:
        raise UserError(f"{group!r} is no group of data sets{nearest(group, known)}; expected {', '.join(known)}")
    findings = check_detection(group, root) if group in (*detection.GROUPS, "all") else []
    return findings + (check_segmentation(group, root) if group in (*segmentation.GROUPS, "all") else [])


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
    parser.add_argument("group", help="lvis, coco, coco_stuff, voc_seg, … or all")
    add_root(parser)
    values = parser.parse_args(arguments)
    findings = check_group(values.group, data_root(values.root))
    show(findings)
    return 0 if all(finding.state == PRESENT for finding in findings) else 1


if __name__ == "__main__":
    run_command(main)
