"""Where published files lie on this machine."""

from __future__ import annotations

import importlib.util
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from prompt_core.errors import UserError

DETECTRON2, PACKAGE = "detectron2://", "package://"


def packaged_path(address: str) -> Path:
    """Where ``package://PACKAGE/FILE`` lies, which need not exist, for weights that come as a Python package.

    Raises:
        UserError: when the package is not installed.
    """
    name, _, inner = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"package {name} is not installed; run: pip install {name.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0], *Path(inner).parts)


@dataclass(frozen=True)
class Places:
    """The folders that stand for ``datasets/`` and ``models/`` in the paths of configurations.

    Attributes:
        data: root of all data sets.
        models: folder of checkpoints and backbones; published configurations look in ``models`` of the folder in
            which they are run.
    """

    data: Path
    models: Path = Path("models")

    def path_of(self, path: str) -> Path:
        """The file or folder on this machine that a path of the list stands for.

        Detectron2 keeps what it fetches in the cache of iopath (``FVCORE_CACHE``, else ``~/.torch/iopath_cache``)
        under the path of its address.

        Raises:
            UserError: for a file of a package that is not installed.
        """
        if path.startswith(DETECTRON2):
            cache = Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()
            return cache / "detectron2" / path.removeprefix(DETECTRON2)
        if path.startswith(PACKAGE):
            return packaged_path(path)
        top, _, inner = path.partition("/")
        folder = {"datasets": self.data, "models": self.models}.get(top)
        return Path(path) if folder is None else folder / inner

    def command(self, command: str) -> str:
        """A command of the list, with the folders of this machine in the place of ``datasets/`` and ``models/``."""
        data, models = shlex.quote(str(self.data)), shlex.quote(str(self.models))
        command = command.replace("--output datasets/", f"--output {data}/").replace(
            "--prompt models/", f"--prompt {models}/"
        )
        if command.startswith("python datasets/prepare.py") and self.data != Path("datasets"):
            command += f" --root {data}"
        return command
