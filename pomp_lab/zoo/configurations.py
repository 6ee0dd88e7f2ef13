"""Configuration files: which are run and which only inherited from, what they are and which commands run them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from prompt_core.errors import UserError

TASKS = ("classification", "detection", "segmentation")
FOLDER = "configs"


@dataclass(frozen=True)
class ConfigurationFile:
    """One YAML file below ``configs``.

    Attributes:
        root: the repository.
        name: path below the root, with ``/``.
        own: what the file itself sets.
        settings: the same with all that it inherits.
        head: lines of the comment that it begins with, without the marks.
    """

    root: Path
    name: str
    own: dict[str, Any]
    settings: dict[str, Any]
    head: tuple[str, ...]

    @property
    def inherits(self) -> str | None:
        """Name of the file in ``_BASE_``."""
        base = self.own.get("_BASE_")
        return None if base is None else _below(self.root, (self.root / self.name).parent / base)

    @property
    def task(self) -> str:
        """One of :data:`TASKS`, by the keys that only that task has.

        Raises:
            UserError: where none is there.
        """
        model = self.settings.get("MODEL", {})
        if "SEM_SEG_HEAD" in model or "CLIP_ADAPTER" in model:
            return "segmentation"
        if "ROI_HEADS" in model:
            return "detection"
        if "DATA" in self.settings:
            return "classification"
        raise UserError(f"{self.name}: no key tells its task; expected DATA, MODEL.ROI_HEADS or MODEL.SEM_SEG_HEAD")

    @property
    def small(self) -> bool:
        """Whether it is for a laptop: such files, or their folders, are called ``mini``."""
        return "mini" in re.split(r"[/_.]", self.name)

    @property
    def names_data(self) -> bool:
        """Whether training or test data are named, by the file or what it inherits."""
        data, sets = self.settings.get("DATA", {}), self.settings.get("DATASETS", {})
        return any(data.get("TRAIN", "")) or any(bool(_names(sets.get(key))) for key in ("TRAIN", "TEST"))

    @cached_property
    def about(self) -> str:
        """The first sentence of the head comment.

        Raises:
            UserError: where there is none.
        """
        lines = [line.strip() for line in self.head]
        text = " ".join(line for line in lines if line and not line.startswith("python ") and not line.startswith("--"))
        if not text:
            raise UserError(f"{self.name} does not begin with a comment that says what it is; write one")
        # A full stop ends the sentence where a capital follows, also behind a quotation mark or a bracket.
        found = re.match(r"(.*?[^.\s][.:]?[\")]*\.[\")]*)\s+(?=[A-Z\"`])", text)
        return found.group(1) if found else text

    @property
    def head_commands(self) -> list[str]:
        """Commands in the head comment, one line each."""
        return commands_in("\n".join(self.head))

    def named_by(self, command: str) -> bool:
        """Whether a command runs this file."""
        return configuration_of(command) == self.name


def read_configurations(root: Path) -> dict[str, ConfigurationFile]:
    """All files below ``root/configs`` by name, sorted.

    Raises:
        UserError: when there are none, or one cannot be read.
    """
    found = {}
    for path in sorted((root / FOLDER).rglob("*.yaml")):
        name = _below(root, path)
        text = path.read_text(encoding="utf-8")
        try:
            own = yaml.safe_load(text) or {}
            settings = dict(CfgNode.load_yaml_with_base(str(path)))
        except (yaml.YAMLError, OSError, AssertionError) as error:
            raise UserError(f"{name} cannot be read: {' '.join(str(error).split())}") from error
        found[name] = ConfigurationFile(root, name, own, settings, _head(text))
    if not found:
        raise UserError(f"no configuration below {root / FOLDER}; give the folder of the repository")
    return found


def bases(files: Mapping[str, ConfigurationFile]) -> set[str]:
    """Names of the files that are only inherited from.

    Others name them in ``_BASE_``, and they are called so (the first or last word of their name is ``base``) or name no
    data. All others are run.
    """
    inherited = {file.inherits for file in files.values()}
    return {
        name
        for name, file in files.items()
        if name in inherited and ("base" in _ends(Path(name).stem) or not file.names_data)
    }


def commands(file: ConfigurationFile, files: Mapping[str, ConfigurationFile]) -> list[str]:
    """What to type to run a file, in order.

    The commands of its head comment. Where none of them names the file, they only prepare, and what follows is: the
    commands in the docstring of the tool that the comment names, or that the comment of a file that it inherits from
    or mentions first does; else the task's own tool.
    """
    own = file.head_commands
    if any(map(file.named_by, own)):
        return own
    tool = _tool(file, files, set())
    if tool is not None:
        return own + commands_in(ast.get_docstring(ast.parse(tool.read_text(encoding="utf-8"))) or "")
    if file.task == "classification":
        return [*own, f"python tools/pretrain_prompt.py --config {file.name} --output runs/{Path(file.name).stem}"]
    processes = "--num-gpus 0 --num-processes 2" if file.small else "--num-gpus 8"
    sets = file.own.get("DATASETS", {})
    # Other words for a model that is trained already.
    only_tested = "TEST" in sets and "TRAIN" not in sets and "WEIGHTS" in file.own.get("MODEL", {})
    command = f"python tools/train_net.py --config {file.name} {processes}"
    return [*own, command + (" --eval-only" if only_tested else "")]


def commands_in(text: str) -> list[str]:
    """Lines of a text that begin with ``python``, those that a backslash continues joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [re.sub(r" {2,}", " ", line.strip()) for line in joined.splitlines() if line.strip().startswith("python ")]


def configuration_of(command: str) -> str | None:
    """The configuration that a command names."""
    found = re.search(r"--(?:config|config-file|model)[ =]([^\s=]+\.yaml)\b", command)
    return found.group(1) if found else None


def _tool(file: ConfigurationFile, files: Mapping[str, ConfigurationFile], seen: set[str]) -> Path | None:
    if file.name in seen:
        return None
    seen.add(file.name)
    text = " ".join(line for line in file.head if not line.strip().startswith("python "))
    named = re.search(r"\btools/\w+\.py\b", text)
    if named and (file.root / named.group()).is_file():
        return file.root / named.group()
    mentioned = re.search(rf"\b{FOLDER}/[\w/]+\.yaml\b", text)
    for name in (file.inherits, mentioned.group() if mentioned else None):
        if name is not None and name in files and name not in bases(files):
            found = _tool(files[name], files, seen)
            if found is not None:
                return found
    return None


def _head(text: str) -> tuple[str, ...]:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:])
    return tuple(lines)


def _below(root: Path, path: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()


def _ends(stem: str) -> Iterable[str]:
    words = stem.split("_")
    return words[0], words[-1]


def _names(value: Any) -> Any:
    """YAML has no tuples: ``("a",)`` is a text."""
    return CfgNode._decode_cfg_value(value) if isinstance(value, str) else value
