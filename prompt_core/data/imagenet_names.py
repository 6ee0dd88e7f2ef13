"""Names of the ImageNet-1K classes: CLIP's curated ones from ``classnames.txt``, or open_clip's copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompt_core.data.scanning import read_lines
from prompt_core.errors import UserError

FILE = "classnames.txt"


def imagenet_classes(folder: Path) -> tuple[list[str], list[str], str]:
    """Wnids and names in the order of the class ids, and where they are from.

    ``classnames.txt`` (lines ``wnid name``) is looked for in ``folder``, then in ``imagenet`` beside it. Without it,
    names are open_clip's, in the order of timm's list of the 1,000 wnids.

    Raises:
        UserError: when the file is not of that form.
    """
    for path in (folder / FILE, folder.parent / "imagenet" / FILE):
        if path.is_file():
            lines = [line.split(maxsplit=1) for line in read_lines(path, "class names")]
            if any(len(parts) != 2 for parts in lines):
                raise UserError(f"{path}: expected lines of the form 'wnid class name'")
            if len({parts[0] for parts in lines}) != len(lines):
                raise UserError(f"{path}: a wnid occurs twice")
            return [parts[0] for parts in lines], [parts[1] for parts in lines], f"names: {FILE}"
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo("imagenet-1k").label_names()
    return list(wnids), list(IMAGENET_CLASSNAMES), f"names: open_clip's ImageNet list by wnid, no {FILE}"


def names_of(wnids: Sequence[str], folder: Path) -> tuple[list[str], str]:
    """Names of class folders, and where they are from.

    Raises:
        UserError: when a folder is none of the known classes.
    """
    known, names, origin = imagenet_classes(folder)
    name_of = dict(zip(known, names, strict=True))
    if missing := [wnid for wnid in wnids if wnid not in name_of]:
        raise UserError(f"{len(missing)} class folders in {folder} have no name, the first is {missing[0]} ({origin})")
    return [name_of[wnid] for wnid in wnids], origin
