"""docs/use_another_backbone.md: its files work as they stand, outside the packages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prompt_core import TextClassifier, load_clip

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/use_another_backbone.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The one code block of the page that contains a text."""
    blocks = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if containing in text]
    assert len(blocks) == 1
    return str(blocks[0])


def test_a_clip_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_clip.json").write_text(block("json", "vision_cfg"), encoding="utf-8")
    state = load_clip("my_clip.json").model.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, "my_clip.safetensors")
    names: dict[str, object] = {}
    exec(block("python", "my_clip.json"), names)
    classifier = names["classifier"]
    assert isinstance(classifier, TextClassifier)
    assert classifier.names == ["scratch", "dent"]
    assert classifier.weight.shape == (2, json.loads(block("json", "vision_cfg"))["embed_dim"])


def test_a_backbone_of_ones_own_trains_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    from pomp_det import build_detector, load_config, load_weights
    from pomp_det.task import detection_task
    from pomp_engine.run import train

    from .support.detector_run import make_config, make_data

    (tmp_path / "my_backbone.py").write_text(block("python", "my_backbone.py"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    make_data(tmp_path)
    settings = re.findall(r"(MODEL\.(?:BACKBONE|FPN)\.\w+) (\"[^\"]+\"|\S+)", block("bash", "my_backbone:"))
    overrides = {key: value.strip('"') for key, value in settings}
    assert overrides["MODEL.BACKBONE.NAME"] == "my_backbone:build_mobilenet_fpn_backbone"
    file = make_config(tmp_path, **{"SOLVER.MAX_ITER": 2, "DATASETS.TEST": [], "MODEL.RESNETS.NORM": "BN"})
    train(detection_task(), load_config(file, overrides))
    run = tmp_path / "run"
    model = build_detector(load_config(run / "config.yaml"))
    load_weights(model, str(run / "model_final.pth"))
    saved = torch.load(run / "model_final.pth", weights_only=True)["model"]
    place = next(name for name in saved if name.startswith("backbone.bottom_up.base."))
    assert torch.equal(model.state_dict()[place], saved[place])
