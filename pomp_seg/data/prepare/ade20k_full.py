"""Full ADE20K (2021_17_01) for segmentation, with its open vocabulary cut to classes that both splits have.

MaskFormer (arXiv 2107.06278) takes the categories that occur in the training and in the validation photos: 847. The
same rule is applied here to the user's own copy, without a fixed list: a category is in the label image
``NAME_seg.png`` (R // 10 * 256 + G), its name in ``NAME.json`` next to it. Classes are in the order of ADE20K's
numbers; MaskFormer has another order, so labels and models made with its list need that list (``--classes``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pomp_engine.data.derived_files import Outcome, derive_json
from pomp_seg.data.label_sets import default_ignore_label
from pomp_seg.data.prepare.label_folders import WORKERS, Made, convert_labels
from pomp_seg.data.records import files_by_key
from prompt_core.data.open_photo import UnreadableImage, opened_image
from prompt_core.documents.bounds import SMALL_BYTES, read_bytes
from prompt_core.documents.json_files import decode_json
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

SPLITS = ("training", "validation")
PUBLISHED_CLASSES = 847
_SUFFIX = "_seg"


def prepare_ade20k_full(root: Path, classes: Path | None = None, overwrite: bool = False) -> Made:
    """Make ``ADE20K_2021_17_01/annotations_detectron2/{training,validation}`` (16 bits); ``classes_detectron2.json``.

    Args:
        classes: JSON with ``names`` and ``ids`` (ADE20K's numbers) in the wanted order; None applies the rule.

    Raises:
        UserError: when photos or labels are absent or damaged.
    """
    folder = root / "ADE20K_2021_17_01"
    sources = {split: read_sources(folder / "images/ADE" / split) for split in SPLITS}
    vocabulary = read_classes(classes) if classes is not None else shared_classes(sources)
    document = {"source": vocabulary.source, "names": list(vocabulary.names), "ids": list(vocabulary.ids or [])}
    listed = folder / "classes_detectron2.json"
    chosen = {"classes": vocabulary.sha256}
    made: Made = {listed: derive_json(listed, chosen, "ADE20K full classes, 1", lambda: document, overwrite)}
    assert isinstance(made[listed], Outcome)
    index_of = {int(number): index for index, number in enumerate(vocabulary.ids or [])}
    ignore_label = default_ignore_label(len(vocabulary))
    recipe = f"ADE20K full, {len(vocabulary)} classes {vocabulary.sha256[:12]}, 1"
    for split, files in sources.items():
        output = folder / "annotations_detectron2" / split
        made[output] = convert_labels(
            output,
            files,
            recipe,
            lambda path: relabel(read_numbers(path), index_of, ignore_label),
            len(vocabulary),
            ignore_label,
            overwrite,
        )
    return made


def read_sources(folder: Path) -> dict[str, Path]:
    """``{photo: label image}`` of one split, whose files lie in folders of scenes.

    Raises:
        UserError: when there are none.
    """
    files = files_by_key(folder, (".png",), _SUFFIX) if folder.is_dir() else {}
    if not files:
        raise UserError(f"{folder} holds no *_seg.png; python datasets/check.py ade20k_full says how to get them")
    return {key: Path(path) for key, path in sorted(files.items())}


def shared_classes(sources: Mapping[str, Mapping[str, Path]]) -> Vocabulary:
    """The categories with pixels in every split, in the order of ADE20K's numbers.

    Raises:
        UserError: when there are none, or a category has no name.
    """
    present: list[set[int]] = []
    names: dict[int, Counter[str]] = {}
    for files in sources.values():
        occurring: set[int] = set()
        with ThreadPoolExecutor(WORKERS) as pool:
            for numbers, named in pool.map(_numbers_and_names, files.values()):
                occurring |= numbers
                for number, name in named.items():
                    names.setdefault(number, Counter())[name] += 1
        present.append(occurring)
    shared = sorted(set.intersection(*present))
    if not shared:
        raise UserError("no category of ADE20K occurs in both splits; download the data set again")
    nameless = next((number for number in shared if number not in names), None)
    if nameless is not None:
        raise UserError(f"category {nameless} of ADE20K has pixels, but no .json beside a label names it")
    # The name that most photos give; all photos should agree.
    chosen = [names[number].most_common(1)[0][0].strip() for number in shared]
    return Vocabulary(chosen, ids=shared, source=f"ADE20K 2021_17_01, {len(shared)} categories of both splits")


def read_classes(path: Path) -> Vocabulary:
    """The classes of a given list.

    Raises:
        UserError: when it has no numbers of ADE20K.
    """
    classes = Vocabulary.load(path)
    if classes.ids is None or not all(isinstance(number, int) for number in classes.ids):
        raise UserError(f"{path}: 'names' and 'ids' are expected, ids being the numbers of ADE20K 2021_17_01")
    return classes


def read_numbers(path: Path) -> np.ndarray:
    """ADE20K's category numbers of a label image, (H, W) int32; 0 is none.

    Raises:
        UserError: when it cannot be read or has no colours.
    """
    try:
        with opened_image(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except UnreadableImage as error:
        raise UserError(f"cannot read label file {path}: {error.reason}; download the data set again") from error
    if mode not in ("RGB", "RGBA"):
        raise UserError(f"label file {path} has mode {mode}; the coloured *_seg.png of ADE20K 2021_17_01 are expected")
    red, green = pixels[..., 0].astype(np.int32), pixels[..., 1].astype(np.int32)
    return red // 10 * 256 + green


def relabel(numbers: np.ndarray, index_of: Mapping[int, int], ignore_label: int) -> np.ndarray:
    """Category numbers to class indices, (H, W) int32; others become ``ignore_label``."""
    table = np.full(max(int(numbers.max()), max(index_of)) + 1, ignore_label, dtype=np.int32)
    for number, index in index_of.items():
        table[number] = index
    return table[numbers]


def _numbers_and_names(path: Path) -> tuple[set[int], dict[int, str]]:
    present = set(np.flatnonzero(np.bincount(read_numbers(path).ravel())).tolist()) - {0}
    description = path.with_name(path.stem[: -len(_SUFFIX)] + ".json")
    names: dict[int, str] = {}
    if description.is_file():
        try:
            # Some of the published files are Latin-1.
            text = read_bytes(description, SMALL_BYTES).decode("utf-8", errors="replace")
            for part in decode_json(text.encode(), str(description))["annotation"]["object"]:
                names[int(part["name_ndx"])] = str(part["name"])
        except UserError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{description} does not describe an ADE20K photo ({error}); download it again") from error
    return present, names
