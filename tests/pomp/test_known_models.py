"""What ``pomp models`` tells: the packaged list is the one that the configurations and results give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pomp.configurations import configurations
from pomp.models.known_models import card_sections, known_model, known_models
from pomp_lab.model_zoo import zoo_entries
from prompt_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., tuple[int, str, str]]


def test_the_packaged_list_is_current() -> None:
    stored = json.loads((ROOT / "pomp/assets/models.json").read_text(encoding="utf-8"))["configurations"]
    assert stored == zoo_entries(ROOT), (
        "run: python tools/model_zoo.py --output docs/model_zoo.md --models pomp/assets/models.json"
    )


def test_every_configuration_is_listed_and_the_embedded_ones_come_first() -> None:
    models = known_models()
    assert set(models) == {"mini", *configurations()}
    first = list(models)[:3]
    assert first == ["mini", "mini/detector", "mini/segmenter"]
    for name in first:
        model = models[name]
        assert model.origin.startswith("in the package, ")
        sections = card_sections(model)
        assert sections["Licence"].startswith("Apache 2.0")
        assert "Limits" in sections
    assert "claimed as open-vocabulary detection" in card_sections(models["mini/detector"])["What it has seen"]
    assert models["mini/detector"].measured


def test_weights_that_are_fetched_are_told_with_the_command() -> None:
    origin = known_model("configs/lvis_pomp.yaml").origin
    assert "get it: python tools/train_net.py" in origin
    with pytest.raises(UserError, match=r"no model is called 'mini/detectr'; nearest: 'mini/detector'"):
        known_model("mini/detectr")


def test_the_command_lists_describes_and_searches(call_pomp: Call) -> None:
    code, out, _ = call_pomp(None, "models")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "embedded, nothing to fetch"
    assert [line.split()[0] for line in lines[1:4]] == ["mini", "mini/detector", "mini/segmenter"]
    assert {"to classify", "to detect", "to segment"} <= set(lines)
    code, out, _ = call_pomp(None, "models", "mini/detector")
    assert code == 0
    for part in ("mini/detector: to detect", "in the package, 15.0 MB", "box AP 26.0", "Licence", "Sources", "Limits"):
        assert part in out
    code, out, _ = call_pomp(None, "models", "siglip2-256")
    assert (code, "ViT-B-16-SigLIP2-256" in out, "mini/detector" in out) == (0, True, False)
    code, out, _ = call_pomp(None, "models", "lvis_pomp", "--json")
    assert json.loads(out)["task"] == "detect"
    code, _, error = call_pomp(None, "models", "nothing-like-it")
    assert (code, len(error.splitlines())) == (2, 1)
    assert "no model, configuration or CLIP has 'nothing-like-it' in its name" in error


def test_clips_are_those_of_the_doctor(call_pomp: Call, capsys: pytest.CaptureFixture[str]) -> None:
    from prompt_core import doctor

    code, out, _ = call_pomp(None, "models", "--clips", "SigLIP2")
    assert code == 0
    assert doctor.main(["--towers", "SigLIP2"]) == 0
    assert capsys.readouterr().out == out
