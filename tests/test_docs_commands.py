"""Every command in the documents and in the model zoo: tool, options, configuration and keys exist; what can run, runs.

A line ``# needs WHAT`` in a block of commands says that those behind it, up to the next such line, need real data,
weights, or more than seconds. They are parsed by their tool and go no further. All others are run here on small data,
in a folder where ``make demo`` seems to have been.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pomp.console import COMMANDS, dispatch
from pomp.shipped_photos import PHOTOS
from pomp_lab.model_zoo import commands, read_configurations
from prompt_core.config import load_config
from prompt_core.errors import UserError, run_command

ROOT = Path(__file__).resolve().parent.parent
RUN_PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
# Commands of these are parsed, and run by tests of their own.
OTHER_PAGES = [
    "CONTRIBUTING.md",
    "datasets/README.md",
    "prompt_core/assets/MINI_MODEL_CARD.md",
    "pomp_det/assets/DETECTOR_MODEL_CARD.md",
]
PAGES = [ROOT / name for name in (*RUN_PAGES, *OTHER_PAGES)]
FILES = read_configurations(ROOT)
TABLES = ("imagenet21k", "cross_dataset", "cross_domain", "cost", "ablation_k", "ablation_margin", "align_uniform")
# Additional options of tools, so that they take seconds: the last of several options counts.
SMALL = {
    "make_shapes.py": [
        *("--classes", "8", "--classification-classes", "8", "--train-images-per-class", "2"),
        *("--val-images-per-class", "1", "--scenes", "2", "--val-scenes", "1"),
    ],
    "pretrain_prompt.py": ["OPTIM.EPOCHS", "1", "OPTIM.BATCH", "4", "DATA.SHOTS", "1", "AUGMENT.STORED_VIEWS", "1"],
}
OTHER_MODELS = ("write_proposals.py",)  # whose --model is one of another project
# Tools that read the configurations of prompt learning, or none.
LEARNING = ("pretrain_prompt.py", "evaluate_prompt.py", "build_classifier.py", "compare_prompts.py", "demo.py")


@dataclass(frozen=True)
class Command:
    """One command of a document, as a shell splits it."""

    place: str
    words: tuple[str, ...]
    needs: str = ""

    @property
    def tool(self) -> str:
        return self.words[1]

    @property
    def of_front(self) -> bool:
        """Whether it is one of ``pomp``, not of a script."""
        return self.words[0] == "pomp"


def commands_of(page: Path) -> Iterator[Command]:
    """Commands in the bash blocks of a page; ``# needs`` holds to the end of its block."""
    for number, block in enumerate(re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S), start=1):
        needs = ""
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            if line.startswith("# needs "):
                needs = line.removeprefix("# needs ")
            words = tuple(shlex.split(line, comments=True))
            script = words[:1] == ("python",) and words[1:3] not in (("-m", "venv"), ("-m", "pip"))
            if script or (words[:1] == ("pomp",) and "|" not in words):
                yield Command(f"{_name(page)}, block {number}", words, needs)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


DOCUMENTED = [command for page in PAGES for command in commands_of(page)]
OF_ZOO = [
    Command("zoo", tuple(shlex.split(line)), "as the page says")
    for file in FILES.values()
    if file.runnable
    for line in commands(file, FILES, ROOT)
]
ALL = list({command.words: command for command in (*OF_ZOO, *DOCUMENTED)}.values())
RUNNABLE = [
    command
    for command in DOCUMENTED
    # those of pomp in other pages are parsed; tests of the front run them on less
    if not command.needs and command.place.split(",")[0] in (RUN_PAGES[:1] if command.of_front else RUN_PAGES)
]


def words_of(command: Command) -> str:
    return " ".join(command.words[1:])[:90]


class Parsed(Exception):
    """Stops a tool when it has read its command line."""

    def __init__(self, values: argparse.Namespace) -> None:
        super().__init__()
        self.values = values


def load_tool(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the tool's own parser makes of a command.

    Raises:
        UserError: for options that are unknown, missing or of a wrong value.
    """
    if command.of_front:
        assert command.tool in COMMANDS, f"{command.place}: there is no command pomp {command.tool}"
        main, name_of_tool = importlib.import_module(COMMANDS[command.tool].module).main, f"pomp {command.tool}"
    else:
        path = ROOT / command.tool
        assert path.is_file(), f"{command.place}: there is no {command.tool}"
        monkeypatch.syspath_prepend(str(path.parent))  # as for a script
        main, name_of_tool = load_tool(path).main, path.name
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def stop(self: Any, *given: Any, original: Any = original, **more: Any) -> Any:
            raise Parsed(original(self, *given, **more))

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)
    monkeypatch.setattr(sys, "argv", [name_of_tool, *command.words[2:]])
    with pytest.raises(Parsed) as parsed:
        main()
    return parsed.value.values


def check_configuration(command: Command, values: argparse.Namespace) -> None:
    """The configuration loads, with the overrides of the command.

    Raises:
        UserError: when it does not.
    """
    model = None if Path(command.tool).name in OTHER_MODELS else getattr(values, "model", None)
    name = getattr(values, "config", None) or model
    overrides = list(getattr(values, "overrides", []) or getattr(values, "set", None) or [])
    absent = [word for word in command.words if word.startswith("configs/") and not (ROOT / word).is_file()]
    assert not absent, f"{command.place}: there is no {absent[0]}"
    if name is None and Path(command.tool).name not in LEARNING:
        assert not overrides, f"{command.place}: overrides without a configuration are not checked"
        return
    if name is None or FILES[name].task == "classification":
        load_config(name, overrides)
        return
    pytest.importorskip("detectron2", reason="keys of detectors and segmenters need Detectron2")
    import pomp_det
    import pomp_seg

    (pomp_seg if FILES[name].task == "segmentation" else pomp_det).load_config(name, overrides)


@pytest.mark.parametrize("command", ALL, ids=words_of)
def test_tool_options_configuration_and_keys_exist(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.of_front:
        parse(command, monkeypatch)
        return
    if command.tool == "-m":
        assert importlib.util.find_spec(command.words[2]) is not None
        return
    monkeypatch.chdir(ROOT)
    check_configuration(command, parse(command, monkeypatch))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python tools/margins.py --classes 10 --samples 3,4", "unrecognized arguments: --samples|required"),
        ("python tools/pretrain_prompt.py --config configs/prompt/absent.yaml", "absent.yaml"),
        ("python tools/pretrain_prompt.py --config configs/prompt/mini_shapes.yaml OPTIM.EPOCH 1", "OPTIM.EPOCHS"),
        ("python tools/train_net.py --config configs/mini/coco_seg.yaml SOLVER.MAX_ITERS 1", "SOLVER.MAX_ITER"),
        ("python tools/absent.py --config configs/mini/coco_seg.yaml", "there is no tools/absent.py"),
    ],
)
def test_mistakes_in_a_document_are_found(line: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = Command("here", tuple(shlex.split(line)))
    with pytest.raises((UserError, AssertionError, KeyError), match=message):
        check_configuration(command, parse(command, monkeypatch))


def test_marks_hold_for_what_stands_behind_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nmake demo\npython a.py  # a remark\n# needs LVIS\npython b.py \\\n    --c 'd e'\n"
        "# needs more\npython f.py\n```\n\n```bash\npython g.py\n```\n",
        encoding="utf-8",
    )
    commands = [(command.words[1:], command.needs) for command in commands_of(page)]
    assert commands == [(("a.py",), ""), (("b.py", "--c", "d e"), "LVIS"), (("f.py",), "more"), (("g.py",), "")]


def test_each_table_is_reproduced_by_a_command_at_both_scales() -> None:
    given = [command.words[2:] for command in DOCUMENTED if command.tool == "tools/reproduce.py"]
    for table in TABLES:
        scales = ["laptop" if "laptop" in words else "paper" for words in given if words[0] == table]
        assert sorted(scales) == ["laptop", "paper"], table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository's, with small data where ``make demo`` leaves its own."""
    from pomp_lab.shapes.generate import build_shapes
    from pomp_lab.shapes.options import ShapesOptions
    from prompt_core import SoftPrompt
    from prompt_core.clip import load_clip
    from prompt_core.text.tower import TextTower

    folder = tmp_path_factory.mktemp("workplace")
    (folder / "configs").symlink_to(ROOT / "configs", target_is_directory=True)
    shutil.copytree(ROOT / "docs/results", folder / "docs/results")
    shutil.copytree(ROOT / "docs/images", folder / "docs/images")
    (folder / "photos").mkdir()
    for name in ("street.jpg", "clock.jpg"):
        shutil.copy(PHOTOS / name, folder / "photos")
    options = ShapesOptions(
        classes=8, classification_classes=8, train_images_per_class=2, val_images_per_class=1, parts=("classification",)
    )
    build_shapes(folder / "runs/demo_shapes/shapes", options, overwrite=False, workers=1)
    clip = load_clip("mini")
    prompt = SoftPrompt.random(TextTower(clip).width, 4)
    prompt.save(folder / "runs/demo_shapes/prompt/prompt.safetensors", clip="mini", pretrained=None)
    return folder


@pytest.mark.parametrize("command", RUNNABLE, ids=words_of)
def test_commands_run(
    command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("POMP_DATA", str(workplace / "datasets"))
    if command.of_front:
        main, words = dispatch, (*command.words[1:], *SMALL.get(command.tool, ()))
    elif command.tool == "-m":
        main, words = importlib.import_module(command.words[2]).main, command.words[3:]
    else:
        monkeypatch.syspath_prepend(str((ROOT / command.tool).parent))
        main = load_tool(ROOT / command.tool).main
        words = (*command.words[2:], *SMALL.get(Path(command.tool).name, ()))
    monkeypatch.setattr(sys, "argv", [Path(command.tool).name, *words])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert (stop.value.code, capsys.readouterr().err.partition("error:")[2]) in ((0, ""), (None, ""))


def written(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command", [command for command in DOCUMENTED if command.tool == "tools/reproduce.py"], ids=words_of
)
def test_tables_are_planned(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without data: what is missing is listed, nothing is learned and nothing written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "datasets"))
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *command.words[2:], "--dry-run"])
    with pytest.raises(SystemExit) as stop:
        run_command(load_tool(ROOT / command.tool).main)
    assert not stop.value.code, capsys.readouterr().err
    assert written(tmp_path) == set()
    assert capsys.readouterr().out
