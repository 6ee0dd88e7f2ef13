"""Predicted label maps on disk: one PNG for each image, 8 bits for at most 255 classes, else 16.

::

    FOLDER/predictions/manifest.json   data set, classes, images; "complete" says that all processes were done
    FOLDER/predictions/KEY.png         class index of each pixel, in the size of the photo

Nothing is kept in memory, whatever the number of images. Each file is written under a temporary name and renamed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, read_json, write_json

SUBFOLDER = "predictions"
MANIFEST = "manifest.json"
_KEYS = {"dataset", "complete", "classes", "ignore_label", "evaluation_set", "images"}


def prediction_file(folder: Path, key: str) -> Path:
    """Where the prediction of an image lies."""
    return folder / SUBFOLDER / f"{key}.png"


def clear_predictions(folder: Path) -> None:
    """Remove the predictions of an earlier run.

    Raises:
        UserError: when the folder cannot be created or written.
    """
    place = make_output_folder(folder / SUBFOLDER)
    for path in [place / MANIFEST, *place.glob("*.png")]:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write what scoring needs to know besides the label maps."""
    write_json(folder / SUBFOLDER / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_manifest` wrote.

    Raises:
        UserError: when the folder holds no predictions, or those of an interrupted run.
    """
    path = folder / SUBFOLDER / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} holds no predictions: {path} does not exist; run the evaluation with inference")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not set(manifest) >= _KEYS:
        raise UserError(f"{path} does not describe predictions; run the evaluation with inference")
    if not manifest["complete"]:
        raise UserError(f"{folder / SUBFOLDER} is unfinished: the run was interrupted; run the inference again")
    return manifest
