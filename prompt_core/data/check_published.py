"""Checks of published files: class matrices, class counts, backbones, prompts and checkpoints of a group."""

from __future__ import annotations

from pathlib import Path

from prompt_core.data.check import MISSING, OPTIONAL, PRESENT, WRONG, Finding
from prompt_core.errors import UserError
from prompt_core.fetch.advice import how_to_get, size_text
from prompt_core.fetch.bring import has_content
from prompt_core.fetch.fetched_record import remembered_sha256
from prompt_core.fetch.partial_file import part_path
from prompt_core.fetch.places import PACKAGE, Places
from prompt_core.fetch.published_files import PublishedFile, of_group, optional_for
from prompt_core.files import sha256_of_file


def check_published(groups: list[str], places: Places, archives: bool = True) -> list[Finding]:
    """Check the files of groups, each once. What a group can do without is listed as optional when it is absent.

    Args:
        archives: also what archives give; False where the data that is in them is checked anyway.
    """
    needed = {file.name: (group, file) for group in groups for file in of_group(group)}
    optional = {file.name: (group, file) for group in groups for file in optional_for(group)}
    rows = [(group, file, MISSING) for group, file in needed.values()]
    rows += [(group, file, OPTIONAL) for name, (group, file) in optional.items() if name not in needed]
    return [check_file(group, file, places, absent) for group, file, absent in rows if archives or not file.unpacks]


def check_file(group: str, file: PublishedFile, places: Places, absent: str = MISSING) -> Finding:
    """Whether a file is there, and is the published one, the one that was fetched, or one that was built in its place.

    Args:
        absent: the state of a file that is not there, missing or optional.
    """
    advice = how_to_get(file, places)
    try:
        path = places.path_of(file.path)
    except UserError as error:
        return Finding(group, Path(file.path), absent, f"{file.what}; {error}", advice)
    if file.unpacks:
        there = all(has_content(places.path_of(product)) for product in file.unpacks) and not path.is_file()
        product = places.path_of(file.unpacks[0])
        detail = f"{file.what}, {size_text(file.size)}"
        return Finding(group, product, PRESENT if there else absent, detail, "" if there else advice)
    if not has_content(path):
        part = part_path(path)
        begun = f"; {part.stat().st_size:,} bytes of it are there" if part.is_file() else ""
        size = f", {size_text(file.size)}" if file.address else ""
        return Finding(group, path, absent, f"{file.what}{size}{begun}", advice)
    try:
        wrong, detail = _compare(file, path)
    except UserError as error:
        wrong, detail = True, str(error)
    return Finding(group, path, WRONG if wrong else PRESENT, f"{file.what}; {detail}", advice if wrong else "")


def _compare(file: PublishedFile, path: Path) -> tuple[bool, str]:
    """(whether it is wrong, what was seen)."""
    if file.path.startswith(PACKAGE) or file.made_from is not None or not path.is_file():
        return False, "there"
    known = file.sha256 or remembered_sha256(path)
    digest = sha256_of_file(path) if known is not None else None
    if known is not None and digest == known:
        return False, "as published" if file.sha256 else "unchanged since it was fetched"
    if file.shape:
        return _compare_matrix(file, path)
    if known is None:
        return False, "there; nothing is known to compare it with"
    if file.build and file.sha256:
        return False, "other content than the published file, as when it is built here"
    return True, f"sha256 {digest}, {known} is expected"


def _compare_matrix(file: PublishedFile, path: Path) -> tuple[bool, str]:
    """A class matrix that is not the published one: its shape, and its names where they are known."""
    from prompt_core.classifier import TextClassifier
    from prompt_core.vocabulary import Vocabulary, plain_name

    classifier = TextClassifier.load(path)
    given, expected = (" x ".join(map(str, shape)) for shape in (classifier.weight.shape, file.shape))
    if given != expected:
        return True, f"{given}, expected {expected}"
    if file.vocabulary is not None and path.with_suffix(".names.json").is_file():
        names = Vocabulary.load(file.vocabulary).names
        for row, (name, right) in enumerate(zip(classifier.names, names, strict=True)):
            if plain_name(name) != plain_name(right):
                return True, f"row {row} is {name!r}, expected {right!r}"
    return False, f"{given}, " + ("not the published numbers: built here" if file.sha256 else "built here")
