"""docs/add_a_data_set.md: its reader and commands work as they stand, outside the packages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .support.tools import call_tool

__all__ = ["call_tool"]

PAGE = (Path(__file__).resolve().parent.parent / "docs/add_a_data_set.md").read_text(encoding="utf-8")
# To be done in seconds: settings of the prompt that the page leaves to the configuration.
SMALL = ["AUGMENT.STORED_VIEWS", "0", "AUGMENT.VIEWS", "1", "OPTIM.EPOCHS", "1", "LOSS.NUM_CLASSES", "3"]


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return str(text)


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's module and data."""
    (tmp_path / "my_birds.py").write_text(block("python"), encoding="utf-8")
    photos = tmp_path / "data/birds/photos"
    photos.mkdir(parents=True)
    lines = []
    for number, (split, name) in enumerate([(s, n) for s in ("train", "val", "test") for n in ("owl", "gull", "kite")]):
        pixels = np.full((32, 32, 3), 25 * number, np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
        lines.append(f"{number}.png\t{split}\t{name}\n")
    (photos.parent / "labels.txt").write_text("".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "data"))
    return photos.parent


def test_the_commands_of_the_page(birds: Path, call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    check, learn, score = [shlex.split(line)[1:] for line in block("bash").splitlines() if not line.startswith("#")]
    code, output, errors = call_tool("../" + check[0].removesuffix(".py"), *check[1:])
    assert code == 0, errors
    for split in ("train", "val", "test"):
        assert f"{split}: 3 classes, 3 photos, all of them read" in " ".join(output.split())
    code, _, errors = call_tool(Path(learn[0]).stem, *learn[1:], *SMALL)
    assert code == 0, errors
    alone = [word.removesuffix(",dtd") for word in score[1:]]
    code, output, errors = call_tool(Path(score[0]).stem, *alone, "MODEL.NAME", "mini")
    assert code == 0, errors
    metrics = json.loads((tmp_path / "runs/birds_scores/metrics.json").read_text())
    assert 0 <= metrics["birds/top1"] <= 100
    (birds / "photos/1.png").unlink()
    code, output, errors = call_tool("../" + check[0].removesuffix(".py"), *check[1:])
    assert code == 2, errors
    assert " broken " in output


def test_what_a_reader_may_not_do(birds: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prompt_core.data.images import ImageSet
    from prompt_core.data.sources import open_images
    from prompt_core.errors import UserError

    assert isinstance(open_images("my_birds:birds", "val"), ImageSet)
    assert open_images("my_birds:birds", "test").keys == ["photos/6.png", "photos/7.png", "photos/8.png"]
    with pytest.raises(UserError, match="Birds has no split 'tset'"):
        open_images("my_birds:birds", "tset")
    with pytest.raises(UserError, match="module my_birds has no 'brids'; nearest: 'birds'"):
        open_images("my_birds:brids")
    with pytest.raises(UserError, match=r"importing no_such_package_here\.birds failed"):
        open_images("no_such_package_here.birds:birds")
    (tmp_path / "my_list.py").write_text("def birds(root, split):\n    return [root, split]\n", encoding="utf-8")
    with pytest.raises(UserError, match="my_list:birds returned list for val; expected a prompt_core ImageSet"):
        open_images("my_list:birds")
    # a folder of this name is a folder
    (tmp_path / "my_birds:birds/gull").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "my_birds:birds/gull/a.png")
    monkeypatch.chdir(tmp_path)
    assert open_images("my_birds:birds").names == ["gull"]
