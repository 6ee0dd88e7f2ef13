"""Check data sets: what is present, missing or wrong, where it belongs and how to get it.

    python datasets/check.py lvis
    python datasets/check.py caltech101
    python datasets/check.py folder:/data/my_photos
    python datasets/check.py all --root /data

--help lists the groups of each task; "classification" checks all sets of that task, "all" those of all tasks, both
without the small ones. The root is --root, else POMP_DATA, else datasets. Any other source of labelled photos (a path,
KIND:PATH, NAME:PATH or package.module:function, see datasets/README.md) is counted too.
With the data of a group go the published files that its configurations ask for (docs/published_files.md): class
matrices, class counts, backbones; checkpoints are optional.
The exit code is 0 when everything is present and correct, 1 when something is missing or differs, and 2 when a data set
is broken and cannot be opened.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import fill

from pomp_det.data import catalog as detection
from pomp_seg.data import catalog as segmentation
from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.data.catalog.lookup import NAMES as CLASSIFICATION_SETS
from prompt_core.data.check import BROKEN, OPTIONAL, PRESENT, Finding, check_source, is_group
from prompt_core.data.check import GROUP as CLASSIFICATION
from prompt_core.data.check import check_group as check_classification
from prompt_core.data.check_published import check_published
from prompt_core.data.photo_files import is_file, is_folder
from prompt_core.errors import UserError, nearest
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import groups as published_groups
from prompt_core.files import data_root
from prompt_core.visible import say


def check_group(group: str, root: Path, models: Path = Path("models")) -> list[Finding]:
    """Check the data sets and the published files of a group of any task, or one source of labelled photos.

    Raises:
        UserError: for an unknown group, and for a source that cannot be opened.
    """
    known = (*detection.GROUPS, *segmentation.GROUPS, CLASSIFICATION, *CLASSIFICATION_SETS, *published_groups(), "all")
    if group not in known and not is_group(group):
        if any(sign in group for sign in ":/#") or is_folder(Path(group)) or is_file(Path(group)):
            return check_source(group, root)
        raise UserError(f"{group!r} is not a group of data sets{nearest(group, known)}; expected {', '.join(known)}")
    findings: list[Finding] = []
    # tasks are imported on demand: classification does not need detectron2
    if group in (*detection.GROUPS, "all"):
        from pomp_det.data.check_files import check_group as check_detection

        findings += check_detection(group, root)
    if group in (*segmentation.GROUPS, "all"):
        from pomp_seg.data.check_files import check_group as check_segmentation

        findings += check_segmentation(group, root)
    if group == "all" or is_group(group):
        findings += check_classification(CLASSIFICATION if group == "all" else group, root)
    tables = (detection, segmentation)
    whole = dict.fromkeys(entry.group for table in tables for entry in table.entries_of("all"))
    with_data = group == "all" or any(group in table.GROUPS for table in tables)
    names = list(whole) if group == "all" else [group]
    return findings + check_published(names, Places(root, models), archives=not with_data)


def show(findings: list[Finding]) -> None:
    """One row for each file or folder; then how to get what is absent, each instruction once."""
    from rich.table import Column, Table

    # paths are there to be copied: folded on a narrow terminal, not cut
    table = Table("data set", "state", Column("path", overflow="fold"), "what", box=None)
    for finding in findings:
        table.add_row(finding.dataset, finding.state, str(finding.path), finding.detail)
    print_table(table)
    for advice, optional in {
        finding.advice: finding.state == OPTIONAL for finding in findings if finding.advice
    }.items():
        say(f"{'optional' if optional else 'to do'}: {advice}")


def main(arguments: list[str] | None = None) -> int:
    """Check one group or source."""
    groups = {
        "detection": detection.GROUPS,
        "segmentation": segmentation.GROUPS,
        "classification": (CLASSIFICATION, *CLASSIFICATION_SETS),
        "published files": published_groups(),
    }
    listed = [fill(f"  {task}: {', '.join(names)}", 100, subsequent_indent="    ") for task, names in groups.items()]
    parser = ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(["groups (all for all of them):", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "group", help="one of the groups below; or a path, KIND:PATH, NAME:PATH, package.module:function"
    )
    parser.add_argument("--root", metavar="DIR", help="data root (default: POMP_DATA, else datasets)")
    parser.add_argument("--models", metavar="DIR", default="models", help="folder of checkpoints (default: models)")
    values = parser.parse_args(arguments)
    findings = check_group(values.group, data_root(values.root), Path(values.models))
    show(findings)
    states = {finding.state for finding in findings}
    return 2 if BROKEN in states else 0 if states <= {PRESENT, OPTIONAL} else 1
