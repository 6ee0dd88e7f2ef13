"""``metrics.json``: numbers, the run that made them, and the protocol that each follows."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_core.files import write_json

# What the protocol of a number says whose own images chose the epoch.
ON_REPORTED = "best checkpoint chosen on the reported images"

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


def package_versions() -> dict[str, str]:
    """Versions of what decides numbers."""
    import prompt_core

    versions = {"python": platform.python_version(), "prompt_core": prompt_core.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def processor_name() -> str:
    """The processor as the system calls it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", file.read_text(encoding="utf-8")) if file.is_file() else None
    return found.group(1) if found else platform.processor()


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
    """Write ``{"dataset/metric": number, …, "_run": …, "_protocol": {dataset: …}}``."""
    write_json(path, {**metrics, "_run": dict(run), "_protocol": dict(protocol)})
