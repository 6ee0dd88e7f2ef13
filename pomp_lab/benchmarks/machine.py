"""The machine and the packages behind measured times."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

from prompt_core.evaluation.protocol import package_versions, processor_name


def machine_description(*packages: str) -> dict[str, Any]:
    """What times depend on: processor, cores, load, versions.

    Args:
        packages: whose versions are told besides the usual ones.

    Returns:
        ``cpu``, ``cores``, ``load_average`` (of the last minute; None where the system does not tell) and ``versions``.
    """
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": package_versions() | {package: _version(package) for package in packages},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Detectron2 comes under several distribution names; once imported, it tells its version itself.
        return str(getattr(sys.modules.get(package), "__version__", "absent"))
