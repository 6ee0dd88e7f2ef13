"""Install detectron2 without compiling anything, unless it is already installed.

    pomp doctor --install-detectron2              # fetch, check, repack and install
    pomp doctor --install-detectron2 --dry-run    # print the plan only
    pomp doctor --install-detectron2 --wheel FILE # use a wheel that was already downloaded

``python -m pomp_engine.install_detectron2`` is the same. Needs neither torch nor detectron2 to start.

detectron2 has no official wheel. ``sal-detectron2`` 0.7.2 carries the Python files of detectron2's commit a59f0563
together with a binary for Python 3.10, which this project does not need. The wheel is checked against a pinned
sha256, the binary and the stray top-level ``tools`` package are left out, and the rest is packed again as a pure
Python wheel that any Python 3 installs. Version pins of the published wheel (``numpy<2``) are not taken over.

Without the binary, models build and train as usual (ROIAlign and NMS come from torchvision), but deformable
convolutions, rotated boxes and the C++ COCO evaluation raise when used. ``detectron2.model_zoo`` also needs
``pkg_resources``, which recent setuptools no longer has, and ``detectron2.utils.visualizer`` needs OpenCV.

With GitHub reachable and a C++ compiler, the official source works as well:

    pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib
import importlib.util
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.fetch.unpack import check_member
from prompt_core.files import atomic_path, sha256_of_file
from prompt_core.lazy import install_command

PACKAGE = "sal-detectron2==0.7.2"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
DOWNLOAD_TAGS = ("--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--platform", "any")
OFFICIAL_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
NATIVE_SUFFIXES = (".so", ".pyd", ".dll", ".dylib")

# What detectron2's Python files import, apart from torch and torchvision. The published wheel forgets fvcore and
# iopath, and asks for black, which only formats printed configurations.
REQUIREMENTS = (
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.9",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "packaging",
)


def installed_version() -> str | None:
    """Version of the detectron2 that imports, or None when there is none.

    Raises:
        UserError: when one is there and fails to import.
    """
    spec = importlib.util.find_spec("detectron2")
    # A bare folder of that name on the path is found too, as a namespace package without a file of its own.
    if spec is None or spec.origin is None:
        return None
    try:
        module = importlib.import_module("detectron2")
    except Exception as error:
        raise UserError(
            f"detectron2 at {spec.origin} fails to import ({error!r}); repair it, or uninstall it and run this again"
        ) from error
    return str(getattr(module, "__version__", "of unknown version"))


def check_sha256(wheel: Path, expected: str = SHA256) -> None:
    """Refuse a file whose bytes are not the published ones.

    Raises:
        UserError: when the file cannot be read or its checksum differs.
    """
    try:
        digest = sha256_of_file(wheel)
    except OSError as error:
        raise UserError(f"cannot read {wheel}: {error.strerror or error}; give the file of {PACKAGE}") from error
    if digest != expected:
        raise UserError(
            f"{wheel} has sha256 {digest}, expected {expected}; nothing was installed, fetch {PACKAGE} again"
        )


def download(folder: Path) -> Path:
    """Fetch the wheel into ``folder`` with pip, for the tags it was published with, whatever Python runs here.

    Raises:
        UserError: when pip fails.
    """
    command = ["download", "--no-deps", "--only-binary=:all:", *DOWNLOAD_TAGS, "--dest", str(folder), PACKAGE]
    run_pip(command, f"cannot fetch {PACKAGE}; use --wheel FILE, or pip install --no-build-isolation {OFFICIAL_SOURCE}")
    return next(folder.glob("*.whl"))


def run_pip(arguments: Sequence[str], failure: str) -> None:
    """Run this interpreter's pip; its own output stays visible.

    Raises:
        UserError: with the text ``failure`` when pip does not succeed.
    """
    if subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:
        raise UserError(failure)


def is_needed(name: str) -> bool:
    """Whether a member is kept: detectron2's files except the native ones, and the wheel's own description."""
    top = PurePosixPath(name).parts[0]
    return not name.endswith(NATIVE_SUFFIXES) and (top == "detectron2" or top.endswith(".dist-info"))


def pure_metadata(text: str) -> str:
    """METADATA with this tool's requirements instead of the published ones and their extras."""
    headers, separator, description = text.partition("\n\n")
    lines = [line for line in headers.splitlines() if not line.startswith(("Requires-Dist:", "Provides-Extra:"))]
    lines += [f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS]
    return "\n".join(lines) + (separator or "\n") + description


PURE_WHEEL = "Wheel-Version: 1.0\nGenerator: install_detectron2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def record_text(contents: Iterable[tuple[str, bytes]], record_name: str) -> str:
    """RECORD of the wheel format: path, urlsafe base64 sha256 without padding, size; its own line without a hash."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for name, data in contents:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow((name, f"sha256={digest}", len(data)))
    writer.writerow((record_name, "", ""))
    return stream.getvalue()


def repack_pure(wheel: Path, folder: Path) -> Path:
    """Write a pure Python wheel of ``wheel`` into ``folder``: native files dropped, tag py3-none-any, new RECORD.

    Equal input gives equal bytes. The format is that of the packaging specification "Binary distribution format".

    Raises:
        UserError: when the file is not a wheel, or a member's path is unsafe.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            for info in archive.infolist():
                check_member(info)
            files = {info.filename: archive.read(info) for info in members if is_needed(info.filename)}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UserError(f"{wheel} is not a readable wheel ({error}); fetch {PACKAGE} again") from error
    descriptions = {name.split("/")[0] for name in files if name.split("/")[0].endswith(".dist-info")}
    if len(descriptions) != 1 or not {f"{next(iter(descriptions))}/{file}" for file in ("METADATA", "WHEEL")} <= set(
        files
    ):
        raise UserError(f"{wheel} has no dist-info folder with METADATA and WHEEL; a wheel was expected")
    description = descriptions.pop()
    files[f"{description}/METADATA"] = pure_metadata(files[f"{description}/METADATA"].decode("utf-8")).encode("utf-8")
    files[f"{description}/WHEEL"] = PURE_WHEEL.encode("utf-8")
    files[f"{description}/top_level.txt"] = b"detectron2\n"
    record_name = f"{description}/RECORD"
    files.pop(record_name, None)
    files[record_name] = record_text(files.items(), record_name).encode("utf-8")

    target = folder / f"{description.removesuffix('.dist-info')}-py3-none-any.whl"
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return target


def install(wheel: Path | None) -> str:
    """Install the requirements, then detectron2 itself (last, so that a failure before leaves none behind).

    Returns:
        The version that a fresh interpreter imports.

    Raises:
        UserError: when a step fails.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "detectron2 needs PyTorch, which is not installed; install this package with what it needs first: "
            f"{install_command()}"
        )
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        published = wheel if wheel is not None else download(folder)
        check_sha256(published)
        pure = repack_pure(published, folder / "pure")
        run_pip(["install", *REQUIREMENTS], "cannot install detectron2's requirements; see pip's message above")
        run_pip(["install", "--no-deps", "--no-index", str(pure)], "cannot install the wheel; see pip's message above")
    command = [sys.executable, "-c", "import detectron2, detectron2.config; print(detectron2.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"detectron2 was installed but does not import: {reason}")
    return done.stdout.strip().splitlines()[-1]


def plan(wheel: Path | None) -> str:
    """The steps in order, as ``--dry-run`` prints them."""
    fetch = f"use {wheel}" if wheel else "pip download --no-deps --only-binary=:all: " + " ".join(DOWNLOAD_TAGS)
    steps = (
        fetch if wheel else f"{fetch} {PACKAGE}",
        f"check sha256 {SHA256}",
        "repack as a pure Python wheel (py3-none-any) without its prebuilt binary",
        "pip install " + " ".join(f'"{requirement}"' for requirement in REQUIREMENTS),
        "pip install --no-deps --no-index the repacked wheel",
        "import detectron2 in a fresh interpreter",
    )
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, leave an existing detectron2 alone, else install it."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help=f"file of {PACKAGE} that was already downloaded")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    options = parser.parse_args(arguments)
    if (version := installed_version()) is not None:
        print(f"detectron2 {version} is installed; left alone")
    elif options.dry_run:
        print(plan(options.wheel))
    else:
        print(f"detectron2 {install(options.wheel)} installed")


if __name__ == "__main__":
    run_command(main)
