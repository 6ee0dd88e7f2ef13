"""``metrics.json``: numbers, the run that made them, and the protocol that each follows."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prompt_core.dassl.checkpoints import BEST
from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.schema import Finite, check
from prompt_core.errors import UserError
from prompt_core.files import read_safetensors, read_sealed_json, write_sealed_json
from prompt_core.metrics import harmonic_mean

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

# The protocol entry of a number whose own images chose the epoch.
ON_REPORTED = "best checkpoint chosen on the reported images"
# The images that may choose it (SELECT.ON, SELECT_ON_TEST), and their description in a protocol.
CHOSEN_ON = {
    "held_out": "training images that were not learned on",
    "val": "validation images",
    "test": "test images",
}
# The same of a published checkpoint: Dassl's trainers choose on the validation split, which for the ImageNet family is
# the test split.
OF_ITS_TRAINER = "best epoch chosen by the trainer that wrote it"
MOST_MARKS = 2000  # of the images that chose an epoch are kept in a learned file

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


def package_versions() -> dict[str, str]:
    """Versions of the packages that affect numbers."""
    import prompt_core

    versions = {"python": platform.python_version(), "prompt_core": prompt_core.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def processor_name() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.*)", file.read_text(encoding="utf-8")) if file.is_file() else None
    return match.group(1) if match else platform.processor()


def run_description(
    config: str | None = None, seed: int | None = None, device: str = "cpu", **more: Any
) -> dict[str, Any]:
    """The ``_run`` object: command, configuration, versions, seed and device."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command,
        "config": config,
        "versions": package_versions(),
        "seed": seed,
        "device": device,
        **more,
    }


def write_metrics(
    path: str | Path, metrics: Mapping[str, float], run: Mapping[str, Any], protocol: Mapping[str, Any]
) -> None:
    """Write ``{"dataset/metric": number, …, "_run": …, "_protocol": {dataset: …}, "_sha256": …}``."""
    write_sealed_json(path, {**metrics, "_run": dict(run), "_protocol": dict(protocol)}, durable=True)


class MetricsNotes(msgspec.Struct, rename={"run": "_run", "protocol": "_protocol"}):
    """What stands in ``metrics.json`` beside the numbers."""

    run: dict[str, Any]
    protocol: dict[str, dict[str, Any]]


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_metrics` wrote.

    Raises:
        UserError: when it is absent, damaged or no JSON, has no ``_run`` and ``_protocol``, or a value that is no
            finite number.
    """
    document: dict[str, Any] = read_sealed_json(path, SMALL_BYTES)
    check(document, MetricsNotes, path)
    for key, value in document.items():
        if not key.startswith("_"):
            check(value, Finite | None, path, key)
    return document


def class_parts(text: str) -> list[str]:
    """Which classes' images are scored (``EVAL.CLASSES``): ``all``, ``base``, ``novel``, or the two parts.

    ``new`` is the older word for ``novel``.

    Raises:
        UserError: for any other value.
    """
    parts = sorted("novel" if part.strip() == "new" else part.strip() for part in text.split(","))
    if parts not in (["all"], ["base"], ["novel"], ["base", "novel"]):
        raise UserError(f"EVAL.CLASSES is {text!r}; expected all, base, new or base,new (novel may stand for new)")
    return parts


def base_novel_mean(
    metrics: Mapping[str, float], protocol: Mapping[str, Mapping[str, Any]], data_set: str
) -> tuple[float, dict[str, Any]]:
    """Harmonic mean of the top-1 of base and novel classes (CoCoOp, arXiv 2203.05557, table 1).

    Returns:
        the mean in percent, and its ``_protocol`` entry.
    """
    base, novel = f"{data_set}_base", f"{data_set}_novel"
    shared = {key: value for key, value in protocol[base].items() if protocol[novel].get(key) == value}
    return harmonic_mean(metrics[f"{base}/top1"], metrics[f"{novel}/top1"]), {
        **shared,
        "metric": "harmonic mean of top-1 of base and of novel classes",
        "images": protocol[base]["images"] + protocol[novel]["images"],
    }


def selection_text(learned_file: str | Path | None, images: ImageSet, of: str | None = None) -> str:
    """How the epoch of a learned file was chosen, for the protocol of a number; empty for the last epoch.

    Args:
        learned_file: a prompt or a method; None and other texts are hand-written prompts.
        images: the images that are scored.
        of: description of the images that chose; by default that of the file.
    """
    path = Path(learned_file) if learned_file else None
    if path is not None and path.name == BEST:
        return OF_ITS_TRAINER
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return ""
    chosen = read_safetensors(path)[1].get("selection")
    if not chosen:
        return ""
    if _chose(chosen, images):
        return ON_REPORTED
    return f"best epoch chosen on {CHOSEN_ON[chosen['on']]} of {chosen['source'] if of is None else of}"


def image_marks(images: ImageSet) -> list[str]:
    """Identifiers in a learned file of the images that chose an epoch: short hashes of keys and sizes in bytes."""
    sizes = zip(images.keys, images.file_sizes().tolist(), strict=True)
    return [hashlib.sha256(f"{key} {size}".encode("utf-8", "surrogateescape")).hexdigest()[:12] for key, size in sizes]


def _chose(chosen: Mapping[str, Any], images: ImageSet) -> bool:
    """Whether some of the images are among those that chose; for older files, whether all of them are the same."""
    if "images_known_by" not in chosen:
        return bool(chosen["images_sha256"] == images.fingerprint())
    return chosen["source"] == images.source and not set(chosen["images_known_by"]).isdisjoint(image_marks(images))
