"""The embedded data set as a folder.

::

    shapes.json                            options and version; if they match there is nothing to do
    classes.json, class_names.txt          every class: id, name, split, frequency
    classification/{train,val}/CLASS/N.png one folder per class; novel classes only under val
    scenes/{train,val}/ID.png
    semantic/{train,val}/ID.png            class index per pixel, 255 (N <= 255) or 65535 for background
    annotations/instances_{train,val}.json COCO
    annotations/lvis_{train,val}.json      LVIS v1, federated
    annotations/lvis_train_norare.json     the same images without annotations of rare classes

The bytes depend only on the options and on the versions of numpy and Pillow.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pomp_lab.shapes.annotations import coco_categories, lvis_categories, scene_annotations, semantic_map
from pomp_lab.shapes.classes import ShapeClass
from pomp_lab.shapes.options import (
    SPLITS,
    VAL_IMAGE_IDS,
    VERSION,
    ShapesOptions,
    classification_classes,
    classification_image,
    federated,
    scene,
    vocabulary,
)
from prompt_core.errors import UserError
from prompt_core.files import read_json, write_json

MANIFEST = "shapes.json"


def build_shapes(
    output: str | os.PathLike[str], options: ShapesOptions, overwrite: bool = False, workers: int = 1
) -> bool:
    """Write the data set to the folder ``output``, completely or not at all.

    Returns:
        False when the folder already holds exactly this data set and nothing was done.

    Raises:
        UserError: when the folder holds something else (with ``overwrite``: something that is not this data set), or
            cannot be written.
    """
    chosen = classification_classes(options)
    target = Path(os.path.realpath(output))
    if _is_made(target, options.manifest(), overwrite):
        return False
    with _replaced_folder(target) as folder:
        _write_classes(folder, options, chosen)
        if "classification" in options.parts:
            _write_classification(folder, options, chosen, workers)
        if "scenes" in options.parts:
            _write_scenes(folder, options, workers)
        write_json(folder / MANIFEST, options.manifest())
    return True


def _is_made(target: Path, manifest: dict[str, Any], overwrite: bool) -> bool:
    if not target.exists():
        return False
    if not target.is_dir():
        raise UserError(f"--output {target} is a file; expected a folder")
    if not any(target.iterdir()):
        return False
    if not (target / MANIFEST).is_file():
        raise UserError(f"--output {target} is not empty and holds no {MANIFEST}; choose another folder")
    # Checked before overwriting as well: only what this tool wrote may be deleted by it.
    present = read_json(target / MANIFEST)
    if not isinstance(present, dict) or present.get("data_set") != "shapes":
        raise UserError(f"{target / MANIFEST} was not written by this tool; choose another --output folder")
    if present == manifest:
        return True
    if not overwrite:
        raise UserError(
            f"--output {target} holds shapes made with other options ({_difference(present, manifest)}); "
            "choose another folder or give --overwrite"
        )
    return False


def _difference(present: dict[str, Any], wanted: dict[str, Any]) -> str:
    old, new = present.get("options"), wanted["options"]
    if not isinstance(old, dict) or present.get("version") != wanted["version"]:
        return f"version {present.get('version')}, now {wanted['version']}"
    names = [name for name in new if old.get(name) != new[name]] + [name for name in old if name not in new]
    return "; ".join(f"{name}: {old.get(name)}, now {new.get(name)}" for name in names[:3])


@contextlib.contextmanager
def _replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``target`` that replaces it on success and is deleted on any error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose a writable --output") from error
    fresh, previous = temporary / "new", temporary / "previous"
    try:
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(previous)
        try:
            fresh.rename(target)
        except OSError:
            if previous.exists():
                previous.rename(target)
            raise
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run(task: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Results in the order of ``items``, whatever the number of processes."""
    if workers <= 1:
        yield from map(task, items)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(task, items, chunksize=8)


def _save_png(path: Path, array: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(array).save(path, "PNG", compress_level=3)


def _write_json_line(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


def _write_classes(folder: Path, options: ShapesOptions, chosen: list[ShapeClass]) -> None:
    pictured = {item.id for item in chosen}
    rows = [
        {
            "id": item.id,
            "name": item.name,
            "synonyms": item.synonyms,
            "folder": item.folder,
            "colour": item.colour,
            "pattern": item.pattern,
            "shape": item.shape,
            "split": "novel" if item.novel else "base",
            "frequency": item.frequency,
            "classification": item.id in pictured,
        }
        for item in vocabulary(options.classes, options.seed)
    ]
    write_json(folder / "classes.json", {"classes": rows})
    (folder / "class_names.txt").write_text("".join(f"{row['name']}\n" for row in rows), encoding="utf-8")


def _write_classification(folder: Path, options: ShapesOptions, chosen: list[ShapeClass], workers: int) -> None:
    tasks = [(split, item) for split in SPLITS for item in chosen if split == "val" or not item.novel]
    for _ in _run(partial(_write_one_class, folder, options), tasks, workers):
        pass


def _write_one_class(folder: Path, options: ShapesOptions, task: tuple[str, ShapeClass]) -> None:
    split, shown = task
    place = folder / "classification" / split / shown.folder
    place.mkdir(parents=True)
    count = options.train_images_per_class if split == "train" else options.val_images_per_class
    for index in range(count):
        _save_png(place / f"{index:05d}.png", classification_image(options, split, shown, index))


def _write_scenes(folder: Path, options: ShapesOptions, workers: int) -> None:
    classes = vocabulary(options.classes, options.seed)
    coco, lvis = {}, {}
    for split, count in (("train", options.scenes), ("val", options.val_scenes)):
        (folder / "scenes" / split).mkdir(parents=True)
        (folder / "semantic" / split).mkdir(parents=True)
        records = _run(partial(_write_one_scene, folder, options, split), range(count), workers)
        coco[split], lvis[split] = _collect(records)
    (folder / "annotations").mkdir()
    info = {"description": "coloured, patterned shapes", "version": str(VERSION)}
    categories = lvis_categories(classes, lvis["train"]["annotations"])
    for split in SPLITS:
        _write_json_line(
            folder / "annotations" / f"instances_{split}.json",
            {"info": info, "licenses": [], **coco[split], "categories": coco_categories(classes)},
        )
        _write_json_line(
            folder / "annotations" / f"lvis_{split}.json",
            {"info": info, "licenses": [], **lvis[split], "categories": categories},
        )
    rare = {item.id + 1 for item in classes if item.novel}
    not_rare = [annotation for annotation in lvis["train"]["annotations"] if annotation["category_id"] not in rare]
    _write_json_line(
        folder / "annotations" / "lvis_train_norare.json",
        {"info": info, "licenses": [], **lvis["train"], "annotations": not_rare, "categories": categories},
    )


def _write_one_scene(folder: Path, options: ShapesOptions, split: str, index: int) -> dict[str, Any]:
    classes = vocabulary(options.classes, options.seed)
    drawn = scene(options, split, index)
    image_id = index + 1 + (VAL_IMAGE_IDS if split == "val" else 0)
    name = f"{image_id:012d}.png"
    _save_png(folder / "scenes" / split / name, drawn.image)
    _save_png(folder / "semantic" / split / name, semantic_map(drawn, len(classes)))
    negative, not_exhaustive, left_out = federated(options, split, index, drawn)
    polygons = scene_annotations(drawn, "polygons")
    return {
        "image": {"id": image_id, "file_name": name, "width": options.scene_size, "height": options.scene_size},
        # Readers of LVIS take folder and file name from the end of this URL.
        "coco_url": f"scenes/{split}/{name}",
        "neg_category_ids": negative,
        "not_exhaustive_category_ids": not_exhaustive,
        "left_out": left_out,
        "coco": polygons if options.masks == "polygons" else scene_annotations(drawn, options.masks),
        "lvis": polygons,
    }


def _collect(records: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Number the annotations 1, 2, ...; an annotation has the same id in the COCO and the LVIS file."""
    coco: dict[str, list[Any]] = {"images": [], "annotations": []}
    lvis: dict[str, list[Any]] = {"images": [], "annotations": []}
    for record in records:
        image = record["image"]
        coco["images"].append(image)
        federated = ("coco_url", "neg_category_ids", "not_exhaustive_category_ids")
        lvis["images"].append({**image, **{name: record[name] for name in federated}})
        for index, (plain, polygon) in enumerate(zip(record["coco"], record["lvis"], strict=True)):
            numbers = {"id": len(coco["annotations"]) + 1, "image_id": image["id"]}
            coco["annotations"].append({**numbers, **plain})
            if index not in record["left_out"]:
                without_crowd = {key: value for key, value in polygon.items() if key != "iscrowd"}
                lvis["annotations"].append({**numbers, **without_crowd})
    return coco, lvis
