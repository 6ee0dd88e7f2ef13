"""Image labels of the generated shapes: pictures of single objects as photos whose classes are known and no box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pomp_engine.data.derived_files import Outcome, derive_json
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_file

RECIPE = "shapes image labels 1"


def prepare_image_labels(shapes: Path) -> tuple[Path, Outcome]:
    """Write ``annotations/image_labels.json`` from the validation pictures of ``classification``.

    The training pictures show base classes alone; those of validation show every class, as ImageNet's photos do for
    LVIS, and no scene is among them.

    Args:
        shapes: a folder that ``datasets/make_shapes.py`` wrote, with both parts.

    Raises:
        UserError: when a part is missing.
    """
    output = shapes / "annotations" / "image_labels.json"
    truth, manifest = shapes / "annotations" / "lvis_train.json", shapes / "shapes.json"
    pictures = shapes / "classification" / "val"
    for path in (truth, manifest, pictures):
        if not path.exists():
            raise UserError(f"{path} does not exist; run python datasets/make_shapes.py --output {shapes}")
    inputs = {"shapes.json": sha256_of_file(manifest), "annotations/lvis_train.json": sha256_of_file(truth)}
    return output, derive_json(output, inputs, RECIPE, lambda: _document(pictures, read_json(truth)["categories"]))


def _document(pictures: Path, categories: list[dict[str, Any]]) -> dict[str, Any]:
    from PIL import Image

    images: list[dict[str, Any]] = []
    for category in categories:
        for path in sorted((pictures / category["name"]).glob("*.png")):
            with Image.open(path) as picture:
                width, height = picture.size
            name = path.relative_to(pictures).as_posix()
            size = {"width": width, "height": height}
            images.append({"id": len(images) + 1, "file_name": name, **size, "pos_category_ids": [category["id"]]})
    return {"images": images, "annotations": [], "categories": categories}
