"""What is installed, what is missing, and the command that fixes it: ``python -m prompt_core.doctor [--json]``.

Versions come from package metadata, so nothing heavy is imported except torch, and that only to list devices.
With ``--towers [WORD]`` it lists open_clip's architectures instead, and which of them take a learned prompt.
``pomp doctor`` is the same; ``pomp doctor --install-detectron2`` installs Detectron2 without a compiler.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prompt_core import files
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.lazy import INSTALL_DETECTRON2, install_command

CORE = install_command()
DETECTION = install_command("det")
EXPORT = install_command("export")


@dataclass(frozen=True)
class Component:
    """A Python package, where it comes from, and the versions [lowest, below) that the tests ran with."""

    module: str
    distributions: tuple[str, ...]
    install: str
    lowest: str | None = None
    below: str | None = None
    required: bool = False


COMPONENTS = (
    Component("torch", ("torch",), CORE, "2.13", "2.14", required=True),
    Component("torchvision", ("torchvision",), CORE, "0.28", "0.29", required=True),
    Component("open_clip", ("open_clip_torch",), CORE, "3.3", "4", required=True),
    Component("timm", ("timm",), CORE, "1.0", "2", required=True),
    Component("numpy", ("numpy",), CORE, "2.4", "3", required=True),
    Component("PIL", ("pillow",), CORE, "13", "14", required=True),
    Component("fvcore", ("fvcore",), CORE, "0.1.5", "0.2", required=True),
    Component("yacs", ("yacs",), CORE, "0.1.8", "0.2", required=True),
    Component("safetensors", ("safetensors",), CORE, "0.8", "0.9", required=True),
    Component("rich", ("rich",), CORE, "15", "16", required=True),
    Component("tensorboard", ("tensorboard",), "pip install tensorboard", "2.21", "3"),
    Component("transformers", ("transformers",), "pip install transformers", "5.24", "6"),
    Component("detectron2", ("detectron2", "sal-detectron2"), INSTALL_DETECTRON2, "0.6", "0.8"),
    Component("hotcoco", ("hotcoco",), DETECTION),
    Component("supervision", ("supervision",), DETECTION),
    Component("pycocotools", ("pycocotools",), DETECTION, "2.0.11", "3"),
    Component("onnx", ("onnx",), EXPORT, "1.23", "2"),
    Component("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), EXPORT, "1.32", "2"),
    Component("onnxscript", ("onnxscript",), EXPORT, "0.7", "0.8"),
    Component("gradio", ("gradio",), install_command("app"), "6.31", "7"),
    Component("pyarrow", ("pyarrow",), install_command("parquet"), "26", "27"),
    Component("pillow_heif", ("pillow-heif",), install_command("heic")),
)
PYTHON = Component("python", (), "install Python 3.10 or newer", "3.10", "3.14", required=True)


def release(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: ``2.13.0+cpu`` gives (2, 13, 0); anything without one gives ()."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def is_tested(component: Component, version: str) -> bool:
    """Whether ``version`` lies in the tested range; an open end or an unreadable version counts as inside."""
    numbers = release(version)
    if not numbers:
        return True
    # Padded to one length, so that 0.28 and 0.28.0 compare as equal.
    padded = numbers + (0,) * 8
    above = component.lowest is None or padded >= release(component.lowest)
    return above and (component.below is None or numbers < release(component.below))


def version_of(component: Component) -> str | None:
    """Installed version, ``"unknown"`` for a package without metadata, None when it is absent."""
    for distribution in component.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        spec = importlib.util.find_spec(component.module)
    except (ImportError, ValueError):
        return None
    return "unknown" if spec is not None and spec.origin is not None else None


def devices() -> dict[str, Any]:
    """CUDA devices with their memory in GiB, MPS, and CPU threads; ``error`` says why torch could not list them."""
    facts: dict[str, Any] = {"cpu_count": os.cpu_count(), "cpu_threads": None, "cuda": [], "mps": False, "error": None}
    try:
        import torch

        facts["cpu_threads"] = torch.get_num_threads()
        facts["cuda_version"] = torch.version.cuda
        facts["mps"] = torch.backends.mps.is_available()
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            properties = torch.cuda.get_device_properties(index)
            memory = round(properties.total_memory / 2**30, 1)
            facts["cuda"].append({"index": index, "name": properties.name, "memory_gib": memory})
    # A broken torch (a missing shared library, a driver that is too old) fails in many ways; the doctor has to report
    # each of them and continue.
    except Exception as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    return facts


def data_root() -> dict[str, Any]:
    """The folder for data sets (``POMP_DATA``, else ``datasets``): its path, state and free space in GiB."""
    path = files.data_root()
    state: dict[str, Any] = {"path": str(path), "from_environment": bool(os.environ.get("POMP_DATA"))}
    state.update(exists=path.is_dir(), writable=False, free_gib=None)
    if path.is_dir():
        try:
            with tempfile.TemporaryFile(dir=path):
                state["writable"] = True
        except OSError:
            pass
        state["free_gib"] = round(shutil.disk_usage(path).free / 2**30, 1)
    return state


def examine() -> dict[str, Any]:
    """All findings as one JSON-serialisable dictionary: python, packages, devices, data_root, missing and warnings."""
    missing: list[dict[str, Any]] = []
    warnings: list[str] = []
    packages: dict[str, str | None] = {}
    python = platform.python_version()
    for component in (PYTHON, *COMPONENTS):
        version = python if component is PYTHON else version_of(component)
        if component is not PYTHON:
            packages[component.module] = version
        if version is None:
            missing.append({"name": component.module, "required": component.required, "install": component.install})
        elif not is_tested(component, version):
            tested = f"at least {component.lowest} and below {component.below}"
            warnings.append(f"{component.module} {version} is outside the tested range: {tested}")
    hardware = devices()
    if hardware["error"] and packages["torch"] is not None:
        warnings.append(f"torch is installed but cannot be used ({hardware['error']})")
    root = data_root()
    if not root["exists"]:
        warnings.append(f"data root {root['path']} does not exist; create it, or set POMP_DATA to your data folder")
    elif not root["writable"]:
        warnings.append(f"data root {root['path']} cannot be written; set POMP_DATA to a writable folder")
    return {
        "python": python,
        "platform": platform.platform(),
        "packages": packages,
        "devices": hardware,
        "data_root": root,
        "missing": missing,
        "warnings": warnings,
    }


def render(findings: dict[str, Any]) -> str:
    """The findings as plain text."""
    required = {component.module for component in COMPONENTS if component.required}
    hardware, root = findings["devices"], findings["data_root"]
    lines = [f"python        {findings['python']}  ({findings['platform']})"]
    for optional in (False, True):
        lines += ["", "optional parts" if optional else "packages"]
        for name, version in findings["packages"].items():
            if (name not in required) is optional:
                lines.append(f"  {name:<11} {version or 'missing'}")
    lines += ["", "devices", f"  cpu         {hardware['cpu_count']} cores, {hardware['cpu_threads']} torch threads"]
    for card in hardware["cuda"]:
        lines.append(f"  cuda:{card['index']:<7}{card['name']}, {card['memory_gib']} GiB")
    if not hardware["cuda"]:
        lines.append("  cuda        none")
    if hardware["mps"]:
        lines.append("  mps         available")
    state = "writable" if root["writable"] else "not writable" if root["exists"] else "absent"
    space = f", {root['free_gib']} GiB free" if root["exists"] else ""
    lines += ["", f"data root     {root['path']} ({state}{space})"]
    if findings["missing"]:
        lines += ["", "missing"]
        for entry in findings["missing"]:
            kind = "required" if entry["required"] else "optional"
            lines.append(f"  {entry['name']:<11} {kind}: {entry['install']}")
    lines += ["", *(f"warning: {text}" for text in findings["warnings"])] if findings["warnings"] else []
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m prompt_core.doctor") -> int:
    """Print the findings. Returns 0, or 1 when a required part is missing or torch cannot be used."""
    parser = ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--towers", nargs="?", const="", metavar="WORD", help="list architectures of CLIP, those with WORD in the name"
    )
    options = parser.parse_args(arguments)
    if options.towers is not None:
        from prompt_core.towers import listing

        towers = listing.list_towers(options.towers)
        print(json.dumps(listing.as_json(towers), indent=2) if options.json else listing.render(towers))
        return 0
    findings = examine()
    print(json.dumps(findings, indent=2) if options.json else render(findings))
    unusable = any(entry["required"] for entry in findings["missing"]) or findings["devices"]["error"] is not None
    return 1 if unusable else 0


if __name__ == "__main__":
    run_command(main)
